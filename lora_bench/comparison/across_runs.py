"""Paired tests between trials of any two runs, from the embeddings that both left on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_bench.errors import LoraBenchError, UnscoredError
from lora_bench.metrics import METRIC_NAMES, Metric, parse_metric
from lora_bench.slugs import prompt_slugs
from lora_bench.store import read_json

if TYPE_CHECKING:
    from lora_bench.artifacts import Embeddings
    from lora_bench.comparison.paired_test import Comparison

Json = dict[str, Any]
Cell = tuple[str, str | None]
# Clips are pairs if their noise is the same, and their references are of the same length.
_SAME_NOISE = ("seed", "clip_s")


@dataclass(frozen=True)
class TrialFiles:
    """A trial on disk: the run's folder and the trial's record."""

    run_folder: Path
    plan: Json

    @property
    def folder(self) -> Path:
        """The trial's own folder."""
        return self.run_folder / "trials" / str(self.plan["id"])


def find_trial_files(run_folder: Path | None, trial: Mapping[str, Any]) -> TrialFiles | None:
    """Files of a trial of gathered results; None if the results travelled alone."""
    if run_folder is None or not trial.get("id"):
        return None
    place = run_folder / "trials" / str(trial["id"]) / "trial.json"
    return TrialFiles(run_folder, read_json(place)) if place.is_file() else None


def compare_pair(
    first: TrialFiles | None, second: TrialFiles | None, metrics: Sequence[str]
) -> tuple[dict[Cell, Comparison], list[str]]:
    """Comparisons of the second trial against the first, by metric and prompt, and why others are not there."""
    if first is None or second is None:
        return {}, ["the clips of one side are not here, only its results"]
    reason = find_hindrance(first.plan, second.plan)
    if reason is not None:
        return {}, [reason]
    from lora_bench.comparison.paired_test import adjust_holm

    found: list[Comparison] = []
    reasons: list[str] = []
    for name in metrics:
        if name not in METRIC_NAMES:
            reasons.append(f"{name}: not a metric of this version")
            continue
        try:
            found += _compare_metric(parse_metric(name), first, second)
        except LoraBenchError as error:
            reasons.append(f"{name}: {error}")
    return {(item.metric, item.prompt): item for item in adjust_holm(found)}, reasons


def find_hindrance(first: Json, second: Json) -> str | None:
    """Why the clips of two trials are not pairs; None if they are."""
    for name in _SAME_NOISE:
        one, other = (plan.get("generation", {}).get(name) for plan in (first, second))
        if one != other:
            return f"generation.{name} is {one} and {other}, so the clips are not pairs"
    if not set(first.get("prompts") or []) & set(second.get("prompts") or []):
        return "the trials have no prompt in common, so there are no pairs"
    return None


def _compare_metric(metric: Metric, first: TrialFiles, second: TrialFiles) -> list[Comparison]:
    """Every prompt that both have, and those together if they are all of either."""
    from lora_bench.comparison.paired_test import compare_paired, compare_pooled
    from lora_bench.metrics.clusters import take_clips

    prompts = [prompt for prompt in first.plan["prompts"] if prompt in second.plan["prompts"]]
    others = _load_references(metric, first, second)
    names = (str(second.plan["id"]), str(first.plan["id"]))
    sets = [tuple(_load_clips(metric, side, prompt) for side in (first, second)) for prompt in prompts]
    found: list[Comparison] = []
    for prompt, (base, tuned) in zip(prompts, sets, strict=True):
        place = list(first.plan["prompts"]).index(prompt)
        reference = take_clips(others, [place]) if metric.distance == "text" else others
        found.append(compare_paired(metric, base, tuned, reference, prompt=prompt, names=names))
    if prompts == first.plan["prompts"] and len(prompts) == len(second.plan["prompts"]):
        bases, tuneds = zip(*sets, strict=True)
        found.append(compare_pooled(metric, bases, tuneds, others, names=names))
    return found


def _load_clips(metric: Metric, side: TrialFiles, prompt: str) -> Embeddings:
    from lora_bench.stages.embed import load_embeddings

    slug = prompt_slugs(side.plan["prompts"])[prompt]
    place = side.folder / "embeddings" / metric.encoder / f"{slug}.npz"
    if not place.is_file():
        raise UnscoredError(f"{place} is not there, so the clips cannot be compared in pairs")
    return load_embeddings(place)


def _load_references(metric: Metric, first: TrialFiles, second: TrialFiles) -> Embeddings:
    """What both were scored against.

    Raises:
        UnscoredError: it is not there, or not the same.
    """
    import numpy as np

    one, other = (_load_reference(metric, side) for side in (first, second))
    if metric.distance != "text" and not (
        one.clip_names == other.clip_names and np.array_equal(one.values, other.values)
    ):
        raise UnscoredError("the trials were scored against different references, so there is no paired test")
    return one


def _load_reference(metric: Metric, side: TrialFiles) -> Embeddings:
    from lora_bench.stages.embed import load_embeddings

    folder = side.folder / "embeddings" / metric.encoder
    if metric.distance == "text":
        place = folder / "texts.npz"
    else:
        pointer = folder / "reference.json"
        name = read_json(pointer)["file"] if pointer.is_file() else f"{metric.encoder}.npz"
        place = side.run_folder / "reference_embeddings" / name
    if not place.is_file():
        raise UnscoredError(f"{place} is not there, so there is no paired test")
    return load_embeddings(place)
