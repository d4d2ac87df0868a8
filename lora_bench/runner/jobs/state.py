"""The state of a trial in its folder: `state.json` and, while it runs, `progress.json`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from lora_bench.planning.run_folder import TrialFolder
from lora_bench.progress import Progress, SilentProgress
from lora_bench.results.reading import read_if_valid
from lora_bench.results.trial_files import State, StateRecord, read_state
from lora_bench.store import write_json

WRITE_EVERY_S = 1.0


@dataclass(frozen=True)
class TrialView:
    """The state of a trial for a display.

    Attributes:
        stage: the current stage, or the last one.
        done: finished steps of the stage.
        total: steps of the stage, None if unknown.
        note: a short figure such as `loss 3.21`.
        reason: why it failed or stopped.
    """

    name: str
    state: State
    stage: str = ""
    done: int = 0
    total: int | None = None
    note: str = ""
    reason: str | None = None


@dataclass(frozen=True)
class StepRecord:
    """A trial's `progress.json`: the stage under way, and the time of its last step."""

    stage: str = ""
    done: int = 0
    total: int | None = None
    note: str = ""
    at_s: float | None = None


def write_state(folder: Path, state: StateRecord) -> None:
    """Write `state.json` atomically.

    Raises:
        StoreError: the disk is full.
    """
    write_json(TrialFolder(folder).state, state)


def view_trial(name: str, folder: Path) -> TrialView:
    """Read the current state of a trial from its files."""
    state = read_state(folder)
    said = state.get("state", "waiting")
    if said == "waiting":
        return TrialView(name, said)
    if said != "running":
        return TrialView(name, said, stage=state.get("stage") or "", reason=state.get("reason"))
    step = read_if_valid(TrialFolder(folder).progress, StepRecord)
    if step is None:
        return TrialView(name, said)
    return TrialView(name, said, stage=step.stage, done=step.done, total=step.total, note=step.note)


class FileProgress:
    """Keeps the current stage, writes it to `progress.json` about once a second, and passes it on."""

    def __init__(self, folder: Path, inner: Progress | None = None) -> None:
        self.folder = TrialFolder(folder)
        self.inner = inner or SilentProgress()
        self.step = StepRecord()
        self._written_at_s = 0.0

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins."""
        self.step = StepRecord(stage, total=total)
        self._write(now=True)
        self.inner.start(stage, total)

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Steps are done."""
        self.step = replace(self.step, done=self.step.done + n, note=note)
        self._write()
        self.inner.advance(n, note=note)

    def log(self, message: str) -> None:
        """Pass on a line, and append it to the trial's `log.txt`."""
        with self.folder.log.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")
        self.inner.log(message)

    def close(self) -> None:
        """Remove the record of the current stage when the trial has ended."""
        self.folder.progress.unlink(missing_ok=True)

    def _write(self, *, now: bool = False) -> None:
        time_s = time.monotonic()
        if not now and time_s - self._written_at_s < WRITE_EVERY_S:
            return
        self._written_at_s = time_s
        write_json(self.folder.progress, replace(self.step, at_s=time.time()))
