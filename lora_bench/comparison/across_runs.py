"""Paired tests between trials of any two runs, from the embeddings on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench.errors import LoraBenchError, UnscoredError
from lora_bench.metrics import METRIC_NAMES, Metric, parse_metric
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.results.reading import read_record
from lora_bench.results.records import Comparison
from lora_bench.results.run_files import TrialSettings
from lora_bench.results.run_records import TrialResult

if TYPE_CHECKING:
    from lora_bench.artifacts import Embeddings
    from lora_bench.comparison.embedded_trial import EmbeddedTrial

Cell = tuple[str, str | None]
# Clips are pairs if their noise is the same, and their references are of the same length.
_SAME_NOISE = ("seed", "clip_s")


@dataclass(frozen=True)
class TrialFiles:
    """A trial on disk: its folder and its settings."""

    folder: TrialFolder
    plan: TrialSettings


def find_trial_files(run_folder: Path | None, trial: TrialResult) -> TrialFiles | None:
    """Return the files of a trial of gathered results; None if the results travelled alone."""
    if run_folder is None:
        return None
    folder = RunFolder(run_folder).trial(trial.id)
    return TrialFiles(folder, read_record(folder.plan, TrialSettings)) if folder.plan.is_file() else None


def compare_pair(
    first: TrialFiles | None, second: TrialFiles | None, metrics: Sequence[str]
) -> tuple[dict[Cell, Comparison], list[str]]:
    """Compare the second trial with the first, by metric and prompt; also return why comparisons are absent."""
    if first is None or second is None:
        return {}, ["the clips of one side are not here, only its results"]
    reason = find_hindrance(first.plan, second.plan)
    if reason is not None:
        return {}, [reason]
    from lora_bench.comparison.embedded_trial import EmbeddedTrial, compare_trials_on
    from lora_bench.comparison.paired_test import adjust_holm

    base, tuned = (EmbeddedTrial(side.folder, side.plan.prompts) for side in (first, second))
    found: list[Comparison] = []
    reasons: list[str] = []
    for name in metrics:
        if name not in METRIC_NAMES:
            reasons.append(f"{name}: not a metric of this version")
            continue
        try:
            metric = parse_metric(name)
            found += compare_trials_on(metric, tuned, base, _load_references(metric, (base, tuned)))
        except LoraBenchError as error:
            reasons.append(f"{name}: {error}")
    return {(item.metric, item.prompt): item for item in adjust_holm(found)}, reasons


def find_hindrance(first: TrialSettings, second: TrialSettings) -> str | None:
    """Return why the clips of two trials are not pairs; None if they are."""
    for name in _SAME_NOISE:
        one, other = (plan.generation.get(name) for plan in (first, second))
        if one != other:
            return f"generation.{name} is {one} and {other}, so the clips are not pairs"
    if not set(first.prompts) & set(second.prompts):
        return "the trials have no prompt in common, so there are no pairs"
    return None


def _load_references(metric: Metric, sides: Sequence[EmbeddedTrial]) -> Embeddings:
    """Load the references that both were scored against.

    Raises:
        UnscoredError: they are absent, or not the same.
    """
    import numpy as np

    one, other = (side.load_references(metric) for side in sides)
    is_same = one.clip_names == other.clip_names and np.array_equal(one.values, other.values)
    if metric.distance != "text" and not is_same:
        raise UnscoredError("the trials were scored against different references, so there is no paired test")
    return one
