"""What crosses from Python into compiled functions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LANES = 16
"""Numbers of inputs must be multiples of this."""
HALF_SHIFT = 10
"""Halves are stored times 2 to this, which leaves none of them denormal."""
WRITE, ADD, GELU, RELU = range(4)
"""What becomes of a product: it is written, added to what is there, or written through an activation."""


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
