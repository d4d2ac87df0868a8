"""The arithmetic of a forward pass in training.

On a GPU a bfloat16 decoder trains under autocast: adapters compute in bfloat16, and their masters stay float32.  PEFT
brings the inputs of an adapter to float32 first, which moves more memory than the decoder itself; where autocast makes
that useless, it is switched off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from lora_bench.models import device as devices


@contextmanager
def use_training_arithmetic(
    device: torch.device, dtype: torch.dtype, precision: str | None, layers: Iterable[nn.Module]
) -> Iterator[None]:
    """Compute as a training does.

    Args:
        device: of the model.
        dtype: of the decoder's weights.
        precision: of the spec: `bfloat16` computes so with float32 weights.
        layers: with an adapter.
    """
    is_on_gpu = devices.is_gpu(device)
    is_mixed = precision == "bfloat16" and dtype == torch.float32
    is_autocast = is_mixed or (is_on_gpu and dtype == torch.bfloat16)
    # DoRA compares norms of whole matrices, for which bfloat16 is too coarse
    eased = [
        layer
        for layer in layers
        if is_autocast and is_on_gpu and isinstance(layer, LoraLayer) and not any(layer.use_dora.values())
    ]
    for layer in eased:
        layer.cast_input_dtype_enabled = False
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=is_autocast):
            yield
    finally:
        for layer in eased:
            layer.cast_input_dtype_enabled = True
