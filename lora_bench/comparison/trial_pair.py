"""The records of one trial against another: comparisons, guards, what prompts still do.

`pairs.py` says which trials are partners, and when anything is to be compared at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.paired_test import (
    Comparison,
    adjust_holm,
    aggregate_seeds,
    compare_paired,
    compare_pooled,
)
from lora_bench.comparison.text_control import compare_control
from lora_bench.errors import UnscoredError
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.clusters import take_clips
from lora_bench.metrics.text_control import find_off_genre
from lora_bench.planning.plan import ExperimentPlan, TrialPlan
from lora_bench.planning.run_folder import folder_of
from lora_bench.progress import Progress
from lora_bench.slugs import prompt_slugs
from lora_bench.stages.embed import load_embeddings
from lora_bench.store import hash_json, read_json

TEXT_METRIC = "clap_score"
_OFF_GENRE_SET = re.compile(r"^(off|out)[-_ ]?(of[-_ ]?)?genre", re.IGNORECASE)

Json = dict[str, Any]
Pair = tuple[TrialPlan, TrialPlan]


def compare_pairs(
    name: str,
    pairs: Sequence[Pair],
    configurations: Mapping[str, str],
    run_folder: Path,
    progress: Progress,
) -> Json:
    """All metrics and prompts of these pairs.

    Args:
        name: of the list of comparisons; that over training seeds is `<name>_over_seeds`.
        pairs: trials with their partners.
        configurations: by trial id.
        run_folder: holds what the trials left.
        progress: told about every pair.
    """
    found = adjust_holm([item for pair in pairs for item in _compare_pair(pair, run_folder, progress)])
    return {name: found, f"{name}_over_seeds": aggregate_seeds(found, configurations)}


def _compare_pair(pair: Pair, run_folder: Path, progress: Progress) -> list[Comparison]:
    found = [
        item for name in pair[0].metrics for item in _compare_metric(parse_metric(name), *pair, run_folder)
    ]
    progress.advance(note=pair[0].name)
    return found


def load_reference(run_folder: Path, trial: TrialPlan, encoder: str) -> Embeddings | None:
    """The references that a trial was scored against; None if it was not."""
    pointer = folder_of(run_folder, trial) / "embeddings" / encoder / "reference.json"
    if not pointer.is_file():
        return None
    return load_embeddings(run_folder / "reference_embeddings" / read_json(pointer)["file"])


def _load_sets(
    encoder: str, trial: TrialPlan, partner: TrialPlan, run_folder: Path
) -> list[tuple[Embeddings, Embeddings]]:
    """The partner's and the trial's clips by prompt; empty if either was not embedded."""
    slugs = prompt_slugs(trial.prompts)
    files = [
        [folder_of(run_folder, one) / "embeddings" / encoder / f"{slugs[p]}.npz" for one in (partner, trial)]
        for p in trial.prompts
    ]
    if not all(file.is_file() for pair in files for file in pair):
        return []
    return [(load_embeddings(a), load_embeddings(b)) for a, b in files]


def _compare_metric(
    metric: Metric, trial: TrialPlan, partner: TrialPlan, run_folder: Path
) -> list[Comparison]:
    """All prompts of one metric; empty where the metric could not be scored (the scores say why)."""
    sets = _load_sets(metric.encoder, trial, partner, run_folder)
    references = _load_others(metric, trial, run_folder)
    if not sets or references is None:
        return []
    names = (trial.id, partner.id)
    found: list[Comparison] = []
    for place, (prompt, (base, tuned)) in enumerate(zip(trial.prompts, sets, strict=True)):
        other = take_clips(references, [place]) if metric.distance == "text" else references
        try:
            found.append(compare_paired(metric, base, tuned, other, prompt=prompt, names=names))
        except UnscoredError:
            continue  # too few pairs: the scores carry the same note
    if found:
        bases, tuneds = zip(*sets, strict=True)
        try:
            found.append(compare_pooled(metric, bases, tuneds, references, prompt=None, names=names))
        except UnscoredError:
            return found
    return found


def _load_others(metric: Metric, trial: TrialPlan, run_folder: Path) -> Embeddings | None:
    """What clips are compared with: the recordings, or the prompts' texts in their order."""
    if metric.distance != "text":
        return load_reference(run_folder, trial, metric.encoder)
    place = folder_of(run_folder, trial) / "embeddings" / metric.encoder / "texts.npz"
    return load_embeddings(place) if place.is_file() else None


def join_guards(done: dict[str, TrialPlan], run_folder: Path) -> Json:
    """The guards of all trials; equal controls once."""
    records: list[Json] = []
    controls: set[str] = set()
    for trial in done.values():
        for record in read_json(folder_of(run_folder, trial) / "guards.json")["guards"]:
            if record["trial"] is None:
                mark = hash_json(record)
                if mark in controls:
                    continue
                controls.add(mark)
            records.append(record)
    return {"guards": sorted(records, key=lambda record: record["trial"] is not None)}


def check_control(pair: Pair, plan: ExperimentPlan, run_folder: Path) -> list[Json]:
    """Separation, pull and prompt adherence of one trial against zero-shot, by encoder and prompt."""
    trial, partner = pair
    off_genre, words = _find_off_genre(plan, trial, run_folder)
    encoders = list(dict.fromkeys(parse_metric(name).encoder for name in trial.metrics))
    records: list[Json] = []
    for encoder in encoders:
        sets = _load_sets(encoder, trial, partner, run_folder)
        reference = load_reference(run_folder, trial, encoder)
        if not sets or reference is None:
            continue
        records += compare_control(
            (trial.id, partner.id),
            encoder,
            dict(zip(trial.prompts, sets, strict=True)),
            reference,
            off_genre,
            words,
        )
    adherence = adjust_holm(_compare_metric(parse_metric(TEXT_METRIC), trial, partner, run_folder))
    for item in adherence:
        shown = {key: value for key, value in asdict(item).items() if value is not None}
        records.append({**shown, "prompt": item.prompt, "encoder": "clap", "figure": "adherence"})
    return records


def _find_off_genre(
    plan: ExperimentPlan, trial: TrialPlan, run_folder: Path
) -> tuple[dict[str, bool | None], str]:
    """Which prompts are off-genre, by the spec's own set of that name or else by the captions' words."""
    stated = [set(texts) for name, texts in plan.spec.prompt_sets.items() if _OFF_GENRE_SET.match(name)]
    if stated:
        off = set().union(*stated)
        return {prompt: prompt in off for prompt in trial.prompts}, "named so in the spec's prompt_sets"
    captions = read_json(folder_of(run_folder, trial) / "guards.json")["captions"]
    found, words = find_off_genre(trial.prompts, captions)
    if not words:
        return dict(found), "unknown: no genre word is common to the training captions"
    return dict(found), f"prompts without any of the captions' genre words ({', '.join(words[:12])})"
