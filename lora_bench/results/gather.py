"""What a run folder holds, gathered into one dictionary: the content of `results.json` and `results.csv`.

Files alone are read, so a finished, a failing and an interrupted run all give results.  A cell that was
planned and has no score is listed in `unscored` with a reason; nothing is filled in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_bench.planning.sources import Source, list_sources
from lora_bench.results.csv_table import render_csv
from lora_bench.results.search_tally import describe_rest, settle_search
from lora_bench.results.shape import read_results_file, read_run_plan
from lora_bench.results.trial import (
    gather_trial,
    is_complete,
    list_names,
    pair_with_zero_shot,
    read_object,
    read_part,
)
from lora_bench.store import to_jsonable, write_text

RESULTS_SCHEMA = 1

Json = dict[str, Any]

_COMPARISONS = ("comparisons", "baseline_comparisons")
_OVER_SEEDS = tuple(f"{name}_over_seeds" for name in _COMPARISONS)


def gather_results(run_folder: Path) -> Json:
    """Everything that a run has to tell, in the form of `results.json`.

    Args:
        run_folder: folder with `plan.json`; or, for results that travelled alone, with `results.json`.

    Returns:
        `schema`, `name`, `complete`, `trials` (each with `scores` and `unscored`), and beside them `planned`,
        `search` (what was tried of what, null without one), `floors`, `comparisons` (with zero-shot),
        `baseline_comparisons`, both also `..._over_seeds`, `guards`, `control`, `dataset` (of the first source),
        `sources` (each with its trials and its dataset), `model`, `environment` and `spec`; parts that the run
        did not write are empty.

    Raises:
        StoreError: neither file is there, or the plan is damaged.
    """
    if not (run_folder / "plan.json").is_file() and (run_folder / "results.json").is_file():
        return read_results_file(run_folder / "results.json")
    plan = read_run_plan(run_folder)
    spec: Json = plan.get("spec") or {}
    problems: list[str] = []
    environment = read_object(run_folder / "environment.json", problems)
    sources = list_sources(plan["trials"])
    described = [read_object(source.place(run_folder) / "dataset.json", problems) for source in sources]
    dataset = described[0] if described else None
    floors, unscored_floors = _gather_floors(run_folder, sources, problems)
    trials = [gather_trial(run_folder, trial, spec) for trial in plan["trials"]]
    search = settle_search(trials, plan, run_folder)
    ids = {trial["id"] for trial in trials}
    compared = read_part(run_folder / "comparisons.json", problems)
    guarded = read_part(run_folder / "guards.json", problems)
    pair_with_zero_shot(trials, plan["trials"])
    complete = bool(trials) and all(is_complete(trial) for trial in trials) and not describe_rest(search)
    return {
        "schema": RESULTS_SCHEMA,
        "name": str(plan.get("name") or spec.get("name") or run_folder.name),
        "complete": complete,
        "planned": {
            "trials": len(trials),
            "metrics": list_names(spec.get("metrics"), "name"),
            "prompts": list_names(spec.get("prompts"), "text"),
            "cells": sum(len(trial["scores"]) + len(trial["unscored"]) for trial in trials),
        },
        "trials": trials,
        "search": search,
        "floors": floors,
        "unscored_floors": unscored_floors,
        **{name: _records(compared, name) for name in _OVER_SEEDS},
        **{name: [i for i in _records(compared, name) if i.get("trial") in ids] for name in _COMPARISONS},
        "guards": [item for item in _records(guarded, "guards") if item.get("trial") in {*ids, None}],
        "control": [item for item in _records(guarded, "control") if item.get("trial") in ids],
        "dataset": _summarize_dataset(dataset),
        "sources": [
            to_jsonable(source) | {"dataset": _summarize_dataset(part)}
            for source, part in zip(sources, described, strict=True)
        ],
        "model": _find_model(run_folder, plan, dataset, environment),
        "environment": environment or {},
        "spec": spec,
        "source": plan.get("source"),
        "overrides": plan.get("overrides") or [],
        "problems": problems,
    }


def write_results(run_folder: Path) -> Json:
    """Write `results.json` and `results.csv` of a run, atomically, and return what was written.

    Raises:
        StoreError: there is nothing to gather, or the disk is full.
    """
    results = gather_results(run_folder)
    write_text(run_folder / "results.json", render_json(results))
    write_text(run_folder / "results.csv", render_csv(results))
    return results


def render_json(results: Json) -> str:
    """The text of `results.json`; what was gathered is plain JSON already, so it is written as it is."""
    return json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _summarize_dataset(described: Json | None) -> Json:
    """Counts and lengths per split; single tracks stay in `dataset.json`."""
    if not described:
        return {}
    manifest: Json = described.get("manifest") or described
    tracks: list[Json] = manifest.get("tracks") or []
    summary: Json = {key: manifest.get(key) for key in ("name", "key", "clip_s", "format", "resampler")}
    for split in ("train", "eval"):
        chosen = [track for track in tracks if track.get("split") == split]
        slices = [item for item in manifest.get("slices") or [] if item.get("split") == split]
        duration_s = math.fsum(float(track.get("duration_s") or 0.0) for track in chosen)
        summary[split] = {"n_tracks": len(chosen), "duration_s": duration_s, "n_slices": len(slices)}
    return summary | {
        "n_tracks": len(tracks),
        "n_reference_clips": described.get("n_reference_clips"),
        "excluded": manifest.get("excluded") or [],
    }


def _gather_floors(
    run_folder: Path, sources: Sequence[Source], problems: list[str]
) -> tuple[list[Json], list[Json]]:
    """Floors, and what has none; each names its source where there are several."""
    found: list[Json] = []
    unscored: list[Json] = []
    for source in sources:
        part = read_part(source.place(run_folder) / "floors.json", problems)
        named: Json = {"source": source.label} if len(sources) > 1 else {}
        found += [_flatten_floor(item) | named for item in _records(part, "floors")]
        unscored += [item | named for item in _records((part or {}).get("unscored"), "unscored")]
    return found, unscored


def _find_model(run_folder: Path, plan: Json, *parts: Any) -> Json:
    """What the run recorded of its model, at its preparation or when a trial loaded it."""
    noted = (
        read_object(run_folder / "trials" / str(trial["id"]) / "state.json", []) for trial in plan["trials"]
    )
    for part in (*parts, *noted):
        if isinstance(part, dict) and isinstance(part.get("model"), dict):
            return part["model"]
    return {}


def _flatten_floor(floor: Json) -> Json:
    """A floor with the fields of its score beside its name."""
    return {"floor": floor.get("floor")} | (floor.get("score") or {})


def _records(part: Any, key: str) -> list[Json]:
    """A list of records, given as such or under `key`."""
    found: Any = part.get(key) if isinstance(part, dict) else part
    return [item for item in found or [] if isinstance(item, dict)]
