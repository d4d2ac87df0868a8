"""The strength of an adapter: base weights `W0` and adapted ones `W` give `W0 + s (W - W0)`, for every kind.

0 is the base model and 1 the adapter as it is, both bit for bit.  For plain LoRA, that is PEFT's `scaling` times `s`,
and the update stays apart from the weight.  DoRA's rescaled rows and the other kinds' merged weights are interpolated,
beyond 1 extrapolated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lora_bench.models.linears import PackedLinear

TINY = 1e-12


def blend(base: Tensor, adapted: Tensor, strength: float) -> Tensor:
    """Return `base + strength (adapted - base)`; at 0 and 1 one of the two itself."""
    if strength == 1.0:
        return adapted
    return base if strength == 0.0 else torch.lerp(base, adapted, strength)


def scale_low_rank(linear: PackedLinear, strength: float) -> PackedLinear:
    """Return a layer with LoRA's or DoRA's update at some strength.

    With DoRA's row scales `m`, the blend of `W` and `m (W + BA)` is `c (W + (s m / c) BA)` with `c = 1 + s (m - 1)`.
    """
    if linear.down is None or linear.up is None or strength == 1.0:
        return linear
    if strength == 0.0:
        return PackedLinear(linear.weight, linear.bias)
    if linear.scale is None:
        return PackedLinear(linear.weight, linear.bias, linear.down, strength * linear.up)
    rows = 1.0 + strength * (linear.scale - 1.0)
    rows = torch.where(rows.abs() < TINY, TINY, rows)  # a row that the blend cancels
    up = (strength * linear.scale / rows)[:, None] * linear.up
    return PackedLinear(linear.weight, linear.bias, linear.down, up, rows)
