"""Attention of single queries to the past and to the text."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

from lora_bench.models.decoding.compiled.compiler import compiled


def _widened(value: Any) -> Any:
    """Convert a stored number of the past to float32."""
    raise NotImplementedError


@overload(_widened, inline="always")
def _widen(value: Any) -> Any:
    def from_bfloat16(value: Any) -> Any:
        return np.int32(np.int32(value) << 16).view(np.float32)

    def as_it_is(value: Any) -> Any:
        return value

    return from_bfloat16 if value == types.int16 else as_it_is


def _narrowed(value: Any, like: Any) -> Any:
    """Convert a float32 to the stored type of the past; bfloat16 rounds to the nearest, ties to even."""
    raise NotImplementedError


@overload(_narrowed, inline="always")
def _narrow(value: Any, like: Any) -> Any:
    def to_bfloat16(value: Any, like: Any) -> Any:
        bits = np.int64(np.float32(value).view(np.int32))
        return np.int16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)

    def as_it_is(value: Any, like: Any) -> Any:
        return value

    return to_bfloat16 if like == types.int16 else as_it_is


@compiled()
def _attend(query: Any, keys: Any, values: Any, upto: int, out: Any) -> None:
    """Attend with a query to the first `upto` keys and values [T, D / H]; write to `out` [D / H]."""
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
def attend_to_past(qkv: Any, attended: Any, layer: int, position: int, out: Any) -> None:
    """Write this position's key and value, then attend with qkv [R, 3 D]; write to `out` [R, D]."""
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
def attend_to_text(query: Any, attended: Any, layer: int, out: Any) -> None:
    """Attend with query [N, D]; write to `out` [N, D]."""
    keys, values = attended.text_keys[layer], attended.text_values[layer]
    n_heads, n_tokens, width = keys.shape
    for item in numba.prange(len(query) * n_heads):
        r, at = item // n_heads, item % n_heads * width
        head = item % n_heads
        _attend(query[r, at : at + width], keys[head], values[head], n_tokens, out[r, at : at + width])
