"""Checks of files that are named like a run's: other programs write a `results.json` or `plan.json` as well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_bench.errors import StoreError
from lora_bench.store import read_json

Json = dict[str, Any]
_NUMBER, _NOTHING = (int, float), type(None)
_LISTS = (
    "floors", "unscored_floors", "sources", "comparisons", "baseline_comparisons", "comparisons_over_seeds",
    "baseline_comparisons_over_seeds", "guards", "control",
)  # fmt: skip
_MAPPINGS = ("planned", "dataset", "model", "environment", "spec")
_TRIAL: Mapping[str, tuple[type, ...]] = {
    "id": (str,), "name": (str,), "configuration": (str,), "kind": (str,), "state": (str,),
    "reason": (str, _NOTHING), "changes": (dict,), "aliases": (list,), "losses": (dict,),
    "matched_modules": (dict,), "wall_s": (dict,), "lora": (dict, _NOTHING), "train": (dict, _NOTHING),
    "adapter": (str, _NOTHING), "trainable_params": (*_NUMBER, _NOTHING), "peak_memory_gib": (*_NUMBER, _NOTHING),
}  # fmt: skip
_SCORE: Mapping[str, tuple[type, ...]] = {
    "metric": (str,), "prompt": (str, _NOTHING), "note": (str, _NOTHING), "n_generated": (*_NUMBER, _NOTHING),
    "n_reference": (*_NUMBER, _NOTHING), "dim": (*_NUMBER, _NOTHING),
    **dict.fromkeys(("se", "ci_low", "ci_high", "corrected"), (*_NUMBER, _NOTHING)),
}  # fmt: skip


def read_results_file(path: Path) -> Json:
    """A `results.json`, with the fields that another version or program left out.

    Raises:
        StoreError: it is damaged, or not the results of a run.
    """
    found = read_json(path)
    if problem := _find_problem(found):
        raise StoreError(
            f"{path}: not in the form of a run ({problem}); expected a results.json that `lora-bench run` has written"
        )
    results: Json = found
    trial_fields = {"reason": None, "unscored": [], "losses": {}, "matched_modules": {}, "wall_s": {}}
    usual = {"kind": "fine-tuned", "state": "done", "train_seed": None, "lora": None, "adapter": None}
    trials: list[Json] = []
    for trial in results["trials"]:
        name = trial.get("name") or trial.get("id")
        named = {"id": name, "name": name, "trainable_params": None, "scores": []}
        trials.append(trial_fields | usual | named | trial)
        trials[-1]["scores"] = [{"prompt": None} | score for score in trials[-1]["scores"]]
    lists: Json = {name: [] for name in _LISTS}
    parts: Json = {name: {} for name in _MAPPINGS}
    own = {"name": path.absolute().parent.name, "complete": False}
    return lists | parts | own | results | {"trials": trials}


def read_run_plan(run_folder: Path) -> Json:
    """The plan of a run.

    Raises:
        StoreError: it is damaged, or not a plan of ours.
    """
    path = run_folder / "plan.json"
    found = read_json(path)
    trials = found.get("trials") if isinstance(found, dict) else None
    is_ours = isinstance(trials, list) and all(
        isinstance(trial, dict) and isinstance(trial.get("id"), str) for trial in trials
    )
    if not is_ours or not isinstance(found.get("spec") or {}, dict):
        raise StoreError(
            f"{path}: not in the form of a run (`trials` is missing or of another kind); expected a plan.json that "
            "`lora-bench run` has written"
        )
    return found


def _find_problem(found: Any) -> str:
    """What is missing or of another form; empty if nothing is."""
    if not isinstance(found, dict):
        return f"a {type(found).__name__} instead of an object"
    if not _is_list_of_objects(found.get("trials")):
        return "`trials` is missing"
    name = found.get("name", "x")
    if not isinstance(name, str) or name in {"", ".", ".."} or set(name) & set("/\\\0"):
        return "`name` is not a name"
    for key in _LISTS:
        if not _is_list_of_objects(found.get(key, [])):
            return f"`{key}` is not a list of objects"
    for key in _MAPPINGS:
        if not isinstance(found.get(key, {}), dict):
            return f"`{key}` is not an object"
    return next((problem for trial in found["trials"] if (problem := _find_trial_problem(trial))), "")


def _find_trial_problem(trial: Json) -> str:
    if not (trial.get("name") or trial.get("id")):
        return "a trial has no name"
    for key in ("scores", "unscored"):
        if not _is_list_of_objects(trial.get(key, [])):
            return f"`{key}` of a trial is not a list of objects"
    for score in trial.get("scores", []):
        value = score.get("value")
        if not isinstance(value, _NUMBER) or isinstance(value, bool) or not math.isfinite(value):
            return "the value of a score is not a number"
        if (problem := _find_odd(score, _SCORE)) or "metric" not in score:
            return problem or "a score has no metric"
    return _find_odd(trial, _TRIAL)


def _find_odd(record: Json, types: Mapping[str, tuple[type, ...]]) -> str:
    odd = next(
        (key for key, kinds in types.items() if key in record and not isinstance(record[key], kinds)), None
    )
    return f"`{odd}` is {record[odd]!r}"[:80] if odd else ""


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
