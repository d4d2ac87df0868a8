"""The sides of every dataset of a plan that has tracks to select by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lora_bench.errors import DatasetError
from lora_bench.planning.run_folder import RunFolder, SourceFolder
from lora_bench.planning.sources import list_sources
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.results.run_files import DatasetFile
from lora_bench.results.trial_files import read_if_valid
from lora_bench.runner.freshness import source_key
from lora_bench.spec.sides import BUILTIN_TRACKS, count_sides
from lora_bench.store import to_jsonable

MAX_NAMED = 8


def describe_sides(plan: ExperimentPlan, run_folder: Path) -> Iterator[str]:
    """Yield a line per dataset: its tracks by side once they are prepared, else how many there will be."""
    by_id = {trial.id: trial for trial in plan.trials}
    for source in list_sources(to_jsonable(plan.trials)):
        trial = by_id[source.trial_ids[0]]
        if trial.dataset.split.selection_frac:
            folder = RunFolder(run_folder).source(source.folder)
            sides = _list_prepared(trial, folder) or _count_files(trial)
            if sides:
                yield f"{source.label}: {sides}"


def _list_prepared(trial: TrialPlan, folder: SourceFolder) -> str:
    found = read_if_valid(folder.dataset, DatasetFile)
    if found is None or found.model_dump().get("prepared_for") != source_key(trial):
        return ""
    names = {
        side: [track.source or "" for track in found.manifest.tracks if track.split == side]
        for side in ("train", "selection", "eval")
    }
    return (
        f"{len(names['train'])} tracks to train on, {len(names['selection'])} to select by "
        f"({_join(names['selection'])}), {len(names['eval'])} to score by ({_join(names['eval'])})"
    )


def _join(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _count_files(trial: TrialPlan) -> str:
    """Return the counts that the files give; empty if they are too few, which is reported with its place elsewhere."""
    from lora_bench.stages.dataset.sources import count_recordings

    path = trial.dataset.path
    try:
        n_tracks = (
            BUILTIN_TRACKS[trial.dataset.builtin or "chiptune"] if path is None else count_recordings(path)
        )
        if n_tracks is None:
            return ""
        counts = count_sides(n_tracks, trial.dataset.split)
    except DatasetError:
        return ""
    return (
        f"of {n_tracks} recordings, {counts.train} to train on, {counts.selection} to select by and {counts.eval} to "
        "score by, if all are usable; `plan` names them once they are prepared"
    )
