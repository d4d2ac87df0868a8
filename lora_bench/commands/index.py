"""`lora-bench index`: an overview page and a leaderboard over a folder of runs."""

from __future__ import annotations

import argparse

from lora_bench.errors import EXIT_OK, UsageError


def execute(arguments: argparse.Namespace) -> int:
    """Render and print the files that were written.

    Raises:
        UsageError: the folder does not exist.
        StoreError: it holds no run.
    """
    if not arguments.runs.is_dir():
        raise UsageError(f"{arguments.runs}: expected a folder of runs, such as runs")
    from lora_bench.report.overview import render_overview

    for path in render_overview(arguments.runs.absolute(), arguments.reports_dir.absolute()):
        print(path)
    return EXIT_OK
