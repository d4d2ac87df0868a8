"""`lora-bench index`: write an overview page and a leaderboard of a folder of runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from lora_bench.cli.options import option, reports_dir_option, runs_dir_option
from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.planning.run_folder import RunFolder


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench index`."""

    runs: Path = option(metavar="RUNS_DIR|SPEC", help="a folder of runs, or a spec that has a run in one")
    runs_dir: Path = runs_dir_option()
    reports_dir: Path = reports_dir_option()


def execute(options: Options) -> int:
    """Render and print the files that were written.

    Raises:
        UsageError: the folder does not exist.
        StoreError: it holds no run.
    """
    runs: Path = options.runs
    if runs.is_file() or RunFolder(runs).plan.is_file():  # a spec, or one run: the folder around it
        runs = resolve_run(runs, options.runs_dir).absolute().parent
    if not runs.is_dir():
        raise UsageError(f"{runs}: does not exist; expected a folder of runs, such as runs")
    from lora_bench.report.leaderboard.overview import render_overview

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    for path in render_overview(runs.absolute(), options.reports_dir.absolute(), tell):
        print(path)
    return EXIT_OK
