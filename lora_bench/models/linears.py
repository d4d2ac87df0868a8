"""Linear layers as plain tensors: several in one matrix, with a LoRA update of its own.

In float32 the update may be folded into the weight.  In half precision it stays separate: folding would round
`W + BA` to the grid of `W`, and an update smaller than half a step of that grid would vanish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class PackedLinear:
    """Linear layers of one input, their outputs side by side: `y = scale * (W x + up down x) + bias`.

    Attributes:
        weight: [O, I].
        bias: [O] or None.
        down: LoRA's A, float32 [R, I], or None without an adapter.
        up: LoRA's B times its scaling, float32 [O, R].
        scale: DoRA's magnitude over norm, float32 [O], or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    down: Tensor | None = None
    up: Tensor | None = None
    scale: Tensor | None = None

    def folded(self) -> PackedLinear:
        """Return it with the adapter folded into a copy of the matrix; itself in half precision."""
        if self.down is None or self.up is None or self.weight.dtype != torch.float32:
            return self
        weight = self.weight + self.up @ self.down
        if self.scale is not None:
            weight = self.scale[:, None] * weight
        return PackedLinear(weight, self.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to x [..., I]."""
        if self.down is None or self.up is None:
            return F.linear(x, self.weight, self.bias)
        y = F.linear(x, self.weight) + F.linear(F.linear(x.float(), self.down), self.up).to(x.dtype)
        if self.scale is not None:
            y = (y.float() * self.scale).to(x.dtype)
        return y if self.bias is None else y + self.bias


def pack_linears(parts: Sequence[PackedLinear]) -> PackedLinear:
    """Pack layers with the same input: weights stacked, up-projections on a block diagonal."""
    weight = parts[0].weight if len(parts) == 1 else torch.cat([part.weight for part in parts])
    biases = [part.bias for part in parts if part.bias is not None]
    bias = None
    if len(biases) == len(parts):
        bias = biases[0] if len(biases) == 1 else torch.cat(biases)
    downs = [part.down for part in parts if part.down is not None]
    if not downs:
        return PackedLinear(weight, bias)
    ups = [
        part.up if part.up is not None else part.weight.new_zeros(part.weight.shape[0], 0).float()
        for part in parts
    ]
    scale = None
    if any(part.scale is not None for part in parts):
        ones = [torch.ones(part.weight.shape[0], device=weight.device) for part in parts]
        scale = torch.cat([one if p.scale is None else p.scale for p, one in zip(parts, ones, strict=True)])
    return PackedLinear(weight, bias, torch.cat(downs), torch.block_diag(*ups), scale)
