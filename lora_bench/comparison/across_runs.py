"""Contrasts of trials of any two runs, from the embeddings on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.errors import LoraBenchError
from lora_bench.metrics import parse_metric
from lora_bench.metrics.names import is_metric
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.results.reading import read_record
from lora_bench.results.records import Contrast
from lora_bench.results.run_files import TrialSettings
from lora_bench.results.run_records import TrialResult

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
    first: TrialFiles | None, second: TrialFiles | None, metrics: Sequence[str], primary: str
) -> tuple[dict[Cell, Contrast], list[str]]:
    """Compare the second trial with the first, by metric and prompt; also return why contrasts are absent."""
    if first is None or second is None:
        return {}, ["the clips of one side are not here, only its results"]
    is_paired = first.plan.external is None and second.plan.external is None
    reason = find_hindrance(first.plan, second.plan, is_paired=is_paired)
    if reason is not None:
        return {}, [reason]
    from lora_bench.comparison.contrasts import Group, Trained, contrast_groups
    from lora_bench.comparison.embedded_trial import EmbeddedTrial
    from lora_bench.comparison.run_contrasts import label_prompts, primary_labels

    base, tuned = (
        EmbeddedTrial(side.folder, side.plan.prompts, is_external=side.plan.external is not None)
        for side in (first, second)
    )
    trained = (Trained(tuned, base, second.plan.train_seed),)
    group = Group(tuned.id, base.id, "", trained, {}, is_paired=is_paired)
    prompts = [prompt for prompt in base.prompts if prompt in tuned.prompts]
    own = [prompt for prompt in prompts if prompt not in first.plan.off_genre] or prompts
    reasons = [
        f"{name}: neither a metric of this version nor of an installed package"
        for name in metrics
        if not is_metric(name)
    ]
    known = [name for name in metrics if is_metric(name)]
    if first.plan.distances != second.plan.distances:
        unlike = [n for n in known if len({parse_metric(n, s.plan.distances) for s in (first, second)}) > 1]
        reasons += [f"{name}: the trials were scored with other settings of the distance" for name in unlike]
        known = [name for name in known if name not in unlike]
    found: list[Contrast] = []
    try:
        found = contrast_groups(
            [group],
            [parse_metric(name, first.plan.distances) for name in known],
            label_prompts(prompts, own),
            (primary, primary_labels(own)),
            told=lambda metric, _, __, reason: reasons.append(f"{metric.name}: {reason}"),
        )
    except LoraBenchError as error:
        reasons.append(str(error))
    return {(item.metric, item.prompt): item.model_copy(update={"kind": "trial"}) for item in found}, list(
        dict.fromkeys(reasons)
    )


def find_hindrance(first: TrialSettings, second: TrialSettings, *, is_paired: bool = True) -> str | None:
    """Return why the clips of two trials cannot be compared; None if they can.

    Args:
        first: one trial.
        second: the other one.
        is_paired: whether clips have to be pairs; those of another system are not.
    """
    for name in _SAME_NOISE if is_paired else ("clip_s",):
        one, other = (plan.generation.get(name) for plan in (first, second))
        if one != other:
            lack = "are not pairs" if is_paired else "cannot be compared"
            return f"generation.{name} is {one} and {other}, so the clips {lack}"
    if not set(first.prompts) & set(second.prompts):
        return f"the trials have no prompt in common, so {'there are no pairs' if is_paired else 'nothing is compared'}"
    return None
