"""Accuracy of earlier forecasts: each with the measured figure, kept in the cache of a folder of runs."""

from __future__ import annotations

import json
import socket
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lora_bench.forecast.history import PROBES
from lora_bench.forecast.prediction import Prediction
from lora_bench.machine.gpus import CPU
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.results.reading import read_if_valid
from lora_bench.results.run_files import TrainFile
from lora_bench.results.trial_files import read_state
from lora_bench.store import write_text

OUTCOMES = f"{PROBES}/outcomes.jsonl"
MAX_OUTCOMES = 200
Kind = Literal["time", "memory"]


@dataclass(frozen=True)
class Outcome:
    """One forecast that can be checked.

    Attributes:
        trial: its id.
        host: where it ran.
        kind: of figure: seconds of an attempt, or GiB at most in training.
        basis: what the forecast was made from, as in `Prediction`.
        device: where it ran: `gpus.CPU`, or the name of a GPU.
    """

    trial: str
    host: str
    kind: Kind
    basis: str
    predicted: float
    measured: float
    device: str = CPU

    @property
    def factor(self) -> float:
        """Factor between forecast and measurement, at least 1."""
        ratio = self.predicted / self.measured
        return max(ratio, 1.0 / ratio)


def keep_outcomes(runs_dir: Path, run_folder: Path, predictions: Mapping[str, Prediction]) -> None:
    """Keep forecasts, by trial, with the figures in the trials' files.

    Raises:
        StoreError: the disk is full.
    """
    run = RunFolder(run_folder)
    made = [item for key, found in predictions.items() for item in _compare(run.trial(key), found)]
    if made:
        lines = [json.dumps(asdict(item)) for item in (*read_outcomes(runs_dir), *made)]
        write_text(runs_dir / OUTCOMES, "\n".join(lines[-MAX_OUTCOMES:]) + "\n")


def _compare(folder: TrialFolder, prediction: Prediction) -> list[Outcome]:
    state, host = read_state(folder.path), socket.gethostname()
    if state.get("state") != "done" or state.get("host") != host:
        return []
    train = read_if_valid(folder.train, TrainFile) if prediction.memory_gib else TrainFile()
    if train is None:
        return []
    pairs: tuple[tuple[Kind, str, float | None, float | None], ...] = (
        ("time", prediction.time_basis, prediction.time_s, state.get("attempt_s")),
        ("memory", prediction.memory_basis, prediction.memory_gib, train.peak_memory_gib),
    )
    return [
        Outcome(folder.path.name, host, kind, basis, predicted, measured, state.get("device", CPU))
        for kind, basis, predicted, measured in pairs
        if predicted and measured
    ]


def read_outcomes(runs_dir: Path) -> list[Outcome]:
    """Read the outcomes of this machine, the oldest first; unreadable lines are left out."""
    try:
        lines = (runs_dir / OUTCOMES).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found: list[Outcome] = []
    for line in lines:
        try:
            item = Outcome(**json.loads(line))
            if item.host == socket.gethostname() and item.factor > 0:
                found.append(item)
        except (TypeError, ValueError, ZeroDivisionError):
            continue
    return found


def describe_accuracy(outcomes: Sequence[Outcome], kind: Kind, basis: str, device: str = CPU) -> str:
    """Return `; such forecasts were off by a factor of 1.2 in the median, 2.0 at most (8 trials)`, or nothing."""
    wanted = (kind, basis, device)
    factors = [item.factor for item in outcomes if (item.kind, item.basis, item.device) == wanted]
    if not factors:
        return ""
    n_trials = f"{len(factors)} trial{'s' if len(factors) != 1 else ''}"
    return (
        f"; such forecasts were off by a factor of {statistics.median(factors):.1f} in the median, "
        f"{max(factors):.1f} at most ({n_trials})"
    )
