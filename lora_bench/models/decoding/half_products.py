"""Products with half-precision matrices on a GPU, the adapter's update included, in as few kernels as possible.

The adapter's `down` is appended to the matrix, so that one product gives the layer's output and the adapter's inner
values; a second one adds `up` times these to the output in place.  The update is never added to the matrix, where
rounding would lose it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_bench.models.linears import PackedLinear

ALIGNMENT = 8
"""Values to which rows are padded, 16 bytes, as tensor cores want them."""


class HalfProduct:
    """The product with a packed linear layer, in the matrix's type.

    Args:
        linear: in half precision, on a GPU.
        out_dtype: of the result, float32 or the matrix's type.
    """

    def __init__(self, linear: PackedLinear, out_dtype: torch.dtype | None = None) -> None:
        dtype = linear.weight.dtype
        self._n_outputs = len(linear.weight)
        self._out_dtype = out_dtype or dtype
        self._bias, self._scale = linear.bias, linear.scale
        self._up: Tensor | None = None
        self._weight = linear.weight
        if linear.down is not None and linear.up is not None:
            missing = -(self._n_outputs + len(linear.down)) % ALIGNMENT
            down = F.pad(linear.down.to(dtype), (0, 0, 0, missing))
            self._weight = torch.cat([linear.weight, down])
            self._up = F.pad(linear.up, (0, missing)).to(self._out_dtype).t().contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to x [rows, I]."""
        if self._up is None and self._out_dtype == x.dtype:
            return F.linear(x, self._weight, self._bias)
        if self._out_dtype == x.dtype:
            both = torch.mm(x, self._weight.t())
        else:
            both = torch.mm(x, self._weight.t(), out_dtype=self._out_dtype)
        y = both[:, : self._n_outputs]
        if self._up is not None:
            y.addmm_(both[:, self._n_outputs :], self._up)
        if self._scale is not None:
            y.mul_(self._scale)  # computed in float32
        return y if self._bias is None else y.add_(self._bias)
