"""Comparison of one trial with another: scores, guards and text control.

`pairs.py` decides which trials are partners, and whether there is anything to compare.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_bench.comparison.embedded_trial import EmbeddedTrial, compare_trials_on
from lora_bench.comparison.paired_test import adjust_holm, aggregate_seeds
from lora_bench.comparison.text_control import compare_control
from lora_bench.errors import UnscoredError
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.text_control import find_off_genre
from lora_bench.planning.plan import ExperimentPlan, TrialPlan
from lora_bench.planning.run_folder import RunFolder
from lora_bench.progress import Progress
from lora_bench.results.reading import read_record
from lora_bench.results.records import (
    AdherenceRecord,
    Comparison,
    ControlFigure,
    GuardRecord,
    SeedComparison,
)
from lora_bench.results.run_files import TrialGuardsFile
from lora_bench.store import hash_json

TEXT_METRIC = "clap_score"
_OFF_GENRE_SET = re.compile(r"^(off|out)[-_ ]?(of[-_ ]?)?genre", re.IGNORECASE)

Pair = tuple[TrialPlan, TrialPlan]


def compare_pairs(
    pairs: Sequence[Pair], configurations: Mapping[str, str], run_folder: Path, progress: Progress
) -> tuple[list[Comparison], list[SeedComparison]]:
    """Compare these pairs on all metrics and prompts; return single trials, and means over training seeds.

    Args:
        pairs: trials with their partners.
        configurations: by trial id.
        run_folder: holds the files of the trials.
        progress: told about every pair.
    """
    found = adjust_holm([item for pair in pairs for item in _compare_pair(pair, run_folder, progress)])
    return found, aggregate_seeds(found, configurations)


def _compare_pair(pair: Pair, run_folder: Path, progress: Progress) -> list[Comparison]:
    found = [
        item for name in pair[0].metrics for item in _compare_metric(parse_metric(name), pair, run_folder)
    ]
    progress.advance(note=pair[0].name)
    return found


def _compare_metric(metric: Metric, pair: Pair, run_folder: Path) -> list[Comparison]:
    """Compare all prompts of one metric; empty where it could not be scored or paired (the scores say why)."""
    tuned, base = _open_pair(pair, run_folder)
    try:
        return compare_trials_on(metric, tuned, base, tuned.load_references(metric), skip_unpaired=True)
    except UnscoredError:
        return []


def _open_pair(pair: Pair, run_folder: Path) -> tuple[EmbeddedTrial, EmbeddedTrial]:
    """Return the trial and its partner, both with the trial's prompts."""
    run = RunFolder(run_folder)
    tuned, base = (EmbeddedTrial(run.trial(trial.id), pair[0].prompts) for trial in pair)
    return tuned, base


def join_guards(done: Mapping[str, TrialPlan], run_folder: Path) -> list[GuardRecord]:
    """Return the guards of all trials, held-out recordings first; equal records of these once."""
    run = RunFolder(run_folder)
    files = [read_record(run.trial(trial_id).guards, TrialGuardsFile) for trial_id in done]
    records = [record for file in files for record in file.guards]
    held_out: dict[str, GuardRecord] = {}
    for record in records:
        if record.trial is None:
            held_out.setdefault(hash_json(record), record)
    return [*held_out.values(), *(record for record in records if record.trial is not None)]


def check_control(pair: Pair, plan: ExperimentPlan, run_folder: Path) -> list[ControlFigure]:
    """Measure separation, shift toward the genre and prompt adherence of one trial against zero-shot."""
    trial, partner = pair
    off_genre, words = _find_off_genre(plan, trial, run_folder)
    encoders = list(dict.fromkeys(parse_metric(name).encoder for name in trial.metrics))
    records: list[ControlFigure] = []
    tuned, base = _open_pair(pair, run_folder)
    for encoder in encoders:
        try:
            sets = {p: (base.load_clips(encoder, p), tuned.load_clips(encoder, p)) for p in trial.prompts}
            reference = tuned.load_references(parse_metric(encoder))
        except UnscoredError:
            continue
        records += compare_control((trial.id, partner.id), encoder, sets, reference, off_genre, words)
    adherence = adjust_holm(_compare_metric(parse_metric(TEXT_METRIC), pair, run_folder))
    for item in adherence:
        known = {name: value for name, value in vars(item).items() if value is not None}
        records.append(AdherenceRecord.model_validate({**known, "encoder": "clap", "figure": "adherence"}))
    return records


def _find_off_genre(
    plan: ExperimentPlan, trial: TrialPlan, run_folder: Path
) -> tuple[dict[str, bool | None], str]:
    """Return which prompts are off-genre: by the spec's set of that name, else by the words of the captions."""
    stated = [set(texts) for name, texts in plan.spec.prompt_sets.items() if _OFF_GENRE_SET.match(name)]
    if stated:
        off = set().union(*stated)
        return {prompt: prompt in off for prompt in trial.prompts}, "named so in the spec's prompt_sets"
    file = read_record(RunFolder(run_folder).trial(trial.id).guards, TrialGuardsFile)
    found, words = find_off_genre(trial.prompts, file.captions)
    if not words:
        return dict(found), "unknown: no genre word is common to the training captions"
    return dict(found), f"prompts without any of the captions' genre words ({', '.join(words[:12])})"
