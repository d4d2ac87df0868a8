"""How a linear layer is multiplied while decoding, where few rows meet large matrices.

Such a product is bounded by reading the matrix, or by how well a library handles so few rows.  What is chosen:

- **packed**: float32 on a CPU with Intel's MKL.  The matrix is reordered once, for one number of rows.  It also
  treats every row alike, however many there are (from 2 on; a single row is doubled here), so that a clip does not
  depend on its neighbours.
- **streamed**: for small batches that the spec asks for, where reading the matrix is what takes time.  A whole step
  is compiled (`streamed_step.py`); matrices whose numbers are all halves (float16), as in the published models, are
  kept as such; arithmetic stays float32, so that nothing is lost.  Rows are alike here too.
- **int8**: asked for by the spec.  Weights are rounded to 8 bits per output channel, activations to 8 bits per row;
  sums are exact integers, so that here too a row is the same in any batch.  Keys and values of the past are kept in
  bfloat16; the heads, which decide over codes, are not rounded.  In small batches this is streamed, too.
- **plain**: everything else.  Here a product of few rows takes another way through the library and differs in
  the last bit; from 16 rows on (measured with MKL on AVX-512: 13) each row is the same.

`benchmarks/row_products.py` measures them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lora_bench.errors import ModelError, ResourceError
from lora_bench.models.linears import PackedLinear

Product = Callable[[Tensor], Tensor]
"""From x [rows, I] to [rows, O]."""

PLAIN_MIN_ROWS = 16
SMALL_BATCH = 4
"""Clips at once up to which streaming is the faster way, measured on two cores with AVX-512."""
SMALL_INT8_BATCH = 2
"""The same in 8 bits, where the library's products are good from 8 rows on."""
INT8_ENGINE = "x86"
INT8_LEVELS = 127
_LEAST_ROWS = 2


@dataclass(frozen=True)
class Kernel:
    """A way of multiplying.

    Attributes:
        name: see the module.
        min_rows: batches are padded to so many clips, for equal results in batches of any size.
        is_streamed: whole steps are compiled, if the decoder is one that they are compiled for.
    """

    name: Literal["plain", "packed", "int8"]
    min_rows: int
    is_streamed: bool = False

    def prepare(self, linear: PackedLinear, n_rows: int) -> Product:
        """A product for inputs of `n_rows` rows."""
        if self.name == "packed":
            return _MklProduct(linear.folded(), n_rows)
        return _Int8Product(linear.folded()) if self.name == "int8" else linear.folded()

    def prepare_exactly(self, linear: PackedLinear, n_rows: int) -> Product:
        """The same without rounding, for what decides over tokens directly."""
        if self.name == "int8":
            return choose_kernel(linear.weight.device, linear.weight.dtype).prepare(linear, n_rows)
        return self.prepare(linear, n_rows)

    def past_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Type of keys and values of the past, for a decoder with arithmetic `dtype`."""
        return torch.bfloat16 if self.name == "int8" else dtype

    @property
    def copied_frac(self) -> float:
        """Memory of prepared products over that of their matrices, where they are copies."""
        return {"plain": 0.0, "packed": 1.0, "int8": 0.25}[self.name]


def choose_kernel(
    device: torch.device, dtype: torch.dtype, quantization: str | None = None, batch_size: int | None = None
) -> Kernel:
    """The way for a decoder on `device` with arithmetic `dtype`.

    Args:
        device: where the weights are.
        dtype: of the weights.
        quantization: None or `int8`.
        batch_size: clips at once that the spec asks for; None leaves it open.

    Raises:
        ResourceError: int8 is asked for and this machine cannot do it.
        ModelError: int8 is asked for with another arithmetic than float32.
    """
    limit = SMALL_INT8_BATCH if quantization == "int8" else SMALL_BATCH
    is_small = batch_size is not None and batch_size <= limit
    if quantization == "int8":
        _check_int8(device, dtype, is_small)
        return Kernel("int8", 1, is_small)
    if device.type == "cpu" and dtype == torch.float32:
        if _has_packed_products():
            return Kernel("packed", 1, is_small)
        return Kernel("plain", PLAIN_MIN_ROWS, is_small)
    return Kernel("plain", PLAIN_MIN_ROWS)


def _has_packed_products() -> bool:
    """Whether torch was built with MKL's packed products (on x86 it is)."""
    return torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear")


@contextmanager
def _engine(name: str) -> Iterator[None]:
    """Torch's library for quantised products while something is packed."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def _check_int8(device: torch.device, dtype: torch.dtype, is_small: bool) -> None:
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
    if is_small:
        return
    # without these instructions sums of 8-bit products are cut off at 16 bits
    has_vnni = torch.cpu._is_vnni_supported()  # pyright: ignore[reportPrivateUsage]
    if not has_vnni or INT8_ENGINE not in torch.backends.quantized.supported_engines:
        raise ResourceError(
            "generation.quantization: int8 needs a CPU with AVX-512 VNNI for large batches, which this one lacks; "
            f"leave it out, or set generation.batch_size to {SMALL_INT8_BATCH} or less"
        )


class _MklProduct:
    """A matrix in MKL's own order, for one number of rows."""

    def __init__(self, linear: PackedLinear, n_rows: int) -> None:
        self._n_rows = n_rows
        self._n_packed = max(n_rows, _LEAST_ROWS)
        self._packed = torch.ops.mkl._mkl_reorder_linear_weight(linear.weight.contiguous(), self._n_packed)
        # only its shape is read, as long as the rows are those that were packed for
        self._like = linear.weight.new_empty(1).expand(linear.weight.shape)
        self._bias = linear.bias

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) != self._n_rows:
            raise ValueError(f"packed for {self._n_rows} rows, got {len(x)}")
        if self._n_rows < _LEAST_ROWS:
            x = x.expand(self._n_packed, -1)
        y = torch.ops.mkl._mkl_linear(x.contiguous(), self._packed, self._like, self._bias, self._n_packed)
        return y[: self._n_rows]


class _Int8Product:
    """A matrix in 8 bits per output channel; activations are rounded row by row."""

    def __init__(self, linear: PackedLinear) -> None:
        codes, scale = quantize_rows(linear.weight)
        with _engine(INT8_ENGINE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantised tensors are on their way out, their products are not
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
    """Rows of a matrix [O, I] in 8 bits, symmetric around zero.

    Returns:
        Codes int8 [O, I] from -127 to 127, and float32 [O] that they are to be multiplied by.
    """
    peak = weight.float().abs().amax(dim=1)
    scale = torch.where(peak > 0, peak, 1.0) / INT8_LEVELS
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale
