"""Why a trial would run: new, changed, extended, failed, interrupted; or not, because it is done or left out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from lora_bench.audio.folder_walk import walk_folder
from lora_bench.audio.melodies import fingerprint_melodies
from lora_bench.errors import StoreError
from lora_bench.forecast.adapter_files import fingerprint_adapter
from lora_bench.metrics import parse_metric
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.results.reading import read_part
from lora_bench.results.run_files import ExistingAdapterFile, ScoresFile
from lora_bench.results.search_tally import SearchTally
from lora_bench.results.trial_files import StateRecord, read_state
from lora_bench.spec.configurations import find_differences
from lora_bench.spec.grid import show_value
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.external.identity import fingerprint_external
from lora_bench.store import hash_json, read_json, to_jsonable

Kind = Literal["new", "changed", "more", "failed", "interrupted", "running", "cached", "untried"]
MAX_SHOWN = 4
_COMPARED = ("model", "dataset", "lora", "train", "train_seed", "generation", "external")


@dataclass(frozen=True)
class Reason:
    """Why a trial would run, in one word and in words."""

    kind: Kind
    text: str


class RunHistory:
    """What a run folder remembers of earlier plans and trials."""

    def __init__(self, run_folder: Path) -> None:
        self.run = RunFolder(run_folder)
        self.earlier: dict[str, dict[str, Any]] = {}
        self._begun = {folder.path.name for folder in self.run.list_trials()}
        try:
            plan = read_json(self.run.plan)
        except StoreError:
            return
        self.earlier = {str(trial.get("name")): trial for trial in plan.get("trials") or []}

    def explain(self, trial: TrialPlan, search: SearchTally | None = None) -> Reason:
        """Why `trial` would run now; a search may have left it out, or may do so."""
        folder = self.run.trial(trial.id).path
        if search is not None and trial.id in search.unbegun:
            return _explain_unbegun(trial, search)
        state: StateRecord = read_state(folder) if trial.id in self._begun else {}
        said = state.get("state")
        if said in {"done", "stopped"} and is_finished(trial, folder):
            return Reason("cached", "done" if said == "done" else str(state.get("reason")))
        if said == "done":
            return Reason("more", f"done before, now {self._describe_more(trial, folder)}")
        if said == "failed":
            stage = state.get("stage")
            where = f"in {stage}" if stage else "at the start"
            return Reason("failed", f"failed {where}: {state.get('reason')}")
        if said == "running" and is_held(folder):
            return Reason("running", f"running in process {state.get('pid')} on {state.get('host')}")
        if said in {"running", "interrupted", "stopped"}:
            return Reason("interrupted", "interrupted; resumes where it stopped")
        earlier = self.earlier.get(trial.name)
        if earlier is not None and earlier.get("id") != trial.id:
            return Reason("changed", f"changed: {describe_changes(earlier, to_jsonable(trial))}")
        return Reason("new", "new")

    def _describe_more(self, trial: TrialPlan, folder: Path) -> str:
        try:
            before = read_json(TrialFolder(folder).plan)
        except StoreError:
            return "its record is missing"
        now = to_jsonable(trial)
        added = [
            f"{len(new)} more {name if len(new) > 1 else name.removesuffix('s')}"
            for name in ("prompts", "metrics")
            if (new := set(now[name]) - set(before.get(name) or []))
        ]
        n_before, n_now = (one.get("n_clips_so_far") or one["generation"]["n_clips"] for one in (before, now))
        if n_before != n_now:
            added.append(f"n_clips {n_before} -> {n_now}")
        if trial.existing_adapter is not None:
            taken = read_part(TrialFolder(folder).existing_adapter, ExistingAdapterFile, [])
            if taken is not None and taken.key != fingerprint_adapter(trial.existing_adapter):
                added.append("the adapter's files have changed")
        melodies = trial.generation.melodies if trial.external is None else None
        if melodies is not None and _read_melodies(folder) not in {None, fingerprint_melodies(melodies)}:
            added.append("the melodies have changed")
        return ", ".join(added) or "its data or settings are checked again"


def _read_melodies(folder: Path) -> str | None:
    """Return the hash of the melodies that a trial's scores are of; None if they name none."""
    scores = read_part(TrialFolder(folder).scores, ScoresFile, [])
    known = [score.provenance.get("melodies_hash") for score in (scores.usable if scores else ())]
    return next((found for found in known if isinstance(found, str)), None)


def _explain_unbegun(trial: TrialPlan, search: SearchTally) -> Reason:
    if search.is_over:
        return Reason("untried", search.reason)
    is_wanted = trial.search is not None and trial.search.is_wanted
    when = "tried first by the search" if is_wanted else "if the search chooses it"
    return Reason("new", f"{when} ({search.n_tried} of {search.n_trials} tried)")


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """`lora.rank 8 -> 16, train.steps 100 -> 200`."""
    one = {name: before.get(name) or {} for name in _COMPARED}
    other = {name: now.get(name) or {} for name in _COMPARED}
    changes = [
        f"{name} {show_value(_look_up(one, name))} -> {show_value(_look_up(other, name))}"
        for name in find_differences(one, other)
    ]
    more = f" and {len(changes) - MAX_SHOWN} more" if len(changes) > MAX_SHOWN else ""
    return ", ".join(changes[:MAX_SHOWN]) + more if changes else "the way trials are identified"


def _look_up(mapping: Mapping[str, Any], dotted: str) -> Any:
    value: Any = mapping
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def is_held(folder: Path) -> bool:
    """Whether a living process works on the trial."""
    if not TrialFolder(folder).lock.is_file():
        return False
    try:
        with FileLock(TrialFolder(folder).lock, timeout=0):
            return False
    except Timeout:
        return True


CODEC_IDENTITY = 2
"""Raised when `encodec` embeddings get another provenance: those of two versions cannot be compared, so finished trials
are embedded and scored again; their adapters and clips stay."""


def dataset_fingerprint(dataset: DatasetSpec) -> str:
    """Cheap identity of the source files (names, sizes, times), to notice that a folder changed.

    The files are those that the reader sees: links are followed, hidden files are left out.  Results are
    keyed by content elsewhere; this only decides whether a finished trial is looked at again.
    """
    if dataset.path is None:
        return hash_json({"builtin": dataset.builtin})
    if not dataset.path.is_dir():
        from lora_bench.stages.dataset.sources import list_source_files

        return hash_json(
            [
                dataset.path,
                *(
                    (name, status.st_size, status.st_mtime_ns)
                    for name, status in list_source_files(dataset.path)
                ),
                *_describe_captions(dataset),
            ]
        )
    walk = walk_folder(dataset.path)
    files: list[tuple[str, int, int]] = [
        (os.path.relpath(path, dataset.path), status.st_size, status.st_mtime_ns)
        for path, status in walk.files
    ]
    files.extend((name, -1, -1) for name in walk.dropped)
    return hash_json([*files, *_describe_captions(dataset)])


def _describe_captions(dataset: DatasetSpec) -> Iterator[tuple[str, int, int]]:
    captions = dataset.captions.file
    if captions is not None and captions.is_file():
        status = captions.stat()
        yield captions.as_posix(), status.st_size, status.st_mtime_ns


def source_key(trial: TrialPlan) -> str:
    """What the source of a trial was prepared for; kept in its `dataset.json`."""
    return hash_json(
        {
            "model": trial.model,
            "dataset": trial.dataset,
            "data": dataset_fingerprint(trial.dataset),
            "clip_s": trial.generation.clip_s,
            "n_clips": trial.generation.n_clips,
            "metrics": trial.metrics,
            **({"encoders": trial.encoders} if trial.encoders else {}),
            **({"distances": trial.distances} if trial.distances else {}),
        }
    )


def inputs_key(trial: TrialPlan) -> str:
    """What a finished trial was finished for: the whole plan of the trial and the state of its data."""
    plan = to_jsonable(trial)
    if plan["early_stopping"] is None:  # so that adding the section to a spec leaves other trials alone
        del plan["early_stopping"]
    if not plan["off_genre"]:
        del plan["off_genre"]
    for name, default in (("n_clips_so_far", None), ("encoders", {})):
        if plan[name] == default:
            del plan[name]
    # who chose a trial and its size, what it is compared with, and who trains it
    for name in ("search", "zero_shot", "baseline_trial", "training", "kept", "budget"):
        plan.pop(name, None)
    facts: dict[str, object] = {"trial": plan, "data": dataset_fingerprint(trial.dataset)}
    if trial.existing_adapter is not None:
        facts["adapter"] = fingerprint_adapter(trial.existing_adapter)
    if trial.external is None and trial.generation.melodies is not None:
        facts["melodies"] = fingerprint_melodies(trial.generation.melodies)
    if trial.external is not None:
        facts["external"] = fingerprint_external(trial.external)
    if any(parse_metric(name).encoder == "encodec" for name in trial.metrics):
        facts["codec_identity"] = CODEC_IDENTITY
    return hash_json(facts)


def is_finished(trial: TrialPlan, folder: Path) -> bool:
    """Whether the trial's files say that exactly this was done, or stopped early as the spec asks."""
    found = read_state(folder)
    state = found.get("state")
    files = TrialFolder(folder)
    has_results = files.is_scored
    if trial.tuning is not None:
        has_results = files.train.is_file() and (trial.tuning.metric is None or files.scores.is_file())
    is_complete = state == "stopped" or (state == "done" and has_results)
    return is_complete and found.get("inputs") == inputs_key(trial)
