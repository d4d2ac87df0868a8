"""Every finished fine-tuned trial against its partners, from what both left on disk.

Partners are the zero-shot model of the same model, data and sampling, and, where the experiment names a
baseline, the baseline's trial of the same training seed.  The two are kept apart in `comparisons.json`:
`comparisons` and `baseline_comparisons`, with their summaries over training seeds beside them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_bench.artifacts import Embeddings
from lora_bench.comparisons import (
    Comparison,
    adjust_holm,
    aggregate_seeds,
    compare_paired,
    compare_pooled,
)
from lora_bench.control_records import compare_control
from lora_bench.errors import UnscoredError
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.clusters import take_clips
from lora_bench.metrics.control import find_off_genre
from lora_bench.names import prompt_slugs
from lora_bench.plan import ExperimentPlan, TrialPlan
from lora_bench.progress import Progress
from lora_bench.stages.embed import load_embeddings
from lora_bench.store import hash_file, hash_json, read_json, write_json

VERSION = 2  # raise it when the same embeddings give another comparison
TEXT_METRIC = "clap_score"
_OFF_GENRE_SET = re.compile(r"^(off|out)[-_ ]?(of[-_ ]?)?genre", re.IGNORECASE)

Json = dict[str, Any]
Pair = tuple[TrialPlan, TrialPlan]


def find_partner(trial: TrialPlan, trials: Sequence[TrialPlan]) -> TrialPlan | None:
    """The zero-shot trial of the same model, data and sampling; None if it was not planned."""
    return next(
        (
            other
            for other in trials
            if other.kind == "zero-shot"
            and (other.model, other.dataset, other.generation, other.prompts)
            == (trial.model, trial.dataset, trial.generation, trial.prompts)
        ),
        None,
    )


def find_baseline(trial: TrialPlan, plan: ExperimentPlan) -> TrialPlan | None:
    """The baseline's trial of the same training seed; None for itself, or where clips are no pairs.

    Clips are pairs if both came from the same noise, and scores compare if both have the same references.
    """
    if plan.baseline is None or trial.kind == "zero-shot" or trial.configuration == plan.baseline:
        return None
    return next(
        (
            other
            for other in plan.trials
            if other.kind == "fine-tuned"
            and (other.configuration, other.train_seed) == (plan.baseline, trial.train_seed)
            and (other.model, other.dataset, other.prompts) == (trial.model, trial.dataset, trial.prompts)
            and (other.generation.clip_s, other.generation.seed)
            == (trial.generation.clip_s, trial.generation.seed)
        ),
        None,
    )


def compare_trials(plan: ExperimentPlan, run_folder: Path, progress: Progress) -> None:
    """Write `comparisons.json` and `guards.json`: every done trial, metric and prompt.

    What was compared before under the same scores and guards is not compared again.
    """
    tuned = [trial for trial in plan.trials if trial.kind == "fine-tuned"]
    against_base = [(t, other) for t in tuned if (other := find_partner(t, plan.trials)) is not None]
    against_baseline = [(t, other) for t in tuned if (other := find_baseline(t, plan)) is not None]
    done = {trial.id: trial for trial in plan.trials if _is_done(run_folder, trial)}
    zero_shot, baseline = (
        [pair for pair in pairs if all(trial.id in done for trial in pair)]
        for pairs in (against_base, against_baseline)
    )
    files = [
        hash_file(_folder(run_folder, trial) / name)
        for trial in done.values()
        for name in ("scores.json", "guards.json")
    ]
    pairs = [[trial.id for trial in pair] for pair in (*zero_shot, *baseline)]
    key = hash_json([VERSION, files, pairs, plan.baseline, plan.spec.prompt_sets])
    places = [run_folder / "comparisons.json", run_folder / "guards.json"]
    if all(place.is_file() and read_json(place).get("key") == key for place in places):
        return
    progress.start("compare", len(zero_shot) + len(baseline))
    compared = {"comparisons": zero_shot, "baseline_comparisons": baseline}
    written: Json = {"key": key}
    configurations = {trial.id: trial.configuration for trial in plan.trials}
    for name, chosen in compared.items():
        found = adjust_holm([item for pair in chosen for item in _compare_pair(pair, run_folder, progress)])
        written[name] = found
        written[f"{name}_over_seeds"] = aggregate_seeds(found, configurations)
    write_json(places[0], written)
    control = [record for pair in zero_shot for record in _check_control(pair, plan, run_folder)]
    write_json(places[1], {"key": key, **_join_guards(done, run_folder), "control": control})


def _folder(run_folder: Path, trial: TrialPlan) -> Path:
    return run_folder / "trials" / trial.id


def _is_done(run_folder: Path, trial: TrialPlan) -> bool:
    folder = _folder(run_folder, trial)
    if not all((folder / name).is_file() for name in ("scores.json", "guards.json", "state.json")):
        return False
    return read_json(folder / "state.json").get("state") == "done"


def _compare_pair(pair: Pair, run_folder: Path, progress: Progress) -> list[Comparison]:
    found = [
        item for name in pair[0].metrics for item in _compare_metric(parse_metric(name), *pair, run_folder)
    ]
    progress.advance(note=pair[0].name)
    return found


def load_reference(run_folder: Path, trial: TrialPlan, encoder: str) -> Embeddings | None:
    """The references that a trial was scored against; None if it was not."""
    pointer = _folder(run_folder, trial) / "embeddings" / encoder / "reference.json"
    if not pointer.is_file():
        return None
    return load_embeddings(run_folder / "reference_embeddings" / read_json(pointer)["file"])


def _load_sets(
    encoder: str, trial: TrialPlan, partner: TrialPlan, run_folder: Path
) -> list[tuple[Embeddings, Embeddings]]:
    """The partner's and the trial's clips by prompt; empty if either was not embedded."""
    slugs = prompt_slugs(trial.prompts)
    files = [
        [_folder(run_folder, one) / "embeddings" / encoder / f"{slugs[p]}.npz" for one in (partner, trial)]
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
    place = _folder(run_folder, trial) / "embeddings" / metric.encoder / "texts.npz"
    return load_embeddings(place) if place.is_file() else None


def _join_guards(done: dict[str, TrialPlan], run_folder: Path) -> Json:
    """The guards of all trials; equal controls once."""
    records: list[Json] = []
    controls: set[str] = set()
    for trial in done.values():
        for record in read_json(_folder(run_folder, trial) / "guards.json")["guards"]:
            if record["trial"] is None:
                mark = hash_json(record)
                if mark in controls:
                    continue
                controls.add(mark)
            records.append(record)
    return {"guards": sorted(records, key=lambda record: record["trial"] is not None)}


def _check_control(pair: Pair, plan: ExperimentPlan, run_folder: Path) -> list[Json]:
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
    captions = read_json(_folder(run_folder, trial) / "guards.json")["captions"]
    found, words = find_off_genre(trial.prompts, captions)
    if not words:
        return dict(found), "unknown: no genre word is common to the training captions"
    return dict(found), f"prompts without any of the captions' genre words ({', '.join(words[:12])})"
