"""Arguments of compiled functions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LANES = 16
"""The number of inputs must be a multiple of this."""
HALF_SHIFT = 10
"""float16 numbers are stored times 2 to this power, so that none is denormal."""
WRITE, ADD, GELU, RELU = range(4)
"""Final operation of a product: write it, add it to the output, or write it through an activation."""


class Matrix(NamedTuple):
    """One of the matrices of all layers; an array of length 0 along its last axis means that the part is missing.

    Attributes:
        weight: [L, O, I]; int16 is float16 times `2 ** HALF_SHIFT`, int8 is codes, float32 is plain.
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
    """Final operations of products, passed as arguments because numba compiles again for every constant."""

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
    """The norm [1, 1, D] and the heads of all codebooks [1, O, D] after the layers."""

    norm: Norms
    matrix: Matrix
    ways: Ways


class Attended(NamedTuple):
    """Keys and values for attention.

    Attributes:
        keys, values: of the past, float32 or int16 (the bits of bfloat16) [L, R, H, T, D / H].
        text_keys, text_values: of the prompt, float32 [L, H, S, D / H].
    """

    keys: NDArray[Any]
    values: NDArray[Any]
    text_keys: Floats
    text_values: Floats
