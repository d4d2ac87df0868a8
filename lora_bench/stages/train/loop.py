"""The training loop: AdamW on the adapter, held-out loss at intervals, checkpoints.

Slices are taken whole, epoch after epoch in a random order; nothing is cropped or augmented.  The optimiser
is AdamW with torch's betas (0.9, 0.999).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lora_bench.artifacts import LossPoint, TrainResult
from lora_bench.errors import ModelError, OutOfMemoryError, ResourceError, TrainingError
from lora_bench.models.base import MusicModel
from lora_bench.models.device import has_fast_bfloat16
from lora_bench.models.memory import (
    GIB,
    available_bytes,
    is_out_of_memory,
    peak_gib,
    release_cached,
    reset_peak,
    total_gib,
)
from lora_bench.models.token_set import TokenSet
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.progress import Progress
from lora_bench.spec.kinds import FROM_DATA
from lora_bench.spec.schema import LoraSpec, TrainSpec
from lora_bench.stages.train.checkpoint import TrainState, load_checkpoint, save_checkpoint
from lora_bench.stages.train.identity import adapter_key, find_finished, write_result
from lora_bench.stages.train.kept import BEST, Keep, KeptAdapters
from lora_bench.stages.train.optimizer import make_optimizer
from lora_bench.stages.train.schedule import learning_rate
from lora_bench.stages.train.steps import (
    TrainingRun,
    enter_training,
    measure_eval_loss,
    start_from_data,
    take_step,
)
from lora_bench.store import to_jsonable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_bench.models.records import LoraInjection

MAX_EVAL_SLICES = 64
N_CURVE_POINTS = 200  # at least, where there are as many steps
OnEval = Callable[[int, float], None]


def train_adapter(  # noqa: PLR0913 (what it trains on, how, and who watches)
    tokens: TokenSet,
    model: MusicModel,
    lora: LoraSpec,
    train: TrainSpec,
    seed: int,
    folder: Path,
    progress: Progress,
    on_eval: OnEval | None = None,
    *,
    keep: Collection[Keep] = (),
    is_checkpointed: bool = False,
) -> TrainResult:
    """Train a fresh adapter and write `folder/adapter`; the model keeps it, in eval mode.

    Resumes from `folder/checkpoint` if that was made with the same data and settings; on a CPU the result
    is then bit for bit that of a run that was never interrupted.

    Args:
        tokens: codes and text states; the `train` slices are learnt, the `selection` slices (without any, the `eval`
            slices) only measured.
        model: an adapter in it is removed first.
        lora: the adapter.
        train: how it is trained.
        seed: of the initial adapter, the order, caption dropout and adapter dropout.
        folder: gets `adapter/`, and while training `checkpoint/`.
        progress: told about every step.
        on_eval: told the step and the held-out loss at every measurement but the first and the last; what it
            raises ends the training.
        keep: steps and `best`: `folder/kept` gets their adapters, and the training is the same (see `kept.py`).
        is_checkpointed: what `train.gradient_checkpointing: auto` comes to on this device.

    Raises:
        TrainingError: nothing to train on, nothing to find the best step by, no initial values for kind eva, or the
            loss is not finite; the last checkpoint stays.
        NoModulesMatchedError: a target matched nothing.
        ResourceError: a precision is asked for that the hardware does not have, or layers cannot be compiled.
        ModelError: a precision is asked for that the model does not have.
        OutOfMemoryError: not even one slice fits; larger batches are halved first.
    """
    train_rows = tokens.find_split("train")
    if len(train_rows) == 0:
        raise TrainingError(
            "the dataset has no training slice, expected at least one; give longer or more tracks"
        )
    key = adapter_key(tokens, model, lora, train, seed)
    if train.gradient_checkpointing == "auto":
        # After the key, which is the same on every device.  A resumed training does not keep the value of its first
        # attempt: gradients are equal either way, and the device that resumes it may have less memory.
        train = train.model_copy(update={"gradient_checkpointing": is_checkpointed})
    files = TrialFolder(folder)
    eval_rows = _choose_eval_rows(tokens)
    if BEST in keep and len(eval_rows) == 0:
        raise TrainingError(
            "train.keep is `best`, and no track is held out to measure a loss on; set dataset.split.selection_frac"
        )
    kept = KeptAdapters(files, key, train, keep)
    finished = find_finished(files.adapter, key)
    if finished is not None and kept.find_gap(train.steps, finished.curve) is None:
        model.load_adapter(finished.adapter)
        shutil.rmtree(files.checkpoint, ignore_errors=True)  # killed between writing the adapter and this
        return finished
    check_precision(train, model)
    reset_peak(model.device)
    injection = model.inject_lora(lora, seed)
    parameters = model.adapter_parameters()
    run = TrainingRun(
        tokens=tokens,
        model=model,
        train=train,
        seed=seed,
        files=files,
        key=key,
        parameters=parameters,
        optimizer=make_optimizer(model, parameters.values(), lora, train),
        # float16 gradients underflow without it; in other types it does nothing
        scaler=torch.amp.GradScaler(model.device.type, enabled=model.dtype == torch.float16),
        train_rows=train_rows,
        eval_rows=eval_rows,
        state=TrainState(),
        kept=kept,
    )
    progress.start("train", total=train.steps)
    is_resumed = _restore(run, progress)
    gpus = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=gpus):
            if lora.kind in FROM_DATA and not is_resumed:
                start_from_data(run, progress)
            _run_steps(run, injection, progress, on_eval)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise _describe_out_of_memory(run) from error
        if train.compile:
            _refuse_to_compile(error)
        raise
    finally:
        model.set_training(False)
        run.optimizer.zero_grad(set_to_none=True)
    result = _save_adapter(run, injection, files.adapter, key)
    shutil.rmtree(files.checkpoint, ignore_errors=True)
    kept.remove_beaten(result.curve)
    return result


def _save_adapter(run: TrainingRun, injection: LoraInjection, folder: Path, key: str) -> TrainResult:
    """Save the adapter as it is now, with what led to it."""
    is_last = run.state.step == run.train.steps
    result = TrainResult(
        adapter=folder,
        trainable_params=injection.trainable_params,
        matched_modules=dict(injection.matched_modules),
        curve=tuple(run.state.curve),
        wall_s=run.state.wall_s,
        peak_memory_gib=peak_gib(run.model.device),
        step=None if is_last else run.state.step,
        gradient_checkpointing=run.train.is_checkpointed,
    )
    train = run.train.model_copy(update={"keep": None})
    notes = {"train": train, "train_seed": run.seed, "run_key": key, "result": write_result(result)}
    if run.state.pass_size is not None:
        notes["slices_per_pass"] = run.state.pass_size  # memory ran out
    run.model.save_adapter(folder, to_jsonable(notes), is_trained=is_last)
    return result


def check_precision(train: TrainSpec, model: MusicModel) -> None:
    """Refuse a `train.precision` that is not faster here, or that the weights do not have.

    Raises:
        ResourceError: the hardware has no fast products in bfloat16.
        ModelError: the weights are rounded already.
    """
    if train.precision == "bfloat16" and not has_fast_bfloat16(model.device):
        raise ResourceError(
            f"train.precision: bfloat16 is not faster than float32 on this {model.device.type} (measured); leave it out"
        )
    if train.precision == "float32" and model.dtype != torch.float32:
        raise ModelError(
            f"train.precision is float32, but the model's weights are {str(model.dtype).removeprefix('torch.')}; set "
            "model.dtype: float32, or leave train.precision out"
        )


def _refuse_to_compile(error: Exception) -> None:
    from torch._dynamo.exc import TorchDynamoException

    if isinstance(error, TorchDynamoException):
        reason = " ".join(str(error).split())[:300]
        raise ResourceError(
            f"train.compile: torch could not compile the decoder's layers here ({reason}); it needs a C++ compiler, "
            "and on a GPU Triton; install them, or leave train.compile out"
        ) from error


def _choose_eval_rows(tokens: TokenSet) -> NDArray[np.int64]:
    """Return the held-out slices to measure: all, or `MAX_EVAL_SLICES`, evenly spread over the tracks.

    They are those of the selection side; of the references only where there is no selection side.
    """
    rows = tokens.find_split("selection" if "selection" in tokens.splits else "eval")
    if len(rows) <= MAX_EVAL_SLICES:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MAX_EVAL_SLICES).round().astype(np.int64)]


def _restore(run: TrainingRun, progress: Progress) -> bool:
    """Put the last checkpoint into a run; return whether there was one that fits."""
    found = load_checkpoint(
        run.files.checkpoint_state, run.key, run.parameters, run.optimizer, run.kept.find_gap
    )
    if isinstance(found, str):
        if run.files.checkpoint.exists():
            progress.log(f"{found}; training begins at step 0")
        return False
    run.state = found
    if found.scaler:
        run.scaler.load_state_dict(found.scaler)
    progress.advance(found.step)
    progress.log(f"training resumes from step {found.step}")
    return True


def _run_steps(
    run: TrainingRun, injection: LoraInjection, progress: Progress, on_eval: OnEval | None
) -> None:
    train, state = run.train, run.state
    begin, spent_s = time.monotonic(), state.wall_s
    every, kept_steps = max(1, train.steps // N_CURVE_POINTS), run.kept.steps
    enter_training(run.model, train)
    if state.step == 0 and not state.curve:
        state.curve.append(
            LossPoint(0, None, measure_eval_loss(run, progress.log), learning_rate(0, train), 0.0)
        )
    while state.step < train.steps:
        rate = learning_rate(state.step, train)
        loss = take_step(run, rate, progress.log)
        state.step += 1
        state.window.append(loss)
        state.wall_s = spent_s + time.monotonic() - begin
        is_last = state.step == train.steps
        is_regular = is_last or state.step % train.eval_every == 0
        is_measured = is_regular or state.step in kept_steps
        if is_measured or state.step % every == 0:
            eval_loss = measure_eval_loss(run, progress.log) if is_measured else None
            train_loss = sum(state.window) / len(state.window)
            state.curve.append(LossPoint(state.step, train_loss, eval_loss, rate, round(state.wall_s, 3)))
            state.window = []
        if is_measured and not is_last:
            for folder, key in run.kept.list_due(state.curve):
                _save_adapter(run, injection, folder, key)
        progress.advance(1, note=f"loss {loss:.3f}")
        if not is_last and state.step % train.checkpoint_every == 0:
            state.scaler = run.scaler.state_dict()
            save_checkpoint(run.files.checkpoint_state, run.key, state, run.parameters, run.optimizer)
            run.kept.remove_beaten(state.curve)
        if on_eval is not None and is_regular and not is_last and state.curve[-1].eval_loss is not None:
            on_eval(state.step, state.curve[-1].eval_loss)
    state.wall_s = spent_s + time.monotonic() - begin


def _describe_out_of_memory(run: TrainingRun) -> OutOfMemoryError:
    device, train = run.model.device, run.train
    release_cached(device)
    numbers = (
        f"{total_gib(device):.1f} GiB, {available_bytes(device) / GIB:.1f} GiB free now, "
        f"peak {peak_gib(device):.1f} GiB"
    )
    mends = ["choose a smaller model", "lower dataset.clip_s"]
    if not train.is_checkpointed:
        mends.insert(0, "set train.gradient_checkpointing: true")
    return OutOfMemoryError(
        f"step {run.state.step + 1}: forward passes of {run.pass_size} slices of {run.tokens.slice_s:g} s "
        f"(train.batch_size is {train.batch_size}, halved as far as it goes) did not fit into {device} "
        f"({numbers}); {', or '.join(mends)}"
    )
