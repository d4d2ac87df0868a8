"""A CUDA device that is not there: fake tensors with shapes, types and devices, but no numbers.

Operators check shapes and devices as on a GPU.  What would ask the driver is replaced: the choice of an attention
kernel (by the rules of torch), cuDNN's LSTM, dropout, and the questions about free memory.  Autograd's engine asks for
a CUDA context, so a backward pass runs on fake CPU tensors (`fake_gpu(stand_in=True)`), with the product told that
they are on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from benchmarks.random_model import SMALL, MusicGenShape, build_random_musicgen, build_tokenizer
from lora_bench.models import device as devices
from lora_bench.models.model_info import describe_network
from lora_bench.models.transformers_musicgen import TransformersMusicGen

GIB = 1024**3
_aten = torch.ops.aten
_attend = F.scaled_dot_product_attention


def resize(width: int, n_layers: int, n_heads: int) -> MusicGenShape:
    """musicgen-small's shape with another decoder."""
    return replace(SMALL, width=width, n_layers=n_layers, n_heads=n_heads, ffn_width=4 * width)


SHAPES = {"small": SMALL, "medium": resize(1536, 48, 24), "large": resize(2048, 48, 32)}
"""The published sizes."""


def cut(shape: str, n_layers: int) -> MusicGenShape:
    """A published decoder's first layers, behind one layer of the text encoder and a codec of one stage.

    Fake operators cost as much for a small tensor as for a large one, and the whole codec has most of the modules.
    """
    return replace(SHAPES[shape], n_layers=n_layers, text_layers=1, hop_ratios=(math.prod(SMALL.hop_ratios),))


@contextmanager
def fake_gpu(total_bytes: float = 80 * GIB, *, stand_in: bool = False) -> Iterator[torch.device]:
    """Make all tensors fake, with a GPU of `total_bytes`; gives its device.

    Args:
        total_bytes: its memory.
        stand_in: give the CPU as the GPU, for backward passes.
    """
    device = torch.device("cpu" if stand_in else "cuda")
    replaced: list[tuple[Any, dict[str, Any]]] = [
        (F, {"scaled_dot_product_attention": _make_attention(device)}),
        (nn.Module, {"_apply": _apply}),
        (nn.RNNBase, {"_apply": _apply, "flatten_parameters": lambda self: None}),
        (nn.LSTM, {"forward": _run_lstm}),
        (
            torch.cuda,
            {
                "mem_get_info": lambda device=None: (int(total_bytes), int(total_bytes)),
                "memory_reserved": lambda device=None: 0,
                "memory_allocated": lambda device=None: 0,
                "empty_cache": lambda: None,
            },
        ),
        (devices, {"has_fast_bfloat16": lambda device: True}),
    ]
    if stand_in:
        replaced += [(devices, {"is_gpu": lambda device: True}), (F, {"dropout": _drop})]
    with ExitStack() as stack:
        for owner, values in replaced:
            stack.enter_context(patch.multiple(owner, **values))
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        mode.allow_scalar_outputs = False
        stack.enter_context(mode)
        yield device


def build_model(shape: MusicGenShape, device: torch.device, dtype: torch.dtype) -> TransformersMusicGen:
    """Build a model of fake tensors; call it within `fake_gpu`."""
    network = build_random_musicgen(shape)
    info = describe_network(network.config, name="fake", weights_hash="0" * 64, trained=False)
    return TransformersMusicGen(network, build_tokenizer(), info, device=device, dtype=dtype)


def _make_attention(device: torch.device) -> Callable[..., Tensor]:
    """Attention with the kernel that torch would choose: flash for halves without a mask, else memory-efficient."""

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if query.device.type != device.type:
            return _attend(query, key, value, attn_mask=attn_mask, is_causal=is_causal, scale=scale)
        is_half = query.dtype in (torch.float16, torch.bfloat16)
        if attn_mask is None and is_half:
            return _aten._scaled_dot_product_flash_attention(
                query, key, value, dropout_p, is_causal, False, scale=scale
            )[0]
        bias = attn_mask
        if bias is not None and bias.dtype == torch.bool:  # torch converts it in every call
            bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(bias.logical_not(), -math.inf)
        if bias is not None:
            bias = bias.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
        keeps = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
        return _aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, keeps, dropout_p, is_causal, scale=scale
        )[0]

    return attend


def _drop(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout as on a GPU, which keeps a byte per value."""
    return torch.native_dropout(x, p, True)[0] if training and p > 0 else x


def _run_lstm(self: nn.LSTM, x: Tensor, hx: Any = None) -> tuple[Tensor, None]:
    """The products of the gates, and the output's shape."""
    for layer in range(self.num_layers):
        weight: Tensor = getattr(self, f"weight_ih_l{layer}")
        torch.mm(x.reshape(-1, x.shape[-1]), weight.t())
        x = torch.empty(*x.shape[:2], self.hidden_size, dtype=x.dtype, device=x.device)
    return x, None


def _apply(self: nn.Module, move: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` without swapping tensors, which fake ones refuse."""
    for child in self.children():
        child._apply(move)
    for name, parameter in list(self._parameters.items()):
        if parameter is not None:
            with torch.no_grad():
                moved = move(parameter.data)
            self._parameters[name] = nn.Parameter(moved, requires_grad=parameter.requires_grad)
    for name, buffer in list(self._buffers.items()):
        # EnCodec's sizes of kernels stay numbers here, so that shapes are known; on a GPU reading one is a sync
        if buffer is not None and not (buffer.dim() == 0 and getattr(buffer, "constant", None) is not None):
            self._buffers[name] = move(buffer)
    return self
