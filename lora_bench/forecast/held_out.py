"""The number of reference tracks that a plan leads to, and whether it allows a verdict."""

from __future__ import annotations

from lora_bench.errors import DatasetError
from lora_bench.metrics import parse_metric
from lora_bench.metrics.verdicts import FEW
from lora_bench.planning.notes import MIN_CLIPS
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.spec.schema import DatasetSpec
from lora_bench.spec.sides import BUILTIN_TRACKS, count_sides


def describe_few_tracks(plan: ExperimentPlan) -> list[str]:
    """Return a line per dataset with too few reference tracks for a verdict, or for a narrow interval."""
    metric = plan.spec.primary_metric
    parsed = parse_metric(metric)
    if not parsed.has_references:
        return []
    needed = MIN_CLIPS.get(parsed.distance, 2)
    lines: dict[str, None] = {}
    for dataset in {trial.dataset.model_dump_json(): trial.dataset for trial in plan.trials}.values():
        n_tracks = _count_tracks(dataset)
        try:
            n_eval = count_sides(n_tracks, dataset.split).eval if n_tracks is not None else None
        except DatasetError:  # reported with its place elsewhere
            n_eval = None
        if n_eval is None:
            continue
        about = f"{dataset.path or dataset.builtin}: {n_eval} of at most {n_tracks} tracks are references"
        mend = "add recordings, or raise dataset.split.eval_frac"
        if n_eval < needed:
            lines[
                f"{about}, which allow no verdict on `{metric}`: an interval needs at least {needed}; {mend}"
            ] = None
        elif n_eval < FEW:
            lines[f"{about}; intervals are rough and wide with fewer than {FEW}: {mend}"] = None
    return list(lines)


def _count_tracks(dataset: DatasetSpec) -> int | None:
    """Return the number of recordings, some of which may turn out unusable; None if it is not known."""
    if dataset.path is None:
        return BUILTIN_TRACKS[dataset.builtin or "chiptune"]
    from lora_bench.stages.dataset.sources import count_recordings

    try:
        return count_recordings(dataset.path)
    except DatasetError:  # reported with its place elsewhere
        return None
