"""One file with everything that training needs to resume: adapter, optimiser, curve.

The safetensors file is written under another name and renamed, so it holds the old state or the new one.  Only the
last is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lora_bench.artifacts import LossPoint
from lora_bench.store import write_bytes


@dataclass
class TrainState:
    """Progress of a training.

    Attributes:
        step: optimiser steps done.
        curve: points so far.
        window: training losses since the last point of the curve.
        wall_s: time spent until `step`, in all attempts together.
        scaler: state of the loss scaling; empty unless the decoder is float16.
        pass_size: slices per forward pass since memory ran out; None while whole batches fit.
    """

    step: int = 0
    curve: list[LossPoint] = field(default_factory=list)
    window: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    scaler: dict[str, Any] = field(default_factory=dict)
    pass_size: int | None = None


def save_checkpoint(
    path: Path,
    key: str,
    state: TrainState,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Replace the checkpoint.

    Raises:
        StoreError: the disk is full; the old checkpoint stays.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"adapter/{name}"] = parameter.detach().cpu().contiguous()
        for part, value in optimizer.state[parameter].items():
            tensors[f"optimizer/{part}/{name}"] = value.detach().cpu().contiguous()
    facts = {"key": key, **asdict(state)}
    write_bytes(path, save(tensors, metadata={"state": json.dumps(facts, allow_nan=False)}))


def load_checkpoint(
    path: Path,
    key: str,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    find_gap: Callable[[int, Sequence[LossPoint]], str | None] | None = None,
) -> TrainState | str:
    """Put a checkpoint's tensors into adapter and optimiser.

    Args:
        path: of the checkpoint.
        key: of the training.
        parameters: of the adapter.
        optimizer: of the training.
        find_gap: given step and curve, says what else of the training is missing; None if nothing is.

    Returns:
        Its state, or in words why there is none to go on from (nothing is changed then).
    """
    if not path.is_file():
        return "there is no checkpoint"
    try:
        with safe_open(path, framework="pt") as stored:
            facts = json.loads(stored.metadata()["state"])
            if facts.pop("key") != key:
                return "the checkpoint was made with other data or settings"
            curve = [LossPoint(**point) for point in facts["curve"]]
            gap = None if find_gap is None else find_gap(facts["step"], curve)
            if gap is not None:
                return gap
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        return f"the checkpoint is damaged ({error})"
    if {name for name in tensors if name.startswith("adapter/")} != {
        f"adapter/{name}" for name in parameters
    }:
        return "the checkpoint holds another adapter"
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"adapter/{name}"])
            parts = {
                found.split("/", 2)[1]: tensor
                for found, tensor in tensors.items()
                if found.startswith("optimizer/") and found.split("/", 2)[2] == name
            }
            # the step counter stays on the CPU, as torch keeps it but for its fused kernels
            is_fused = bool(optimizer.defaults.get("fused"))
            optimizer.state[parameter] = {
                part: tensor if part == "step" and not is_fused else tensor.to(parameter.device)
                for part, tensor in parts.items()
            }
    facts["curve"] = curve
    return TrainState(**facts)
