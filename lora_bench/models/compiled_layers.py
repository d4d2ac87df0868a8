"""A decoder's layers in one compiled function, for batches so small that reading matrices is what takes time.

numba compiles it when it is first called on a machine (some seconds; kept in a cache afterwards).  Matrices are
read once per step, in the order in which they lie in memory; what stands between them (norms, attention,
activation, residuals) costs no calls from Python.

A row's result depends on neither the other rows nor the number of threads: every output number is one dot
product in one order, 16 partial sums over the inputs added up as a tree, done by one thread.

Axes: `L` layers, `O` outputs, `I` inputs, `R` rows (clips, then their null halves), `N` clips, `H` heads,
`T` positions, `D` width, `S` tokens of the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])

LANES = 16
"""Numbers of inputs must be multiples of this."""
HALF_SHIFT = 10
"""Halves are stored times 2 to this, which leaves none of them denormal."""
INPUT_FACTOR = np.float32(2.0 ** (112 - HALF_SHIFT))
"""What inputs of halves are multiplied by: the bits of a half, read as float32, are 2^-112 times its value."""
BLOCK = 32
"""Outputs that a thread takes at a time; even."""
INT8_LEVELS = np.float32(127.0)
WRITE, ADD, GELU, RELU = range(4)
"""What becomes of a product: it is written, added to what is there, or written through an activation."""
_PARTS = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")
_LOOPS = {
    "prange": True,
    **dict.fromkeys(_PARTS, False),
}  # only what is written as parallel; the rest takes long
_FAST = {"reassoc", "contract", "nsz"}  # sums in any order, but NaN and infinity stay what they are


def compiled(*, parallel: bool = False) -> Callable[[Function], Function]:
    """Numba's compiler, with its cache where a folder for it can be written."""

    def decorate(function: Function) -> Function:
        options: dict[str, Any] = {
            "parallel": _LOOPS if parallel else False,
            "fastmath": _FAST,
            "nogil": True,
            "error_model": "numpy",
        }
        try:
            made: Any = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder to be written to: compile in every process
            made = numba.njit(**options)(function)
        return made

    return decorate


class Matrix(NamedTuple):
    """One of the matrices of all layers; an array of length 0 along its last axis is not there.

    Attributes:
        weight: [L, O, I]; int16 are halves times `2 ** HALF_SHIFT`, int8 codes, float32 themselves.
        scale: of int8 codes, float32 [L, O].
        down: an adapter's A, float32 [L, r, I].
        up: its B, float32 [L, O, r].
        factor: DoRA's, float32 [L, O].
        bias: float32 [L, O].
    """

    weight: NDArray[Any]
    scale: Floats
    down: Floats
    up: Floats
    factor: Floats
    bias: Floats


class Norms(NamedTuple):
    """Layer norms before self-attention, cross-attention and feed-forward part, float32 [L, 3, D] each."""

    weight: Floats
    bias: Floats
    eps: float


class Ways(NamedTuple):
    """What becomes of products.  Handed over, as numba compiles once more for every constant that it sees."""

    activation: int
    write: int = WRITE
    add: int = ADD


class Layers(NamedTuple):
    """All layers."""

    norms: Norms
    self_qkv: Matrix
    self_out: Matrix
    cross_q: Matrix
    cross_out: Matrix
    ffn_in: Matrix
    ffn_out: Matrix
    ways: Ways


class Heads(NamedTuple):
    """What follows the layers: a norm [1, 1, D] and the heads of all codebooks [1, O, D]."""

    norm: Norms
    matrix: Matrix
    ways: Ways


class Attended(NamedTuple):
    """What attention sees.

    Attributes:
        keys, values: of the past, float32 or int16 (the bits of bfloat16) [L, R, H, T, D / H].
        text_keys, text_values: of the prompt, float32 [L, H, S, D / H].
    """

    keys: NDArray[Any]
    values: NDArray[Any]
    text_keys: Floats
    text_values: Floats


def _dots(n_x: int) -> Any:
    """Dot products of two rows of a matrix with `n_x` rows of inputs.

    Written as vectors of `LANES` numbers rather than left to the compiler, which takes half the width and slow
    integer products for it.
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
        # sign and the half's exponent and fraction; the copies of the sign between them go
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


_dots_of_1, _dots_of_2, _dots_of_4 = _dots(1), _dots(2), _dots(4)


def _widened(value: Any) -> Any:
    """A stored number of the past in float32."""
    raise NotImplementedError


@overload(_widened, inline="always")
def _widen(value: Any) -> Any:
    def from_bfloat16(value: Any) -> Any:
        return np.int32(np.int32(value) << 16).view(np.float32)

    def as_it_is(value: Any) -> Any:
        return value

    return from_bfloat16 if value == types.int16 else as_it_is


def _narrowed(value: Any, like: Any) -> Any:
    """A float32 as numbers of the past are stored: bfloat16 is rounded to the nearest, ties to even."""
    raise NotImplementedError


@overload(_narrowed, inline="always")
def _narrow(value: Any, like: Any) -> Any:
    def to_bfloat16(value: Any, like: Any) -> Any:
        bits = np.int64(np.float32(value).view(np.int32))
        return np.int16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)

    def as_it_is(value: Any, like: Any) -> Any:
        return value

    return to_bfloat16 if like == types.int16 else as_it_is


def _prepared(row: Any, weight: Any) -> Any:
    """Bring a row of inputs into the form that a matrix wants; returns what products are to be multiplied by."""
    raise NotImplementedError


@overload(_prepared)
def _prepare(row: Any, weight: Any) -> Any:
    def scaled(row: Any, weight: Any) -> Any:
        for i in range(len(row)):
            row[i] *= INPUT_FACTOR
        return np.float32(1.0)

    def rounded(row: Any, weight: Any) -> Any:
        peak = np.float32(0.0)
        for i in range(len(row)):
            peak = max(peak, abs(row[i]))
        if peak == 0.0:
            return np.float32(0.0)
        for i in range(len(row)):
            row[i] = np.rint(row[i] / peak * INT8_LEVELS)
        return peak / INT8_LEVELS

    def as_it_is(row: Any, weight: Any) -> Any:
        return np.float32(1.0)

    return {types.int16: scaled, types.int8: rounded}.get(weight.dtype, as_it_is)


@compiled()
def _normalize(x: Any, weight: Any, bias: Any, eps: float, out: Any) -> None:
    """Layer norm of rows [R, D]."""
    width = x.shape[1]
    for r in range(len(x)):
        total = np.float32(0.0)
        for i in range(width):
            total += x[r, i]
        mean = total / np.float32(width)
        squares = np.float32(0.0)
        for i in range(width):
            squares += (x[r, i] - mean) ** 2
        factor = np.float32(1.0) / np.sqrt(squares / np.float32(width) + np.float32(eps))
        for i in range(width):
            out[r, i] = (x[r, i] - mean) * factor * weight[i] + bias[i]


@compiled()
def _put(values: Any, how: int, y: Any) -> None:
    """Values [n] where outputs belong."""
    for j in range(len(values)):
        value = values[j]
        if how == ADD:
            y[j] += value
        elif how == GELU:
            share = np.float32(math.erf(value * np.float32(math.sqrt(0.5))))
            y[j] = np.float32(0.5) * value * (np.float32(1.0) + share)
        elif how == RELU:
            y[j] = max(value, np.float32(0.0))
        else:
            y[j] = value


@compiled()
def _finish(total: Any, peak: Any, matrix: Any, layer: int, o: int, lowered: Any) -> None:
    """Outputs of one row from `o` on: scale, adapter, bias."""
    for j in range(len(total)):
        total[j] *= peak
    if matrix.scale.shape[1] > 0:
        for j in range(len(total)):
            total[j] *= matrix.scale[layer, o + j]
    rank = matrix.up.shape[2]
    if rank > 0:
        for j in range(len(total)):
            update = np.float32(0.0)
            for k in range(rank):
                update += matrix.up[layer, o + j, k] * lowered[k]
            total[j] += update
    if matrix.factor.shape[1] > 0:
        for j in range(len(total)):
            total[j] *= matrix.factor[layer, o + j]
    if matrix.bias.shape[1] > 0:
        for j in range(len(total)):
            total[j] += matrix.bias[layer, o + j]


@compiled()
def _dot_block(weight: Any, o: int, x: Any, totals: Any) -> None:
    """Products of outputs from `o` on with all rows into totals [R, BLOCK]; pairs of outputs, fours of rows."""
    n_rows = len(x)
    for j in range(0, min(BLOCK, weight.shape[0] - o), 2):
        r = 0
        while r + 4 <= n_rows:
            four = _dots_of_4(weight, o + j, x, r)
            for i in range(4):
                totals[r + i, j], totals[r + i, j + 1] = four[2 * i], four[2 * i + 1]
            r += 4
        while r + 2 <= n_rows:
            two = _dots_of_2(weight, o + j, x, r)
            totals[r, j], totals[r, j + 1] = two[0], two[1]
            totals[r + 1, j], totals[r + 1, j + 1] = two[2], two[3]
            r += 2
        if r < n_rows:
            one = _dots_of_1(weight, o + j, x, r)
            totals[r, j], totals[r, j + 1] = one[0], one[1]


@compiled()
def _lower(x: Any, down: Any, lowered: Any) -> None:
    """Write `lowered` [R, r] from x [R, I] and an adapter's A [r, I]."""
    for k in range(len(down)):
        for r in range(len(x)):
            total = np.float32(0.0)
            for i in range(x.shape[1]):
                total += down[k, i] * x[r, i]
            lowered[r, k] = total


@compiled()
def _multiply_block(
    x: Any, matrix: Any, layer: int, o: int, lowered: Any, peaks: Any, how: int, y: Any
) -> None:
    """Outputs from `o` on of all rows."""
    n_rows, weight = len(x), matrix.weight[layer]
    count = min(BLOCK, len(weight) - o)
    totals = np.empty((n_rows, BLOCK), np.float32)
    _dot_block(weight, o, x, totals)
    for r in range(n_rows):
        _finish(totals[r, :count], peaks[r], matrix, layer, o, lowered[r])
        _put(totals[r, :count], how, y[r, o : o + count])


@compiled(parallel=True)
def multiply(x: Any, matrix: Any, layer: int, y: Any, how: int) -> None:
    """Write y [R, O] from x [R, I], which is overwritten; `how` is `WRITE`, `ADD` or an activation."""
    n_rows = len(x)
    lowered = np.empty((n_rows, matrix.down.shape[1]), np.float32)
    _lower(x, matrix.down[layer], lowered)
    peaks = np.empty(n_rows, np.float32)
    for r in range(n_rows):
        peaks[r] = _prepared(x[r], matrix.weight[layer])
    for block in numba.prange(-(-matrix.weight.shape[1] // BLOCK)):
        _multiply_block(x, matrix, layer, block * BLOCK, lowered, peaks, how, y)


@compiled()
def _attend(query: Any, keys: Any, values: Any, upto: int, out: Any) -> None:
    """Out [D / H] from a query and the first `upto` keys and values [T, D / H]."""
    width = len(query)
    scale = np.float32(1.0) / np.sqrt(np.float32(width))
    scores = np.empty(upto, np.float32)
    top = np.float32(-np.inf)
    for t in range(upto):
        total = np.float32(0.0)
        for i in range(width):
            total += query[i] * _widened(keys[t, i])
        scores[t] = total * scale
        top = max(top, scores[t])
    weights = np.float32(0.0)
    for t in range(upto):
        scores[t] = np.float32(math.exp(scores[t] - top))
        weights += scores[t]
    out[:] = np.float32(0.0)
    for t in range(upto):
        share = scores[t] / weights
        for i in range(width):
            out[i] += share * _widened(values[t, i])


@compiled(parallel=True)
def _attend_to_past(qkv: Any, attended: Any, layer: int, position: int, out: Any) -> None:
    """Out [R, D] from qkv [R, 3 D]; this position's key and value are written first."""
    keys, values = attended.keys[layer], attended.values[layer]
    n_rows, n_heads, _, width = keys.shape
    for item in numba.prange(n_rows * n_heads):
        r, head = item // n_heads, item % n_heads
        at = head * width
        all_heads = n_heads * width
        for i in range(width):
            keys[r, head, position, i] = _narrowed(qkv[r, all_heads + at + i], keys[r, head, position, i])
            values[r, head, position, i] = _narrowed(
                qkv[r, 2 * all_heads + at + i], values[r, head, position, i]
            )
        query = qkv[r, at : at + width]
        _attend(query, keys[r, head], values[r, head], position + 1, out[r, at : at + width])


@compiled(parallel=True)
def _attend_to_text(query: Any, attended: Any, layer: int, out: Any) -> None:
    """Out [N, D] from query [N, D]."""
    keys, values = attended.text_keys[layer], attended.text_values[layer]
    n_heads, n_tokens, width = keys.shape
    for item in numba.prange(len(query) * n_heads):
        r, at = item // n_heads, item % n_heads * width
        head = item % n_heads
        _attend(query[r, at : at + width], keys[head], values[head], n_tokens, out[r, at : at + width])


@compiled()
def run_layers(x: Any, n_clips: int, layers: Any, attended: Any, position: int) -> None:
    """All layers, in place.

    Args:
        x: float32 [R, D]; the first N rows see the text, the others (null halves of guidance) do not:
            attention without biases to states of zero gives zero.
        n_clips: N.
        layers: as `Layers`.
        attended: as `Attended`; gets this position's keys and values.
        position: T of this step.
    """
    n_rows, width = x.shape
    rows = np.empty((n_rows, width), np.float32)
    mixed = np.empty((n_rows, width), np.float32)
    qkv = np.empty((n_rows, 3 * width), np.float32)
    inner = np.empty((n_rows, layers.ffn_in.weight.shape[1]), np.float32)
    weight, bias, eps = layers.norms
    activation, write, add = layers.ways
    for layer in range(len(weight)):
        _normalize(x, weight[layer, 0], bias[layer, 0], eps, rows)
        multiply(rows, layers.self_qkv, layer, qkv, write)
        _attend_to_past(qkv, attended, layer, position, mixed)
        multiply(mixed, layers.self_out, layer, x, add)
        _normalize(x[:n_clips], weight[layer, 1], bias[layer, 1], eps, rows)
        multiply(rows[:n_clips], layers.cross_q, layer, mixed, write)
        _attend_to_text(mixed[:n_clips], attended, layer, rows)
        multiply(rows[:n_clips], layers.cross_out, layer, x, add)
        _normalize(x, weight[layer, 2], bias[layer, 2], eps, rows)
        multiply(rows, layers.ffn_in, layer, inner, activation)
        multiply(inner, layers.ffn_out, layer, x, add)


@compiled()
def run_heads(x: Any, n_clips: int, guidance: float, heads: Any, logits: Any) -> None:
    """Logits [N, O] after the layers; guidance is applied before the heads, which have no bias.

    Args:
        x: float32 [R, D].
        n_clips: N; R is N, or with guidance 2 N.
        guidance: scale.
        heads: as `Heads`.
        logits: float32 [N, O], written.
    """
    rows = np.empty_like(x)
    weight, bias, eps = heads.norm
    _normalize(x, weight[0, 0], bias[0, 0], eps, rows)
    if len(x) > n_clips:
        for r in range(n_clips):
            for i in range(x.shape[1]):
                null = rows[n_clips + r, i]
                rows[r, i] = null + np.float32(guidance) * (rows[r, i] - null)
    for layer in range(len(weight)):  # there is one
        multiply(rows[:n_clips], heads.matrix, layer, logits, heads.ways.write)
