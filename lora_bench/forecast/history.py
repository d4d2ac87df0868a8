"""Time and memory of earlier trials on this machine.

A trial counts if it is done and was done in one attempt on the host that asks.  Probes (`probe.py`) are
kept as records of the same form, with their seconds scaled to the whole trial.  A record counts for its own device
only; files without a device are of a CPU.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from lora_bench.forecast.checkpointing import set_checkpointing
from lora_bench.machine.gpus import CPU
from lora_bench.planning.run_folder import CACHE, RunFolder, TrialFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.results.reading import read_if_valid
from lora_bench.results.run_files import TrainFile
from lora_bench.results.trial_files import StateRecord, read_state
from lora_bench.spec.kinds import LOW_RANK
from lora_bench.spec.schema import ModelSpec, TrainSpec
from lora_bench.spec.targets import spell_targets

MAX_TRIALS = 400
PROBES = f"{CACHE}/forecast"
Facts = tuple[object, ...]


@dataclass(frozen=True)
class Record:
    """One earlier trial, or one probe; `fixed_s` is for loading model and data, the peak is that of training.

    `device` is `CPU` or the name of a GPU.
    """

    trial: TrialPlan
    origin: Literal["trial", "probe"]
    fixed_s: float | None = None
    train_s: float | None = None
    generate_s: float | None = None
    score_s: float | None = None
    peak_memory_gib: float | None = None
    device: str = CPU


@dataclass(frozen=True)
class History:
    """Records of this machine."""

    records: tuple[Record, ...]

    def of_model(self, model: ModelSpec, device: str) -> tuple[Record, ...]:
        """Return the earlier trials of a model on a device, or its probes if there is none."""
        found = [
            record
            for record in self.records
            if record.device == device and key_model(record.trial.model) == key_model(model)
        ]
        trials = [record for record in found if record.origin == "trial"]
        return tuple(trials or found)


def key_model(model: ModelSpec) -> tuple[str, str, str]:
    """Return the settings of a model that decide its speed."""
    return (model.id, model.backend, model.dtype)


def read_history(runs_dir: Path) -> History:
    """Read the records of all runs below a folder, the newest first; unreadable ones are left out."""
    states = sorted(runs_dir.glob(f"*/{RunFolder.trials}/*/{TrialFolder.state}"), key=_modified, reverse=True)
    trials = [TrialFolder(place.parent) for place in states[:MAX_TRIALS]]
    records = [record for trial in trials if (record := _read_trial(trial)) is not None]
    probes = sorted((runs_dir / PROBES).glob("*.json"), key=_modified, reverse=True)
    records += [record for place in probes if (record := _read_probe(place)) is not None]
    return History(tuple(records))


def _modified(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


def _read_trial(folder: TrialFolder) -> Record | None:
    state = read_state(folder.path)
    if state.get("state") != "done" or state.get("host") != socket.gethostname():
        return None
    if state.get("n_attempts", 1) != 1:
        return None
    try:
        trial = TrialPlan.model_validate_json(folder.plan.read_bytes())
    except (OSError, ValueError):
        return None
    if trial.external is not None:  # its times are another program's
        return None
    train = read_if_valid(folder.train, TrainFile) if trial.train is not None else TrainFile()
    if train is None:
        return None
    if trial.train is not None and trial.train.gradient_checkpointing == "auto":
        if train.gradient_checkpointing is None:  # a damaged record
            return None
        trial = set_checkpointing(trial, is_on=train.gradient_checkpointing)
    return make_record(trial, state, train)


def make_record(trial: TrialPlan, state: StateRecord, train: TrainFile) -> Record:
    """Return the figures of a finished trial."""
    wall_s = state.get("wall_s", {})
    is_trained = trial.train is not None and bool(train.wall_s)
    return Record(
        trial=trial,
        origin="trial",
        fixed_s=sum(wall_s[name] for name in ("load", "dataset") if name in wall_s),
        train_s=train.wall_s if is_trained else None,
        generate_s=wall_s.get("generate"),
        score_s=wall_s.get("score"),
        peak_memory_gib=train.peak_memory_gib if is_trained else None,
        device=state.get("device", CPU),
    )


@dataclass(frozen=True)
class ProbeRecord:
    """A probe's file: where and when it was measured, and what."""

    host: str
    measured_at: str
    record: Record


def _read_probe(place: Path) -> Record | None:
    try:
        found = TypeAdapter(ProbeRecord).validate_json(place.read_bytes())
    except (OSError, ValueError):
        return None
    return found.record if found.host == socket.gethostname() else None


def count_trained_s(trial: TrialPlan) -> float:
    """Return the seconds of audio that pass through the model in training."""
    if trial.train is None:
        return 0.0
    train = trial.train
    return train.steps * train.batch_size * train.grad_accumulation * trial.dataset.clip_s


def count_generated_s(trial: TrialPlan) -> float:
    """Return the seconds of audio that are generated."""
    return len(trial.prompts) * trial.generation.n_clips * trial.generation.clip_s


def count_scored_s(trial: TrialPlan) -> float:
    """Return the seconds of audio that are scored, counted once per metric."""
    return count_generated_s(trial) * len(trial.metrics)


def name_mode(train: TrainSpec) -> str:
    """Name the settings of a training step that decide its time and memory, apart from length and adapter."""
    facts = {
        train.precision or "": True,
        "checkpointed": train.is_checkpointed,
        "compiled": train.compile,
    }
    return " ".join(word for word, holds in facts.items() if word and holds)


def list_training_facts(trial: TrialPlan) -> Facts:
    """List what decides memory and time of a training step, the most important first."""
    train, lora = trial.train, trial.lora
    if train is None or lora is None:
        return ()
    layer = "lora" if lora.kind in LOW_RANK else lora.kind  # the kinds of LoRA compute the same
    adapter = (str(spell_targets(lora.targets)), lora.rank, lora.is_dora, lora.has_dropout)
    return (
        layer,
        name_mode(train),
        (train.batch_size, trial.dataset.clip_s),
        *adapter,
        train.grad_accumulation,
    )


def list_generation_facts(trial: TrialPlan) -> Facts:
    """List what decides the time of a second of generated audio, the most important first."""
    generation = trial.generation
    is_guided = generation.guidance > 1
    sampling = (generation.quantization, generation.batch_size, generation.clip_s, is_guided)
    return (*sampling, generation.n_clips, trial.kind)


def list_scoring_facts(trial: TrialPlan) -> Facts:
    """List what decides the time of scoring a second of audio, the most important first."""
    return (tuple(sorted(trial.metrics)), trial.generation.clip_s, trial.generation.n_clips)
