"""`lora-bench index`: an overview page and a leaderboard over a folder of runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import EXIT_OK, UsageError


def execute(arguments: argparse.Namespace) -> int:
    """Render and print the files that were written.

    Raises:
        UsageError: the folder does not exist.
        StoreError: it holds no run.
    """
    runs: Path = arguments.runs
    if runs.is_file() or (runs / "plan.json").is_file():  # a spec, or one run: the folder that it lies in
        runs = resolve_run(runs, arguments.runs_dir).absolute().parent
    if not runs.is_dir():
        raise UsageError(f"{runs}: does not exist; expected a folder of runs, such as runs")
    from lora_bench.report.leaderboard.overview import render_overview

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    for path in render_overview(runs.absolute(), arguments.reports_dir.absolute(), tell):
        print(path)
    return EXIT_OK
