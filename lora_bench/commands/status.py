"""`lora-bench status`: how far a run is, from its files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lora_bench.commands.reasons import is_held
from lora_bench.commands.tables import format_table
from lora_bench.errors import EXIT_INCOMPLETE, EXIT_OK, UsageError
from lora_bench.plan import plan_file
from lora_bench.runner.state import view_trial
from lora_bench.spec import load_spec
from lora_bench.store import read_json

SCHEMA = 1
STOPPED = "stopped without a word; the same `run` goes on with it"


def execute(arguments: argparse.Namespace) -> int:
    """Print the state of every trial; 0 if all are done or were stopped as planned, 3 if not."""
    run_folder, planned = find_run(arguments.target, arguments.runs_dir)
    trials = [describe_trial(run_folder, str(trial["id"]), str(trial["name"])) for trial in planned]
    n_done = sum(trial["state"] == "done" for trial in trials)
    n_stopped = sum(trial["state"] == "stopped" for trial in trials)
    complete = n_done + n_stopped == len(trials)
    if arguments.json:
        document = {
            "schema": SCHEMA,
            "name": run_folder.name,
            "run_folder": run_folder.as_posix(),
            "complete": complete,
            "n_done": n_done,
            "n_stopped_early": n_stopped,
            "trials": trials,
        }
        print(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        rows = [
            (trial["name"], trial["state"], _describe_step(trial), trial["reason"] or "") for trial in trials
        ]
        print(format_table(("trial", "state", "stage", "reason"), rows))
        stopped = f", {n_stopped} stopped early" if n_stopped else ""
        print(f"{run_folder.name}: {n_done} of {len(trials)} trials done{stopped}; {run_folder}")
    return EXIT_OK if complete else EXIT_INCOMPLETE


def find_run(target: Path, runs_dir: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The run folder of a spec or a folder, and its planned trials.

    Raises:
        UsageError: neither a spec nor the folder of a run.
    """
    if target.is_dir():
        if not (target / "plan.json").is_file():
            raise UsageError(
                f"{target}: expected the folder of a run, with plan.json in it, such as runs/quickstart"
            )
        return target.absolute(), list(read_json(target / "plan.json")["trials"])
    if not target.exists():
        raise UsageError(f"{target}: does not exist; expected a spec or the folder of a run")
    plan = plan_file(load_spec(target))
    return (runs_dir / plan.name).absolute(), [{"id": trial.id, "name": trial.name} for trial in plan.trials]


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
