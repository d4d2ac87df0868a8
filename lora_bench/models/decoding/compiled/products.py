"""A matrix times rows of inputs: scales, adapter, bias, and the final operation."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

from lora_bench.models.decoding.compiled.compiler import compiled
from lora_bench.models.decoding.compiled.dots import dots_of_1, dots_of_2, dots_of_4
from lora_bench.models.decoding.compiled.records import ADD, GELU, HALF_SHIFT, RELU

INPUT_FACTOR = np.float32(2.0 ** (112 - HALF_SHIFT))
"""Factor of the inputs of float16 matrices: the bits of a float16, read as float32, are 2^-112 times its value."""
BLOCK = 32
"""Outputs that a thread takes at a time; even."""
INT8_LEVELS = np.float32(127.0)


def _prepared(row: Any, weight: Any) -> Any:
    """Prepare a row of inputs for a matrix; return the factor of the products."""
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
def _put(values: Any, how: int, y: Any) -> None:
    """Write values [n] to the outputs."""
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
    """Apply scale, adapter and bias to the outputs of one row from `o` on."""
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
    """Multiply outputs from `o` on with all rows, to totals [R, BLOCK], in pairs of outputs and fours of rows."""
    n_rows = len(x)
    for j in range(0, min(BLOCK, weight.shape[0] - o), 2):
        r = 0
        while r + 4 <= n_rows:
            four = dots_of_4(weight, o + j, x, r)
            for i in range(4):
                totals[r + i, j], totals[r + i, j + 1] = four[2 * i], four[2 * i + 1]
            r += 4
        while r + 2 <= n_rows:
            two = dots_of_2(weight, o + j, x, r)
            totals[r, j], totals[r, j + 1] = two[0], two[1]
            totals[r + 1, j], totals[r + 1, j + 1] = two[2], two[3]
            r += 2
        if r < n_rows:
            one = dots_of_1(weight, o + j, x, r)
            totals[r, j], totals[r, j + 1] = one[0], one[1]


@compiled()
def _lower(x: Any, down: Any, lowered: Any) -> None:
    """Multiply x [R, I] by an adapter's A [r, I]; write to `lowered` [R, r]."""
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
    """Compute the outputs of all rows from `o` on."""
    n_rows, weight = len(x), matrix.weight[layer]
    count = min(BLOCK, len(weight) - o)
    totals = np.empty((n_rows, BLOCK), np.float32)
    _dot_block(weight, o, x, totals)
    for r in range(n_rows):
        _finish(totals[r, :count], peaks[r], matrix, layer, o, lowered[r])
        _put(totals[r, :count], how, y[r, o : o + count])


@compiled(parallel=True)
def multiply(x: Any, matrix: Any, layer: int, y: Any, how: int) -> None:
    """Multiply x [R, I], which is overwritten, and write to y [R, O]; `how` is `WRITE`, `ADD` or an activation."""
    n_rows = len(x)
    lowered = np.empty((n_rows, matrix.down.shape[1]), np.float32)
    _lower(x, matrix.down[layer], lowered)
    peaks = np.empty(n_rows, np.float32)
    for r in range(n_rows):
        peaks[r] = _prepared(x[r], matrix.weight[layer])
    for block in numba.prange(-(-matrix.weight.shape[1] // BLOCK)):
        _multiply_block(x, matrix, layer, block * BLOCK, lowered, peaks, how, y)
