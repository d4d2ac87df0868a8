"""What earlier trials on this machine took: seconds per second of audio, and memory.

A trial counts if it is done and was done in one attempt on the host that asks.  Probes (`probe.py`) are
kept as records of the same form.
"""

from __future__ import annotations

import socket
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lora_bench.errors import StoreError
from lora_bench.plan import TrialPlan
from lora_bench.spec.schema import ModelSpec, TrainSpec
from lora_bench.spec.targets import spell_targets
from lora_bench.store import read_json

Json = Mapping[str, Any]
MAX_TRIALS = 400
PROBES = ".cache/forecast"


@dataclass(frozen=True)
class Record:
    """One earlier trial, or one probe.

    Attributes:
        model: id, backend and arithmetic.
        train_rate: seconds of training per second of audio that went through the model.
        generate_rate: seconds per second of generated audio.
        score_rate: seconds per second of generated audio and metric.
        fixed_s: seconds for loading model and data.
        load_s: seconds of audio in one forward pass of training, which memory grows with.
        peak_memory_gib: in training.
        way: how training steps are computed, see `name_way`.
    """

    model: tuple[str, str, str]
    origin: Literal["trial", "probe"]
    targets: str | None = None
    train_rate: float | None = None
    generate_rate: float | None = None
    score_rate: float | None = None
    fixed_s: float | None = None
    load_s: float | None = None
    peak_memory_gib: float | None = None
    way: str = ""


@dataclass(frozen=True)
class History:
    """Records of this machine, by model when asked."""

    records: tuple[Record, ...]

    def of_model(self, model: ModelSpec) -> tuple[Record, ...]:
        """Earlier trials of a model; its probes where there is no trial."""
        found = [record for record in self.records if record.model == key_model(model)]
        trials = [record for record in found if record.origin == "trial"]
        return tuple(trials or found)


def key_model(model: ModelSpec) -> tuple[str, str, str]:
    """What of a model decides its speed."""
    return (model.id, model.backend, model.dtype)


def read_history(runs_dir: Path) -> History:
    """Records of all runs below a folder, the newest first; what cannot be read is left out."""
    states = sorted(runs_dir.glob("*/trials/*/state.json"), key=_modified, reverse=True)
    records = [record for place in states[:MAX_TRIALS] if (record := _read_trial(place.parent)) is not None]
    probes = sorted((runs_dir / PROBES).glob("*.json"), key=_modified, reverse=True)
    records += [record for place in probes if (record := _read_probe(place)) is not None]
    return History(tuple(records))


def _modified(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


def _read_trial(folder: Path) -> Record | None:
    try:
        state: Json = read_json(folder / "state.json")
        if state.get("state") != "done" or state.get("host") != socket.gethostname():
            return None
        if state.get("n_attempts", 1) != 1:
            return None
        trial = TrialPlan.model_validate_json((folder / "trial.json").read_bytes())
        train: Json = read_json(folder / "train.json") if trial.kind == "fine-tuned" else {}
        return make_record(trial, state.get("wall_s") or {}, train)
    except (StoreError, OSError, ValueError):
        return None


def make_record(trial: TrialPlan, wall_s: Json, train: Json) -> Record:
    """The rates of a finished trial."""
    generation, n_prompts = trial.generation, len(trial.prompts)
    audio_s = n_prompts * generation.n_clips * generation.clip_s
    rates: dict[str, Any] = {}
    if trial.train is not None and trial.lora is not None and train.get("wall_s"):
        rates = {
            "targets": str(spell_targets(trial.lora.targets)),
            "train_rate": float(train["wall_s"]) / count_trained_s(trial),
            "load_s": trial.train.batch_size * trial.dataset.clip_s,
            "peak_memory_gib": train.get("peak_memory_gib"),
            "way": name_way(trial.train),
        }
    fixed_s = sum(float(wall_s[name]) for name in ("load", "dataset") if name in wall_s)
    return Record(
        model=key_model(trial.model),
        origin="trial",
        generate_rate=float(wall_s["generate"]) / audio_s if "generate" in wall_s else None,
        score_rate=float(wall_s["score"]) / (audio_s * len(trial.metrics)) if "score" in wall_s else None,
        fixed_s=fixed_s,
        **rates,
    )


def count_trained_s(trial: TrialPlan) -> float:
    """Seconds of audio that go through the model in training."""
    if trial.train is None:
        return 0.0
    train = trial.train
    return train.steps * train.batch_size * train.grad_accumulation * trial.dataset.clip_s


def _read_probe(place: Path) -> Record | None:
    try:
        found: Json = read_json(place)
        if found.get("host") != socket.gethostname():
            return None
        fields: dict[str, Any] = dict(found["record"])
        fields["model"] = tuple(fields["model"])
        return replace(Record(**fields), origin="probe")
    except (StoreError, KeyError, TypeError, ValueError):
        return None


def median_rate(values: Iterable[float | None]) -> float | None:
    """Median of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def name_way(train: TrainSpec) -> str:
    """What of a training step decides its time and memory, beside its length and its adapter."""
    facts = {
        train.precision or "": True,
        "checkpointed": train.gradient_checkpointing,
        "compiled": train.compile,
    }
    return " ".join(word for word, holds in facts.items() if word and holds)


def nearest(records: Sequence[Record], *, targets: str, way: str) -> list[Record]:
    """Records of trained trials: those most like the one that is asked for, as far as there are any."""
    found = [record for record in records if record.train_rate is not None]
    for alike in (
        lambda record: record.way == way,
        lambda record: record.targets == targets,
    ):
        found = [record for record in found if alike(record)] or found
    return found
