"""One optimiser step and one measurement on the held-out slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from lora_bench.errors import TrainingError
from lora_bench.models.base import MusicModel
from lora_bench.models.eva import N_SLICES, initialize_eva
from lora_bench.models.memory import is_out_of_memory, release_cached
from lora_bench.models.token_set import TokenSet
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.progress import Progress
from lora_bench.spec.schema import TrainSpec
from lora_bench.stages.train.checkpoint import TrainState
from lora_bench.stages.train.kept import KeptAdapters
from lora_bench.stages.train.optimizer import set_rate
from lora_bench.stages.train.schedule import draw_captions, drop_captions, noise_seed, pick_slices

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Result = TypeVar("Result")


@dataclass
class TrainingRun:
    """Data, model, optimiser and state of one training."""

    tokens: TokenSet
    model: MusicModel
    train: TrainSpec
    seed: int
    files: TrialFolder
    key: str
    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    train_rows: NDArray[np.int64]
    eval_rows: NDArray[np.int64]
    state: TrainState
    kept: KeptAdapters

    @property
    def pass_size(self) -> int:
        """Slices per forward pass: a batch, or less since memory ran out."""
        return self.state.pass_size or self.train.batch_size


def enter_training(model: MusicModel, train: TrainSpec) -> None:
    """Set a model to training mode, with the settings of the training."""
    model.set_training(True, gradient_checkpointing=train.is_checkpointed, compiled=train.compile)


def start_from_data(run: TrainingRun, progress: Progress) -> None:
    """Give an adapter of kind eva its initial values, by the slices that a training with this seed takes first.

    Each is a pass of its own, so that nothing is padded; no caption is dropped.

    Raises:
        TrainingError: there are no such values.
    """
    n = len(run.train_rows)
    rows = run.train_rows[pick_slices(run.seed, 0, n, n)][:N_SLICES]
    draws = draw_captions(run.seed, 0, n)

    def run_slice(place: int) -> None:
        slice_ = run.tokens.take(rows[[place]], draws[[place]] if run.tokens.choices else None)
        run.model.training_loss(*slice_)

    progress.log(f"lora.kind eva: initial values from the inputs of {len(rows)} training slices")
    with run.model.use_training_arithmetic(None):
        initialize_eva(run.model.peft_model, [partial(run_slice, place) for place in range(len(rows))])


def take_step(run: TrainingRun, rate: float, log: Callable[[str], None]) -> float:
    """Take one optimiser step; if memory runs out, the forward passes are halved and tried again.

    However the passes divide the slices, the step is the same but for rounding and the adapter's dropout.

    Returns:
        The loss before it, in nats per code, mean over the valid codes of all its slices.

    Raises:
        TrainingError: loss or gradient is not finite; the adapter is left as it was.
        RuntimeError, MemoryError: not even one slice fits.
    """
    losses, shares = _halve_until_it_fits(run, log, lambda: _accumulate_gradient(run))
    # not tried again: it may have changed some of the weights
    return _apply_gradient(run, rate, losses, shares)


def _halve_until_it_fits(run: TrainingRun, log: Callable[[str], None], work: Callable[[], Result]) -> Result:
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if run.pass_size == 1 or not is_out_of_memory(error):
                raise
        # here, because the error held what the pass had allocated
        run.optimizer.zero_grad(set_to_none=True)
        release_cached(run.model.device)
        log(f"out of memory with {run.pass_size} slices per pass; going on with {run.pass_size // 2}")
        run.state.pass_size = run.pass_size // 2


def _divide_into_passes(train: TrainSpec, pass_size: int) -> Iterator[slice]:
    """Return the places of each forward pass in a step's slices."""
    for first in range(0, train.batch_size * train.grad_accumulation, train.batch_size):
        for begin in range(first, first + train.batch_size, pass_size):
            yield slice(begin, min(begin + pass_size, first + train.batch_size))


def _accumulate_gradient(run: TrainingRun) -> tuple[list[Tensor], list[float]]:
    """Accumulate the gradient of a step's loss; return the passes' losses [] on the device, and their shares of it."""
    train, step = run.train, run.state.step
    n_slices = train.batch_size * train.grad_accumulation
    rows = run.train_rows[pick_slices(run.seed, step, len(run.train_rows), n_slices)]
    dropped = drop_captions(run.seed, step, n_slices, train.caption_dropout)
    draws = draw_captions(run.seed, step, n_slices)
    n_valid = int(run.tokens.valid_frames[rows].sum())
    run.optimizer.zero_grad(set_to_none=True)
    losses: list[Tensor] = []
    shares: list[float] = []
    for part, cut in enumerate(_divide_into_passes(train, run.pass_size)):
        codes, valid_frames, texts = (
            run.tokens.take(rows[cut], draws[cut]) if run.tokens.choices else run.tokens.take(rows[cut])
        )
        conditions = [
            run.model.drop_text(text) if drop else text
            for text, drop in zip(texts, dropped[cut], strict=True)
        ]
        torch.manual_seed(noise_seed(run.seed, step, part))
        with run.model.use_training_arithmetic(train.precision):
            loss = run.model.training_loss(codes, valid_frames, conditions)
        # every valid code of the step counts the same, however the passes divide them
        share = int(valid_frames.sum()) / n_valid
        run.scaler.scale(loss * share).backward()
        losses.append(loss.detach())
        shares.append(share)
    return losses, shares


def _apply_gradient(
    run: TrainingRun, rate: float, losses: Sequence[Tensor], shares: Sequence[float]
) -> float:
    """Check losses and gradient, change the weights, and return the mean loss."""
    set_rate(run.optimizer, rate)
    run.scaler.unscale_(run.optimizer)
    limit = math.inf if run.train.max_grad_norm is None else run.train.max_grad_norm
    norm = torch.nn.utils.clip_grad_norm_(run.parameters.values(), limit)
    # the only wait for a GPU in a step: all numbers at once
    *values, length = torch.stack([*(loss.float() for loss in losses), norm.float()]).tolist()
    for value in values:
        _check_finite("the loss", value, run)
    # with loss scaling an infinite gradient skips the step and lowers the scale
    if not run.scaler.is_enabled():
        _check_finite("the gradient's norm", length, run)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return sum((value * share for value, share in zip(values, shares, strict=True)), 0.0)


def _check_finite(what: str, value: float, run: TrainingRun) -> None:
    if math.isfinite(value):
        return
    train = run.train
    earlier = [point.train_loss for point in run.state.curve if point.train_loss is not None]
    before = f" (last {earlier[-1]:.3f})" if earlier else ""
    raise TrainingError(
        f"step {run.state.step + 1} of {train.steps}: {what} is {value}{before}, expected a finite number; "
        f"lower train.lr (now {train.peak_lr:g}), raise train.warmup_frac (now {train.warmup_frac:g}), or use "
        f"model.dtype float32 (now {str(run.model.dtype).removeprefix('torch.')})"
    )


def measure_eval_loss(run: TrainingRun, log: Callable[[str], None]) -> float | None:
    """Return the loss on the held-out slices with their captions, without dropout; None if there are none."""
    if len(run.eval_rows) == 0:
        return None
    loss = _halve_until_it_fits(run, log, lambda: _sum_eval_loss(run))
    _check_finite("the held-out loss", loss, run)
    return loss


def _sum_eval_loss(run: TrainingRun) -> float:
    run.model.set_training(False)
    total, n_valid = 0.0, 0
    with torch.no_grad(), run.model.use_training_arithmetic(None):
        for first in range(0, len(run.eval_rows), run.pass_size):
            codes, valid_frames, texts = run.tokens.take(run.eval_rows[first : first + run.pass_size])
            n = int(valid_frames.sum())
            total += run.model.training_loss(codes, valid_frames, texts).item() * n
            n_valid += n
    enter_training(run.model, run.train)
    return total / n_valid
