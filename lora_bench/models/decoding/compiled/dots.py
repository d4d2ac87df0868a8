"""Dot products of a matrix's rows, as the processor's instructions for vectors."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lora_bench.models.decoding.compiled.records import LANES


def _dots(n_x: int) -> Any:
    """Build the function for dot products of two rows of a matrix with `n_x` rows of inputs.

    It uses explicit vectors of `LANES` numbers, because the compiler itself chooses half the width and slow integer
    products.
    """
    floats, ints = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)
    stored = {types.int16: ir.IntType(16), types.int8: ir.IntType(8), types.float32: ir.FloatType()}

    def load(builder: Any, pointer: Any, element: Any) -> Any:
        vector = ir.VectorType(element, LANES)
        return builder.load(
            builder.bitcast(pointer, vector.as_pointer()),
            align=element.width // 8 if isinstance(element, ir.IntType) else 4,
        )

    def widen(builder: Any, raw: Any, dtype: Any) -> Any:
        if dtype == types.float32:
            return raw
        wide = builder.sext(raw, ints)
        if dtype == types.int8:
            return builder.sitofp(wide, floats)
        shifted = builder.shl(wide, ir.Constant(ints, [13] * LANES))
        # keep sign, exponent and fraction of the float16; clear the copies of the sign between them
        kept = builder.and_(shifted, ir.Constant(ints, [0x8FFFFFFF - (1 << 32)] * LANES))
        return builder.bitcast(kept, floats)

    def add_up(builder: Any, vector: Any) -> Any:
        count = LANES
        while count > 1:
            count //= 2
            undefined = ir.Constant(vector.type, ir.Undefined)
            low, high = (
                builder.shuffle_vector(
                    vector, undefined, ir.Constant(ir.VectorType(ir.IntType(32), count), list(part))
                )
                for part in (range(count), range(count, 2 * count))
            )
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    @intrinsic
    def dots(_: Any, weight: Any, row: Any, x: Any, first: Any) -> Any:
        """`weight` [O, I] contiguous, its rows `row` and `row + 1`; `x` [R, I] contiguous, from row `first` on."""
        signature = types.UniTuple(types.float32, 2 * n_x)(weight, types.intp, x, types.intp)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            weight_type, _, x_type, _ = signature.args
            matrix = context.make_array(weight_type)(context, builder, args[0])
            inputs = context.make_array(x_type)(context, builder, args[2])
            n_inputs = cgutils.unpack_tuple(builder, matrix.shape)[1]
            element = stored[weight_type.dtype]
            fused = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(floats, [floats] * 3), f"llvm.fma.v{LANES}f32"
            )

            def start(base: Any, index: Any, offset: int) -> Any:
                place = builder.mul(builder.add(index, index.type(offset)), n_inputs)
                return builder.gep(base, [place])

            weights = [start(matrix.data, args[1], k) for k in range(2)]
            rows = [start(inputs.data, args[3], k) for k in range(n_x)]
            zero = ir.Constant(floats, [0.0] * LANES)
            sums = [cgutils.alloca_once_value(builder, zero) for _ in range(2 * n_x)]
            with cgutils.for_range_slice(builder, n_inputs.type(0), n_inputs, n_inputs.type(LANES)) as (
                at,
                _,
            ):
                loaded = [load(builder, builder.gep(place, [at]), ir.FloatType()) for place in rows]
                for k, place in enumerate(weights):
                    raw = load(builder, builder.gep(place, [at]), element)
                    wide = widen(builder, raw, weight_type.dtype)
                    for j, values in enumerate(loaded):
                        total = sums[2 * j + k]
                        builder.store(builder.call(fused, [wide, values, builder.load(total)]), total)
            found = [add_up(builder, builder.load(total)) for total in sums]
            return context.make_tuple(builder, signature.return_type, found)

        return signature, generate

    return dots


dots_of_1, dots_of_2, dots_of_4 = _dots(1), _dots(2), _dots(4)
