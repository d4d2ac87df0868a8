"""Paths of the files of a run."""

from __future__ import annotations

from pathlib import Path

from lora_bench.planning.plan import TrialPlan


def folder_of(run_folder: Path, trial: TrialPlan) -> Path:
    """Where a trial's files lie."""
    return run_folder / "trials" / trial.id
