"""Methods of multiplying linear layers in decoding, and batch sizes that give equal results.

A clip must not depend on the other clips of its batch.  The last bits of a row in a library's product depend on the
number of rows, the row's place, the processor and the library's settings, so the methods do not rely on them:

- **streamed**: float32 on a CPU, if the compiled steps support the decoder (`small_batch_step.py`).  Every output is
  one dot product in one order, computed by one thread.  The code for a row never reads another row, so a row is the
  same in any batch.
- **plain**: all other cases.  On a CPU a step always takes a block of `BLOCK` clips, and a clip's index gives its place
  in the block.  All calls have the same shapes, and a clip is always the same row.
- **halves**: bfloat16 and float16 on a GPU (`half_products.py`); float32 there is plain.
- **int8**: if the spec says so.  Weights are rounded to 8 bits per output channel, activations to 8 bits per row; sums
  are exact integers.  Keys and values of the past are bfloat16; the heads, which decide over codes, are not rounded.
  Larger batches use the library's products, in blocks, if a measurement shows that they are exact (`has_exact_int8`);
  otherwise steps are streamed.

`benchmarks/row_products.py` measures their speed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from lora_bench.errors import ModelError, ResourceError
from lora_bench.models import device as devices
from lora_bench.models.decoding.half_products import HalfProduct
from lora_bench.models.linears import PackedLinear

Product = Callable[[Tensor], Tensor]
"""From x [rows, I] to [rows, O]."""

BLOCK = 16
"""Clips of a block."""
SMALL_INT8_BATCH = 2
"""Largest batch that is streamed in 8 bits although the library is exact, because it is faster."""
INT8_ENGINE = "x86"
INT8_LEVELS = 127
_PROBE_ROWS = (1, 2, 7, 2 * BLOCK)
_PROBE_WIDTH = 256


@dataclass(frozen=True)
class Kernel:
    """A method of multiplying.

    Attributes:
        name: see the module's docstring.
        block: clips in every step, each at the place that its index gives; None leaves the number open.
        is_streamed: use compiled steps if they support the decoder.
    """

    name: Literal["plain", "halves", "int8"]
    block: int | None = None
    is_streamed: bool = False

    def prepare(self, linear: PackedLinear) -> Product:
        """Prepare the product with a layer's matrix."""
        if self.name == "halves":
            return HalfProduct(linear)
        return _Int8Product(linear.folded()) if self.name == "int8" else linear.folded()

    def prepare_heads(self, linear: PackedLinear) -> Product:
        """Prepare the product that gives logits: never rounded, because it decides over codes."""
        # rounded to halves, logits near the k-th largest would tie
        return HalfProduct(linear, torch.float32) if self.name == "halves" else linear.folded()

    def past_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the type of the past's keys and values, for a decoder with arithmetic `dtype`."""
        return torch.bfloat16 if self.name == "int8" else dtype

    @property
    def copied_frac(self) -> float:
        """Upper bound of the memory of prepared products, relative to their matrices."""
        return 0.25 if self.name == "int8" else float(self.is_streamed or self.name == "halves")


def choose_kernel(
    device: torch.device, dtype: torch.dtype, quantization: str | None = None, batch_size: int | None = None
) -> Kernel:
    """Choose the method for a decoder on `device` with arithmetic `dtype`.

    Args:
        device: of the weights.
        dtype: of the weights.
        quantization: None or `int8`.
        batch_size: batch size of the spec; None leaves it open.

    Raises:
        ResourceError: int8 on a device other than a CPU.
        ModelError: int8 with an arithmetic other than float32.
    """
    if quantization == "int8":
        _check_int8(device, dtype)
        is_small = batch_size is not None and batch_size <= SMALL_INT8_BATCH
        return Kernel("int8", BLOCK, is_small or not has_exact_int8())
    if devices.is_gpu(device):
        return Kernel("plain" if dtype == torch.float32 else "halves")
    return Kernel("plain", BLOCK, dtype == torch.float32)


@contextmanager
def _engine(name: str) -> Iterator[None]:
    """Use one of torch's libraries for quantised products."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def _check_int8(device: torch.device, dtype: torch.dtype) -> None:
    if device.type != "cpu":
        raise ResourceError(
            f"generation.quantization: int8 is for CPUs, and this trial runs on {device}; leave it out, and choose "
            "model.dtype bfloat16 for speed on a GPU"
        )
    if dtype != torch.float32:
        raise ModelError(
            f"generation.quantization: int8 starts from float32 weights, but model.dtype is "
            f"{str(dtype).removeprefix('torch.')}; set model.dtype: float32"
        )


@cache
def has_exact_int8() -> bool:
    """Measure whether the library's sums of 8-bit products are exact here.

    Without a processor instruction for them, pairs of products saturate at 16 bits, which the largest codes reveal.
    """
    if INT8_ENGINE not in torch.backends.quantized.supported_engines:
        return False
    weight = torch.ones(16, _PROBE_WIDTH)  # of the largest code
    weight[1::2] = -1.0
    product = _Int8Product(PackedLinear(weight))
    for n_rows in _PROBE_ROWS:
        for value in (1.0, -1.0):
            x = torch.full((n_rows, _PROBE_WIDTH), value)
            if not torch.allclose(product(x).double(), x.double() @ weight.double().T, rtol=1e-6, atol=0.0):
                return False
    return True


class _Int8Product:
    """A matrix in 8 bits per output channel; activations are rounded row by row."""

    def __init__(self, linear: PackedLinear) -> None:
        codes, scale = quantize_rows(linear.weight)
        # quantised tensors are deprecated, their products are not
        with _engine(INT8_ENGINE), warnings.catch_warnings(action="ignore"):
            quantized: Any = torch._make_per_channel_quantized_tensor(  # pyright: ignore[reportPrivateUsage]
                codes, scale.double(), torch.zeros(len(scale), dtype=torch.long), 0
            )
            self._packed = torch.ops.quantized.linear_prepack(quantized, None)
        self._bias = linear.bias  # in float32, and not scaled with the row

    def __call__(self, x: Tensor) -> Tensor:
        peak = x.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / peak, 1.0 / INT8_LEVELS, INT8_LEVELS + 1, self._packed
        )
        y = y * peak
        return y if self._bias is None else y + self._bias


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round the rows of a matrix [O, I] to 8 bits, symmetric around zero.

    Returns:
        Codes int8 [O, I] from -127 to 127, and their factors float32 [O].
    """
    peak = weight.float().abs().amax(dim=1)
    scale = torch.where(peak > 0, peak, 1.0) / INT8_LEVELS
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale
