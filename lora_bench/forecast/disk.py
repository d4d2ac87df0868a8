"""What a run takes of the disk: what stays, what is there for a while, and what is free."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Weights and AdamW's two moments; one checkpoint is kept, and the next one is written beside it.
ADAPTERS_PER_CHECKPOINT = 3
CHECKPOINTS_AT_ONCE = 2


@dataclass(frozen=True)
class SpaceForecast:
    """Bytes that a run takes.

    Attributes:
        kept_bytes: what stays of trials that are still to run.
        passing_bytes: checkpoints of the trials that run at once; each is removed when its trial is trained.
        free_bytes: of the disk now.
    """

    kept_bytes: int
    passing_bytes: int
    free_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The most at any moment."""
        return self.kept_bytes + self.passing_bytes

    @property
    def fits(self) -> bool:
        """Whether the disk has room for the peak."""
        return self.peak_bytes <= self.free_bytes


def forecast_space(
    place: Path, kept_bytes: Sequence[int], adapter_bytes: Sequence[int], n_at_once: int = 1
) -> SpaceForecast:
    """Forecast the space that trials take which are still to run.

    Args:
        place: the folder of runs; need not be there yet.
        kept_bytes: clips, codes and adapter of each trial.
        adapter_bytes: of each trial that trains.
        n_at_once: trials in parallel.
    """
    largest = sorted(adapter_bytes, reverse=True)[:n_at_once]
    return SpaceForecast(
        kept_bytes=sum(kept_bytes),
        passing_bytes=CHECKPOINTS_AT_ONCE * ADAPTERS_PER_CHECKPOINT * sum(largest),
        free_bytes=measure_free(place),
    )


def measure_free(place: Path) -> int:
    """Free bytes of the disk on which a folder lies or would lie."""
    there = place.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free
