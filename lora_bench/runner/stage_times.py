"""Seconds of work per stage of a trial, kept in a file while it works, so that those of a killed attempt count too.

A stage that ended with its process counts until its last step, which `progress.json` notes about once a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lora_bench.errors import StoreError
from lora_bench.store import read_json, write_json

STAGES_FILE = "stages.json"
PROGRESS_FILE = "progress.json"


class StageClock:
    """Seconds per stage of one attempt.

    Args:
        folder: of the trial; gets `stages.json`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
        facts = {"wall_s": self.wall_s, "stage": stage, "began_at_s": time.time()}
        write_json(self.folder / STAGES_FILE, facts)


def take_stage_times(folder: Path) -> dict[str, float]:
    """Seconds per stage of the attempt that ended in `folder`, and remove its record; empty if there is none."""
    try:
        kept = read_json(folder / STAGES_FILE)
        wall_s = {str(name): float(value) for name, value in kept["wall_s"].items()}
        stage, began_at_s = kept["stage"], float(kept["began_at_s"])
    except (StoreError, KeyError, TypeError, ValueError, AttributeError):
        return {}
    if stage is not None:
        last_s = _read_last_step(folder)
        wall_s = add_times(wall_s, {str(stage): max(0.0, (last_s or began_at_s) - began_at_s)})
    (folder / STAGES_FILE).unlink(missing_ok=True)
    return wall_s


def _read_last_step(folder: Path) -> float | None:
    try:
        return float(read_json(folder / PROGRESS_FILE)["at_s"])
    except (StoreError, KeyError, TypeError, ValueError):
        return None


def add_times(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Sums of seconds per stage."""
    return {stage: round(before.get(stage, 0.0) + now.get(stage, 0.0), 3) for stage in {**before, **now}}
