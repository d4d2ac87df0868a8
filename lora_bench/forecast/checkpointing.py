"""What `train.gradient_checkpointing: auto` comes to: on only where training without it does not fit.

It goes by the estimate from shapes alone, not by earlier trials, so that a plan and a training on the same device
agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_bench.forecast.footprint import choose_arithmetic, estimate_training
from lora_bench.forecast.shapes import ModelShape, find_shape
from lora_bench.forecast.stage_memory import CONTEXT_GIB
from lora_bench.machine import gpus
from lora_bench.planning.trial_plan import TrialPlan

if TYPE_CHECKING:
    from lora_bench.models import MusicModel

ALLOCATOR_MARGIN = 1.2
"""Of the tensors of a training on a GPU, assumed: what allocators hold unused, and workspaces of CUDA's libraries."""


@dataclass(frozen=True)
class Checkpointing:
    """A value of `auto`, and why.

    Attributes:
        is_on: activations are recomputed.
        needed_gib: memory of training without it, with what is not a tensor; None if the model's sizes are unknown.
        memory_gib: memory of the device that a trial may take; None if unknown.
    """

    is_on: bool
    needed_gib: float | None
    memory_gib: float | None


def resolve_checkpointing(
    trial: TrialPlan,
    shape: ModelShape | None,
    memory_gib: float | None,
    *,
    has_gpu: bool,
    has_bfloat16: bool | None = None,
) -> Checkpointing | None:
    """Return the value of `auto` for a trial; None if its value is not `auto`.

    It is off where the model's sizes or the device's memory are unknown; should memory run out, forward passes are
    halved.

    Args:
        trial: a fine-tuned one; others have no value.
        shape: of its model.
        memory_gib: memory that its training may take.
        has_gpu: whether it trains on a GPU.
        has_bfloat16: see `choose_arithmetic`.
    """
    if trial.train is None or trial.train.gradient_checkpointing != "auto":
        return None
    if shape is None:
        return Checkpointing(is_on=False, needed_gib=None, memory_gib=memory_gib)
    plain = set_checkpointing(trial, is_on=False)
    needed_gib = estimate_peak_gib(plain, shape, has_gpu=has_gpu, has_bfloat16=has_bfloat16)
    if has_gpu:
        needed_gib = ALLOCATOR_MARGIN * needed_gib + CONTEXT_GIB
    return Checkpointing(memory_gib is not None and needed_gib > memory_gib, needed_gib, memory_gib)


def resolve_for_model(trial: TrialPlan, model: MusicModel) -> Checkpointing | None:
    """Return the value of `auto` for a trial whose model is loaded; None if its value is not `auto`.

    On a CPU, trials that start at the same time do not know of one another's memory.
    """
    if trial.train is None or trial.train.gradient_checkpointing != "auto":
        return None
    from lora_bench.models.memory import find_budget_gib

    return resolve_checkpointing(
        trial,
        find_shape(trial.model),
        find_budget_gib(model.device, gpus.count_sharing(gpus.limit() or 1.0)),
        has_gpu=model.device.type == "cuda",
        has_bfloat16=str(model.dtype) == "torch.bfloat16",
    )


def set_checkpointing(trial: TrialPlan, *, is_on: bool) -> TrialPlan:
    """Return a trial with a value in place of `auto`; its id stays, for the value depends on the device."""
    if trial.train is None:
        return trial
    return trial.model_copy(
        update={"train": trial.train.model_copy(update={"gradient_checkpointing": is_on})}
    )


def estimate_peak_gib(
    trial: TrialPlan, shape: ModelShape, *, has_gpu: bool, has_bfloat16: bool | None = None
) -> float:
    """Estimate the peak memory of a fine-tuned trial's training, as `models.memory.peak_gib` measures it.

    Raises:
        ValueError: the trial trains nothing, or its `train.gradient_checkpointing` is `auto`.
    """
    if trial.lora is None or trial.train is None:
        raise ValueError(f"{trial.name} trains nothing")
    arithmetic = choose_arithmetic(trial.model, trial.train, has_gpu=has_gpu, has_bfloat16=has_bfloat16)
    footprint = estimate_training(
        shape,
        trial.lora,
        trial.train,
        trial.dataset.clip_s,
        arithmetic,
        keeps_encoders=not has_gpu or trial.model.backend == "audiocraft",
    )
    return footprint.predict_peak_gib(arithmetic.device)
