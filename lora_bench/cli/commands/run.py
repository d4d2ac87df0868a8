"""`lora-bench run`: an experiment from its spec to its report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_bench.cli.inputs import load_plan
from lora_bench.cli.progress_display import open_display
from lora_bench.errors import (
    EXIT_INCOMPLETE,
    InterruptedRunError,
    LoraBenchError,
    SpecError,
    StoreError,
    UsageError,
)
from lora_bench.planning.plan import MANY_TRIALS, ExperimentPlan
from lora_bench.results.search_tally import UNTRIED, describe_rest
from lora_bench.store import read_json

if TYPE_CHECKING:
    from lora_bench.forecast import Prediction


def execute(arguments: argparse.Namespace) -> int:
    """Plan, run what is missing, print where the report is."""
    plan, missing = load_plan(arguments.spec, arguments.overrides)
    if missing:
        raise SpecError(missing)
    executor = choose_executor(arguments.executor, arguments.ray_address)
    if plan.n_to_run > MANY_TRIALS and not arguments.yes:
        raise UsageError(
            f"{arguments.spec}: {plan.n_to_run:,} trials, more than {MANY_TRIALS}; look at them with "
            f"`lora-bench plan {arguments.spec}`, then run with --yes"
        )
    for line in () if arguments.quiet else plan.override_effects:
        print(f"override: {line}", file=sys.stderr)
    runs_dir, reports_dir = arguments.runs_dir.absolute(), arguments.reports_dir.absolute()
    from lora_bench.forecast import keep_outcomes
    from lora_bench.runner.experiment import run_experiment

    predictions = _predict(plan, runs_dir)
    try:
        with open_display(quiet=arguments.quiet) as progress:
            for note in plan.notes:
                progress.log(note)
            code = run_experiment(
                plan,
                runs_dir=runs_dir,
                reports_dir=reports_dir,
                executor=executor,
                ray_address=arguments.ray_address,
                progress=progress,
            )
    except (KeyboardInterrupt, InterruptedRunError) as error:
        _report_interrupted(plan, runs_dir, reports_dir)
        message = str(error) or "stopped; what is finished is kept, run the same command again to go on"
        raise InterruptedRunError(message) from error
    with suppress(StoreError):  # the run is complete without a note of how good its forecast was
        keep_outcomes(runs_dir, runs_dir / plan.name, predictions)
    _print_report(reports_dir / plan.report_name)
    if code == EXIT_INCOMPLETE:
        for line in describe_gaps(runs_dir / plan.name):
            print(line, file=sys.stderr)
    return code


def _predict(plan: ExperimentPlan, runs_dir: Path) -> dict[str, Prediction]:
    """Forecasts of the trials that are not finished, by id."""
    from lora_bench.forecast import Forecaster, read_history
    from lora_bench.runner.freshness import is_finished

    forecaster = Forecaster(read_history(runs_dir), has_gpu=plan.spec.resources.gpu > 0)
    folders = {trial.id: runs_dir / plan.name / "trials" / trial.id for trial in plan.trials}
    return {
        trial.id: forecaster.predict(trial, folders[trial.id])
        for trial in plan.trials
        if not is_finished(trial, folders[trial.id])
    }


def choose_executor(stated: str | None, ray_address: str | None) -> str:
    """`local` unless something asks for Ray.

    Raises:
        UsageError: a cluster is named, and the executor that does not use one.
    """
    if ray_address is not None and stated == "local":
        raise UsageError(
            "--ray-address joins a Ray cluster, --executor local does not use one; leave one of them out"
        )
    return stated or ("ray" if ray_address is not None else "local")


def _report_interrupted(plan: ExperimentPlan, runs_dir: Path, reports_dir: Path) -> None:
    """The report of what there is; an interrupted run may have none yet."""
    from lora_bench.report import render_report

    try:
        render_report(runs_dir / plan.name, reports_dir)
    except (LoraBenchError, OSError):
        return
    _print_report(reports_dir / plan.report_name)


def _print_report(folder: Path) -> None:
    for name in ("report.md", "report.html"):
        if (folder / name).is_file():
            print(f"report: {show_path(folder / name)}")


def show_path(path: Path) -> str:
    """Relative to the current folder if it lies below it."""
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else str(path)


def describe_gaps(run_folder: Path) -> list[str]:
    """One line per trial that is not done, and per trial with cells that are missing; one for a search."""
    results: Mapping[str, Any] = read_json(run_folder / "results.json")
    lines: list[str] = []
    if rest := describe_rest(results.get("search")):
        lines.append(f"incomplete: {rest}")
    for trial in results["trials"]:
        if trial["state"] == UNTRIED:
            continue
        missing = [cell for cell in trial.get("unscored") or [] if cell.get("cause") != "stated"]
        if trial["state"] != "done":
            reason = f": {trial['reason']}" if trial.get("reason") else ""
            lines.append(f"incomplete: trial {trial['name']} is {trial['state']}{reason}")
        elif missing:
            lines.append(f"incomplete: trial {trial['name']} has {len(missing)} cells without a score")
    return lines
