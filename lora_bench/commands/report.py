"""`lora-bench report`: the report of a run again, from its files."""

from __future__ import annotations

import argparse

from lora_bench.errors import EXIT_OK, UsageError


def execute(arguments: argparse.Namespace) -> int:
    """Render and print the files that were written.

    Raises:
        UsageError: the folder does not exist.
    """
    if not arguments.run.is_dir():
        raise UsageError(f"{arguments.run}: expected the folder of a run, such as runs/quickstart")
    from lora_bench.report import render_report

    for path in render_report(arguments.run.absolute(), arguments.reports_dir.absolute()):
        print(path)
    return EXIT_OK
