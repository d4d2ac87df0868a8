"""`lora-bench clean`: list the unused cache entries of a folder of runs, and remove them with `--yes`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from lora_bench.cli.options import json_option, option, runs_dir_option
from lora_bench.cli.tables import format_table, print_json
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.runner.jobs.cleanup import Findings, find_left_over, group_by_kind, remove_left_over

SCHEMA = 1


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench clean`."""

    runs_dir: Path = runs_dir_option()
    old_trials: bool = option(
        "--old-trials", help="include trials that are no longer in the spec of their run"
    )
    yes: bool = option("--yes", help="remove what is listed")
    json: bool = json_option()


def execute(options: Options) -> int:
    """List or remove unused entries.

    Raises:
        UsageError: the folder does not exist.
        StoreError: a process is working on one of the runs.
    """
    runs_dir = options.runs_dir.absolute()
    if not runs_dir.is_dir():
        raise UsageError(f"{runs_dir}: does not exist; expected a folder of runs, such as runs")
    work = remove_left_over if options.yes else find_left_over
    findings = work(runs_dir, old_trials=options.old_trials)
    if options.json:
        document = {
            "schema": SCHEMA,
            "runs_dir": runs_dir.as_posix(),
            "removed": options.yes,
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
        print(f"{runs_dir}: nothing to remove")
        return EXIT_OK
    rows = [
        (place, str(n), format_bytes(n_bytes), why)
        for place, n, n_bytes, why in group_by_kind(findings.left_over, runs_dir)
    ]
    print(format_table(("where", "items", "size", "reason"), rows, right=(1, 2)))
    n_items = len(findings.left_over)
    total = f"{n_items} item{'s' if n_items > 1 else ''}, {format_bytes(findings.n_bytes)}"
    print(f"{total} removed" if options.yes else f"{total}; nothing was removed; remove them with --yes")
    return EXIT_OK


def _warn_unrecorded(findings: Findings) -> None:
    if findings.unrecorded:
        print(
            f"unused cache entries are unknown: {len(findings.unrecorded)} trials or datasets, such as "
            f"{findings.unrecorded[0]}, were made by a version that did not record the entries that they use; "
            "remove these trials and datasets, or leave the cache as it is",
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
