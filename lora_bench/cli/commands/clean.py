"""`lora-bench clean`: show what of a folder of runs nobody needs, and with `--yes` remove it."""

from __future__ import annotations

import argparse
import sys

from lora_bench.cli.tables import format_table, print_json
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.runner.jobs.cleanup import Findings, find_left_over, group_by_kind, remove_left_over

SCHEMA = 1


def execute(arguments: argparse.Namespace) -> int:
    """Show or remove.

    Raises:
        UsageError: the folder does not exist.
        StoreError: a process works on one of the runs.
    """
    runs_dir = arguments.runs_dir.absolute()
    if not runs_dir.is_dir():
        raise UsageError(f"{runs_dir}: does not exist; expected a folder of runs, such as runs")
    work = remove_left_over if arguments.yes else find_left_over
    findings = work(runs_dir, old_trials=arguments.old_trials)
    if arguments.json:
        document = {
            "schema": SCHEMA,
            "runs_dir": runs_dir.as_posix(),
            "removed": arguments.yes,
            "n_bytes": findings.n_bytes,
            "left_over": [
                {"path": item.path.as_posix(), "n_bytes": item.n_bytes, "why": item.why}
                for item in findings.left_over
            ],
            "unrecorded": [path.as_posix() for path in findings.unrecorded],
        }
        print_json(document)
        return EXIT_OK
    _warn_unrecorded(findings)
    if not findings.left_over:
        print(f"{runs_dir}: there is nothing that nobody needs")
        return EXIT_OK
    rows = [
        (place, str(n), format_bytes(n_bytes), why)
        for place, n, n_bytes, why in group_by_kind(findings.left_over, runs_dir)
    ]
    print(format_table(("where", "items", "size", "why it may go"), rows, right=(1, 2)))
    total = f"{len(findings.left_over)} items, {format_bytes(findings.n_bytes)}"
    print(f"{total} removed" if arguments.yes else f"{total}; nothing was removed, --yes removes them")
    return EXIT_OK


def _warn_unrecorded(findings: Findings) -> None:
    if findings.unrecorded:
        print(
            f"nothing of the cache is offered: {len(findings.unrecorded)} trials or datasets, the first is "
            f"{findings.unrecorded[0]}, were made by a version that kept no record of what they need of it; "
            "remove them, or leave the cache as it is",
            file=sys.stderr,
        )


def format_bytes(n_bytes: int) -> str:
    """`312 B`, `4.0 KiB`, `1.2 GiB`."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
