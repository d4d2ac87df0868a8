"""`lora-bench report`: render the report of a run again from its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_bench.cli.options import reports_dir_option, run_option, runs_dir_option
from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import EXIT_OK


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench report`."""

    run: Path = run_option()
    runs_dir: Path = runs_dir_option()
    reports_dir: Path = reports_dir_option()


def execute(options: Options) -> int:
    """Render and print the files that were written.

    Raises:
        UsageError: neither the folder of a run nor a spec that has one.
        StoreError: the folder holds no run.
    """
    run = resolve_run(options.run, options.runs_dir)
    from lora_bench.report.render import render_report

    for path in render_report(run.absolute(), options.reports_dir.absolute()):
        print(path)
    return EXIT_OK
