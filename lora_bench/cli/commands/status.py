"""`lora-bench status`: how far a run is, from its files.

While a process works on a run, its plan counts, also where the spec says something else by now; otherwise the plan of
the spec.  A trial that was done for other settings, or failed before the present run began, is waiting.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_bench.cli import shared_options
from lora_bench.cli.tables import format_table, print_json
from lora_bench.errors import EXIT_INCOMPLETE, EXIT_OK, StoreError, UsageError
from lora_bench.planning.plan import plan_file
from lora_bench.results.search_tally import UNTRIED, SearchTally, tally_planned, tally_search
from lora_bench.results.shape import read_run_plan
from lora_bench.runner.freshness import is_held
from lora_bench.runner.jobs.locks import HOLDER
from lora_bench.runner.jobs.state import view_trial
from lora_bench.spec import load_spec
from lora_bench.store import read_json, to_jsonable

SCHEMA = 1
_DONE_FOR = ("model", "dataset", "lora", "train", "train_seed", "generation", "prompts", "metrics")
WORDS = {UNTRIED: "not tried"}
STOPPED = "its process has died; resume the run with the same command"


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench status`."""

    target: Path
    runs_dir: Path
    json: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of the verb."""
    parser.add_argument(
        "target", type=Path, metavar="SPEC|RUN_DIR", help="a run, given by its spec or its folder"
    )
    shared_options.add_runs_dir(parser)
    shared_options.add_json(parser)


def execute(options: Options) -> int:
    """Print the state of every trial; 0 if all are done, stopped or left out as planned, 3 if not."""
    run_folder, planned, tally = find_run(options.target, options.runs_dir)
    began_s = find_run_began(run_folder)
    trials = [describe_trial(run_folder, str(trial["id"]), str(trial["name"])) for trial in planned]
    for trial, described in zip(planned, trials, strict=True):
        _mark_stale(trial, described, run_folder, began_s)
    _mark_untried(tally, trials)
    n_done = sum(trial["state"] == "done" for trial in trials)
    n_stopped = sum(trial["state"] == "stopped" for trial in trials)
    n_untried = sum(trial["state"] == UNTRIED for trial in trials)
    complete = n_done + n_stopped + n_untried == len(trials)
    if options.json:
        document = {
            "schema": SCHEMA,
            "name": run_folder.name,
            "run_folder": run_folder.as_posix(),
            "complete": complete,
            "is_running": began_s is not None,
            "n_done": n_done,
            "n_stopped_early": n_stopped,
            "n_untried": n_untried,
            "trials": trials,
        }
        print_json(document)
    else:
        rows = [
            (
                trial["name"],
                WORDS.get(str(trial["state"]), str(trial["state"])),
                _describe_step(trial),
                trial["reason"] or "",
            )
            for trial in trials
        ]
        print(format_table(("trial", "state", "stage", "reason"), rows))
        stopped = f", {n_stopped} stopped early" if n_stopped else ""
        untried = f", {n_untried} not tried by the search" if n_untried else ""
        print(f"{run_folder.name}: {n_done} of {len(trials)} trials done{stopped}{untried}; {run_folder}")
        for line in _describe_other_plan(run_folder, planned, is_running=began_s is not None):
            print(line)
    return EXIT_OK if complete else EXIT_INCOMPLETE


def find_run_began(run_folder: Path) -> float | None:
    """When the process that works on a run began, as a time stamp; None if there is no such process."""
    try:
        began_s = (run_folder / HOLDER).stat().st_mtime
    except OSError:
        return None
    return began_s if is_held(run_folder) else None


def _mark_stale(
    planned: Mapping[str, Any], described: dict[str, Any], run_folder: Path, began_s: float | None
) -> None:
    """Say `waiting` of a trial whose files are of other settings, or older than the run that will begin it again."""
    folder = run_folder / "trials" / str(planned["id"])
    said = described["state"]
    if said in {"done", "stopped"} and not _is_done_for(planned, folder):
        described |= {"state": "waiting", "reason": f"{said} before with other settings"}
    elif said in {"failed", "interrupted"} and (folder / "state.json").stat().st_mtime < (began_s or 0.0):
        described |= {"state": "waiting", "reason": f"{said} before: {described['reason']}"}


def _is_done_for(planned: Mapping[str, Any], folder: Path) -> bool:
    """Whether a finished trial was finished for what is planned, as far as its record says."""
    try:
        record = read_json(folder / "trial.json")
    except StoreError:
        return True
    return all(record.get(name) == planned[name] for name in _DONE_FOR if name in planned)


def _describe_other_plan(
    run_folder: Path, planned: Sequence[Mapping[str, Any]], *, is_running: bool
) -> Iterator[str]:
    """A line if the folder's latest run has overrides, or other trials than those that are shown."""
    try:
        latest = read_json(run_folder / "plan.json")
    except StoreError:
        return
    stated = " ".join(f"-o {text}" for text in latest.get("overrides") or [])
    if is_running:
        yield f"running now{f', with {stated}' if stated else ''}"
    elif [trial["id"] for trial in latest["trials"]] != [trial["id"] for trial in planned]:
        how = f"with {stated}" if stated else "of another version of the spec"
        yield f"the latest run in this folder is one {how}: `lora-bench status {run_folder}` shows it"


def _mark_untried(tally: SearchTally | None, trials: list[dict[str, Any]]) -> None:
    """Say of candidates that were not begun whether their search is over."""
    for trial in trials:
        if tally is not None and trial["id"] in tally.unbegun:
            trial["reason"] = tally.reason
            trial["state"] = UNTRIED if tally.is_over else trial["state"]


def find_run(target: Path, runs_dir: Path) -> tuple[Path, list[dict[str, Any]], SearchTally | None]:
    """The run folder of a spec or a folder, its planned trials, and how far its search is, if it has one.

    Raises:
        UsageError: neither a spec nor the folder of a run.
    """
    if target.is_dir():
        if not (target / "plan.json").is_file():
            raise UsageError(
                f"{target}: expected the folder of a run, with plan.json in it, such as runs/quickstart"
            )
        found = read_run_plan(target)
        return target.absolute(), list(found["trials"]), tally_planned(target.absolute(), found)
    if not target.exists():
        raise UsageError(f"{target}: does not exist; expected a spec or the folder of a run")
    plan = plan_file(load_spec(target))
    run_folder, optuna = (runs_dir / plan.name).absolute(), plan.spec.search.optuna
    if find_run_began(run_folder) is not None and (run_folder / "plan.json").is_file():
        found = dict(read_json(run_folder / "plan.json"))
        return run_folder, list(found["trials"]), tally_planned(run_folder, found)
    candidates = [trial.id for trial in plan.trials if trial.search is not None]
    tally = tally_search(run_folder, candidates, optuna.n_trials) if optuna is not None else None
    return run_folder, [to_jsonable(trial) for trial in plan.trials], tally


def describe_trial(run_folder: Path, trial_id: str, name: str) -> dict[str, Any]:
    """What the files of a trial say; one that says `running` without a process is `interrupted`."""
    folder = run_folder / "trials" / trial_id
    view = view_trial(name, folder)
    state, reason = view.state, view.reason
    if state == "running" and not is_held(folder):
        state, reason = "interrupted", STOPPED
    return {
        "id": trial_id,
        "name": name,
        "state": state,
        "stage": view.stage or None,
        "steps_done": view.done if view.total is not None else None,
        "steps_total": view.total,
        "note": view.note or None,
        "reason": reason,
    }


def _describe_step(trial: dict[str, Any]) -> str:
    if trial["state"] == "done" or not trial["stage"]:
        return ""
    steps = f" {trial['steps_done']}/{trial['steps_total']}" if trial["steps_total"] else ""
    return f"{trial['stage']}{steps} {trial['note'] or ''}".rstrip()
