"""`lora-bench status`: the progress of a run, from its files.

While a process works on a run, its plan counts, even if the spec has changed since; otherwise the plan of the spec.
A trial that was done for other settings, or failed before the present run began, is waiting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lora_bench.api import plan_experiment
from lora_bench.cli.options import json_option, run_option, runs_dir_option
from lora_bench.cli.tables import format_table, print_json
from lora_bench.errors import EXIT_INCOMPLETE, EXIT_OK, StoreError, UsageError
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.results.reading import read_record, read_run_plan
from lora_bench.results.run_files import PlannedTrial
from lora_bench.results.search_tally import UNTRIED, SearchTally, tally_plan, tally_planned
from lora_bench.runner.freshness import is_held
from lora_bench.runner.jobs.state import view_trial
from lora_bench.runner.tuning import plan_step
from lora_bench.spec import load_spec
from lora_bench.store import to_jsonable

SCHEMA = 1
_DONE_FOR = ("model", "dataset", "lora", "train", "train_seed", "generation", "prompts", "metrics")
WORDS = {UNTRIED: "not tried"}
STOPPED = "its process has died; resume the run with the same command"


@dataclass(frozen=True)
class TrialStatus:
    """A trial as `status` shows it.

    Attributes:
        steps_done: steps of the stage that are done; None if their number is unknown.
        reason: why it is not done.
    """

    id: str
    name: str
    state: str
    stage: str | None
    steps_done: int | None
    steps_total: int | None
    note: str | None
    reason: str | None


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench status`."""

    target: Path = run_option()
    runs_dir: Path = runs_dir_option()
    json: bool = json_option()


def execute(options: Options) -> int:
    """Print the state of every trial; 0 if all are done, stopped or left out as planned, 3 if not."""
    run_folder, planned, tally = find_run(options.target, options.runs_dir)
    run = RunFolder(run_folder)
    began_s = find_run_began(run_folder)
    trials = [
        _mark_untried(tally, _mark_stale(trial, describe_trial(run.trial(trial.id), trial), run, began_s))
        for trial in planned
    ]
    states = [trial.state for trial in trials]
    n_done, n_stopped, n_untried = (states.count(state) for state in ("done", "stopped", UNTRIED))
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
            "trials": [asdict(trial) for trial in trials],
        }
        print_json(document)
    else:
        rows = [
            (trial.name, WORDS.get(trial.state, trial.state), _describe_step(trial), trial.reason or "")
            for trial in trials
        ]
        print(format_table(("trial", "state", "stage", "reason"), rows))
        stopped = f", {n_stopped} stopped early" if n_stopped else ""
        untried = f", {n_untried} not tried by the search" if n_untried else ""
        print(f"{run_folder.name}: {n_done} of {len(trials)} trials done{stopped}{untried}; {run_folder}")
        for line in _describe_other_plan(run, planned, is_running=began_s is not None):
            print(line)
    return EXIT_OK if complete else EXIT_INCOMPLETE


def find_run_began(run_folder: Path) -> float | None:
    """Return when the process that works on a run began, as a time stamp; None if there is no such process."""
    try:
        began_s = RunFolder(run_folder).holder.stat().st_mtime
    except OSError:
        return None
    return began_s if is_held(run_folder) else None


def _mark_stale(
    planned: PlannedTrial, described: TrialStatus, run: RunFolder, began_s: float | None
) -> TrialStatus:
    """Return `waiting` for a trial whose files are of other settings, or older than the run that will rerun it."""
    folder, said = run.trial(planned.id), described.state
    if said in {"done", "stopped"} and not _is_done_for(planned, folder):
        return replace(described, state="waiting", reason=f"{said} before with other settings")
    if said in {"failed", "interrupted"} and folder.state.stat().st_mtime < (began_s or 0.0):
        return replace(described, state="waiting", reason=f"{said} before: {described.reason}")
    return described


def _is_done_for(planned: PlannedTrial, folder: TrialFolder) -> bool:
    """Return whether a finished trial was finished for what is planned, as far as its record says."""
    try:
        record = read_record(folder.plan, PlannedTrial)
    except StoreError:
        return True
    given = planned.model_fields_set
    return all(getattr(record, name) == getattr(planned, name) for name in _DONE_FOR if name in given)


def _describe_other_plan(
    run: RunFolder, planned: Sequence[PlannedTrial], *, is_running: bool
) -> Iterator[str]:
    """Yield a line if the folder's latest run has overrides, or other trials than those that are shown."""
    try:
        latest = read_run_plan(run.path)
    except StoreError:
        return
    stated = " ".join(f"-o {text}" for text in latest.overrides)
    if is_running:
        yield f"running now{f', with {stated}' if stated else ''}"
    elif [trial.id for trial in latest.trials] != [trial.id for trial in planned]:
        how = f"with {stated}" if stated else "of another version of the spec"
        yield f"the latest run in this folder is one {how}: `lora-bench status {run.path}` shows it"


def _mark_untried(tally: SearchTally | None, trial: TrialStatus) -> TrialStatus:
    """Return a candidate that was not begun with the reason, and as untried if its search is over."""
    if tally is None or trial.id not in tally.unbegun:
        return trial
    return replace(trial, reason=tally.reason, state=UNTRIED if tally.is_over else trial.state)


def find_run(target: Path, runs_dir: Path) -> tuple[Path, Sequence[PlannedTrial], SearchTally | None]:
    """Return the run folder of a spec or a folder, its planned trials, and the progress of its search, if any.

    Raises:
        UsageError: neither a spec nor the folder of a run.
    """
    if target.is_dir():
        if not RunFolder(target).plan.is_file():
            raise UsageError(
                f"{target}: expected the folder of a run, with {RunFolder.plan} in it, such as runs/quickstart"
            )
        found = read_run_plan(target)
        return target.absolute(), found.trials, tally_planned(target.absolute(), found)
    if not target.exists():
        raise UsageError(f"{target}: does not exist; expected a spec or the folder of a run")
    plan = plan_experiment(load_spec(target))
    run_folder = (runs_dir / plan.name).absolute()
    plan = plan_step(plan, run_folder)
    if find_run_began(run_folder) is not None and RunFolder(run_folder).plan.is_file():
        found = read_run_plan(run_folder)
        return run_folder, found.trials, tally_planned(run_folder, found)
    planned = [PlannedTrial.model_validate(to_jsonable(trial)) for trial in plan.trials]
    return run_folder, planned, tally_plan(run_folder, plan)


def describe_trial(folder: TrialFolder, planned: PlannedTrial) -> TrialStatus:
    """Return what the files of a trial say; one that says `running` without a process is `interrupted`."""
    name = planned.name or planned.id
    view = view_trial(name, folder.path)
    state, reason = view.state, view.reason
    if state == "running" and not is_held(folder.path):
        state, reason = "interrupted", STOPPED
    return TrialStatus(
        id=planned.id,
        name=name,
        state=state,
        stage=view.stage or None,
        steps_done=view.done if view.total is not None else None,
        steps_total=view.total,
        note=view.note or None,
        reason=reason,
    )


def _describe_step(trial: TrialStatus) -> str:
    if trial.state == "done" or not trial.stage:
        return ""
    steps = f" {trial.steps_done}/{trial.steps_total}" if trial.steps_total else ""
    return f"{trial.stage}{steps} {trial.note or ''}".rstrip()
