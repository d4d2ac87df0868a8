"""`lora-bench status`: how far a run is, from its files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lora_bench.commands.reasons import is_held
from lora_bench.commands.tables import format_table, print_json
from lora_bench.errors import EXIT_INCOMPLETE, EXIT_OK, UsageError
from lora_bench.plan import plan_file
from lora_bench.runner.state import view_trial
from lora_bench.search_records import UNTRIED, SearchTally, tally_planned, tally_search
from lora_bench.spec import load_spec
from lora_bench.store import read_json

SCHEMA = 1
WORDS = {UNTRIED: "not tried"}
STOPPED = "stopped without a word; the same `run` goes on with it"


def execute(arguments: argparse.Namespace) -> int:
    """Print the state of every trial; 0 if all are done, stopped or left out as planned, 3 if not."""
    run_folder, planned, tally = find_run(arguments.target, arguments.runs_dir)
    trials = [describe_trial(run_folder, str(trial["id"]), str(trial["name"])) for trial in planned]
    _mark_untried(tally, trials)
    n_done = sum(trial["state"] == "done" for trial in trials)
    n_stopped = sum(trial["state"] == "stopped" for trial in trials)
    n_untried = sum(trial["state"] == UNTRIED for trial in trials)
    complete = n_done + n_stopped + n_untried == len(trials)
    if arguments.json:
        document = {
            "schema": SCHEMA,
            "name": run_folder.name,
            "run_folder": run_folder.as_posix(),
            "complete": complete,
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
    return EXIT_OK if complete else EXIT_INCOMPLETE


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
        found = dict(read_json(target / "plan.json"))
        return target.absolute(), list(found["trials"]), tally_planned(target.absolute(), found)
    if not target.exists():
        raise UsageError(f"{target}: does not exist; expected a spec or the folder of a run")
    plan = plan_file(load_spec(target))
    run_folder, optuna = (runs_dir / plan.name).absolute(), plan.spec.search.optuna
    candidates = [trial.id for trial in plan.trials if trial.search is not None]
    tally = tally_search(run_folder, candidates, optuna.n_trials) if optuna is not None else None
    return run_folder, [{"id": trial.id, "name": trial.name} for trial in plan.trials], tally


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
