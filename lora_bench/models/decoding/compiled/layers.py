"""All layers of a step, and the heads."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_bench.models.decoding.compiled.attention import attend_to_past, attend_to_text
from lora_bench.models.decoding.compiled.compiler import compiled
from lora_bench.models.decoding.compiled.products import multiply


@compiled()
def _normalize(x: Any, weight: Any, bias: Any, eps: float, out: Any) -> None:
    """Apply layer norm to rows [R, D]."""
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
def run_layers(x: Any, n_clips: int, layers: Any, attended: Any, position: int) -> None:
    """Run all layers, in place.

    Args:
        x: float32 [R, D]; the first N rows see the text, the others (null halves of guidance) do not:
            attention without biases to states of zero gives zero.
        n_clips: N.
        layers: as `Layers`.
        attended: as `Attended`; this position's keys and values are added.
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
        attend_to_past(qkv, attended, layer, position, mixed)
        multiply(mixed, layers.self_out, layer, x, add)
        _normalize(x[:n_clips], weight[layer, 1], bias[layer, 1], eps, rows)
        multiply(rows[:n_clips], layers.cross_q, layer, mixed, write)
        attend_to_text(mixed[:n_clips], attended, layer, rows)
        multiply(rows[:n_clips], layers.cross_out, layer, x, add)
        _normalize(x, weight[layer, 2], bias[layer, 2], eps, rows)
        multiply(rows, layers.ffn_in, layer, inner, activation)
        multiply(inner, layers.ffn_out, layer, x, add)


@compiled()
def run_heads(x: Any, n_clips: int, guidance: float, heads: Any, logits: Any) -> None:
    """Compute logits [N, O] after the layers; guidance is applied before the heads, which have no bias.

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
