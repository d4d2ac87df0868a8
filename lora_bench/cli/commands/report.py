"""`lora-bench report`: the report of a run again, from its files."""

from __future__ import annotations

import argparse

from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import EXIT_OK


def execute(arguments: argparse.Namespace) -> int:
    """Render and print the files that were written.

    Raises:
        UsageError: neither the folder of a run nor a spec that has one.
        StoreError: the folder holds no run.
    """
    run = resolve_run(arguments.run, arguments.runs_dir)
    from lora_bench.report import render_report

    for path in render_report(run.absolute(), arguments.reports_dir.absolute()):
        print(path)
    return EXIT_OK
