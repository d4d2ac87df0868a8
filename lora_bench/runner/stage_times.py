"""Seconds of work per stage of a trial, kept in a file while it works, so that those of a killed attempt count too.

A stage that ended with its process counts until its last step, which `progress.json` notes about once a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lora_bench.errors import StoreError
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.results.reading import read_if_valid
from lora_bench.runner.jobs.state import StepRecord
from lora_bench.store import write_json


@dataclass(frozen=True)
class StagesRecord:
    """A trial's `stages.json`: seconds by stage of one attempt, and the stage under way."""

    wall_s: dict[str, float]
    stage: str | None
    began_at_s: float


class StageClock:
    """Seconds per stage of one attempt, kept in the trial's `stages.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = TrialFolder(folder)
        self.wall_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage; repeated stages add up."""
        start = time.monotonic()
        self._keep(name)
        try:
            yield
        finally:
            self.wall_s[name] = round(self.wall_s.get(name, 0.0) + time.monotonic() - start, 3)
            with suppress(
                StoreError
            ):  # a full disk: the stage's own error must be heard, and the state says it too
                self._keep(None)

    def _keep(self, stage: str | None) -> None:
        write_json(self.folder.stages, StagesRecord(wall_s=self.wall_s, stage=stage, began_at_s=time.time()))


def take_stage_times(folder: Path) -> dict[str, float]:
    """Seconds per stage of the attempt that ended in `folder`, and remove its record; empty if there is none."""
    files = TrialFolder(folder)
    kept = read_if_valid(files.stages, StagesRecord)
    if kept is None:
        return {}
    wall_s = kept.wall_s
    if kept.stage is not None:
        step = read_if_valid(files.progress, StepRecord)
        last_s = (step and step.at_s) or kept.began_at_s
        wall_s = add_times(wall_s, {kept.stage: max(0.0, last_s - kept.began_at_s)})
    files.stages.unlink(missing_ok=True)
    return wall_s


def add_times(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Sums of seconds per stage."""
    return {stage: round(before.get(stage, 0.0) + now.get(stage, 0.0), 3) for stage in {**before, **now}}
