"""`lora-bench run`: run an experiment, and print where its report is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench import api
from lora_bench.cli.inputs import load_plan
from lora_bench.cli.options import (
    option,
    overrides_option,
    quiet_option,
    reports_dir_option,
    runs_dir_option,
    spec_option,
)
from lora_bench.cli.progress_display import open_display
from lora_bench.cli.tables import format_table
from lora_bench.errors import EXIT_INCOMPLETE, EXIT_OK, InterruptedRunError, SpecError, UsageError
from lora_bench.planning.plan import MANY_TRIALS
from lora_bench.planning.run_folder import ReportFolder, RunFolder
from lora_bench.results.gather import list_unsettled
from lora_bench.results.reading import read_results_file
from lora_bench.results.search_tally import UNTRIED, describe_rest
from lora_bench.results.trial_states import explain_state


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench run`."""

    spec: Path = spec_option()
    overrides: Sequence[str] = overrides_option()
    runs_dir: Path = runs_dir_option()
    reports_dir: Path = reports_dir_option()
    executor: str | None = option(
        "--executor",
        choices=("local", "ray"),
        help="run one trial at a time, or several in parallel with Ray Tune; default: local",
    )
    ray_address: str | None = option(
        "--ray-address", metavar="HOST:PORT", help="join this Ray cluster (implies --executor ray)"
    )
    yes: bool = option("--yes", help="run a plan of many trials without confirmation")
    quiet: bool = quiet_option()


def execute(options: Options) -> int:
    """Run the unfinished trials, and print where the report is."""
    plan, missing = load_plan(options.spec, options.overrides)
    if missing:
        raise SpecError(missing)
    if plan.n_to_run > MANY_TRIALS and not options.yes:
        raise UsageError(
            f"{options.spec}: {plan.n_to_run:,} trials, more than {MANY_TRIALS}; review them with "
            f"`lora-bench plan {options.spec}`, then run with --yes"
        )
    for line in () if options.quiet else plan.override_effects:
        print(f"override: {line}", file=sys.stderr)
    runs_dir, reports_dir = options.runs_dir.absolute(), options.reports_dir.absolute()
    try:
        with open_display(quiet=options.quiet) as progress:
            for note in plan.notes:
                progress.log(note)
            outcome = api.run_experiment(
                plan,
                runs_dir=runs_dir,
                reports_dir=reports_dir,
                executor=options.executor,
                ray_address=options.ray_address,
                progress=progress,
            )
    except (KeyboardInterrupt, InterruptedRunError) as error:
        _print_report(reports_dir / plan.report_name)
        message = str(error) or "stopped; finished work is kept; resume the run with the same command"
        raise InterruptedRunError(message) from error
    print_answer(outcome.run_folder)
    _print_report(outcome.report.parent)
    if outcome.is_complete:
        return EXIT_OK
    for line in describe_gaps(outcome.run_folder):
        print(line, file=sys.stderr)
    return EXIT_INCOMPLETE


def print_answer(run_folder: Path) -> None:
    """Print the headline and a row per configuration, as the report has them; nothing before there is an answer."""
    from lora_bench.report.answer import Answer
    from lora_bench.report.answer_lines import describe_levels
    from lora_bench.report.formatting import use_plain_signs
    from lora_bench.report.sections.answer import build_answer_table
    from lora_bench.report.view import RunView
    from lora_bench.report.writers.document import write_plain

    answer = Answer(RunView(read_results_file(RunFolder(run_folder).results), run_folder))
    if answer.is_zero_shot_only:
        print(use_plain_signs(answer.headline))
        print(use_plain_signs(describe_levels(answer)))
    if answer.compared:
        print(use_plain_signs(answer.headline))
        table = build_answer_table(answer)
        rows = [[use_plain_signs(write_plain(cell.text)) for cell in row] for row in table.rows]
        numeric = [place for place, column in enumerate(table.columns) if column.is_numeric]
        print(format_table([write_plain(column.header) for column in table.columns], rows, right=numeric))


def _print_report(folder: Path) -> None:
    report = ReportFolder(folder)
    for path in (report.markdown, report.page):
        if path.is_file():
            print(f"report: {show_path(path)}")


def show_path(path: Path) -> str:
    """Return a path relative to the current folder if it is inside."""
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else str(path)


def describe_gaps(run_folder: Path) -> list[str]:
    """Return a line for an unfinished search, for each trial that is not done, and for each one that lacks scores."""
    results = read_results_file(RunFolder(run_folder).results)
    lines: list[str] = []
    if rest := describe_rest(results.search):
        lines.append(f"incomplete: {rest}")
    lines += [
        f"incomplete: {name} is not compared, because every attempt of `tune` failed"
        for name in list_unsettled(results.tuning)
    ]
    for trial in results.trials:
        if trial.state == UNTRIED:
            continue
        missing = [cell for cell in trial.unscored if cell.cause != "stated"]
        if trial.state != "done":
            lines.append(f"incomplete: trial {trial.name}: {explain_state(trial)}")
        elif missing:
            lines.append(
                f"incomplete: trial {trial.name} lacks {len(missing)} score{'s' if len(missing) > 1 else ''}"
            )
    return lines
