"""The optimiser of an adapter: AdamW with torch's betas (0.9, 0.999), for LoRA+ in PEFT's groups of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from peft.optimizers import create_loraplus_optimizer

from lora_bench.models.base import MusicModel
from lora_bench.spec.schema import LoraSpec, TrainSpec

RATIO = "rate_ratio"
"""Of a group of parameters: its rate over the schedule's."""


def make_optimizer(
    model: MusicModel, parameters: Iterable[torch.nn.Parameter], lora: LoraSpec, train: TrainSpec
) -> torch.optim.AdamW:
    """Return the optimiser of the adapter in `model`."""
    is_fused = model.device.type == "cuda"
    if lora.kind != "lora+":
        return torch.optim.AdamW(
            parameters, lr=train.peak_lr, weight_decay=train.weight_decay, fused=is_fused
        )
    optimizer = create_loraplus_optimizer(
        model.peft_model,
        torch.optim.AdamW,
        lr=train.peak_lr,
        loraplus_lr_ratio=lora.lr_ratio,
        loraplus_weight_decay=train.weight_decay,
        fused=is_fused,
    )
    for group in optimizer.param_groups:
        group[RATIO] = group["lr"] / train.peak_lr
    return cast("torch.optim.AdamW", optimizer)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(RATIO, 1.0)
