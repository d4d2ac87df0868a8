"""Options that several verbs share."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_spec(parser: argparse.ArgumentParser) -> None:
    """Add SPEC and its overrides."""
    parser.add_argument(
        "spec",
        type=Path,
        metavar="SPEC",
        help="a YAML file, or the name of a shipped spec, such as quickstart",
    )
    parser.add_argument(
        "-o", "--override", action="append", default=[], dest="overrides", metavar="KEY=VALUE",
        help="set a field in every trial, such as lora.rank=16, even where a variant sets it; can be repeated; an "
        "override that changes nothing, or that sets an axis of the grid, is an error",
    )  # fmt: skip


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add RUN, given by its spec or its folder."""
    parser.add_argument(
        "run", type=Path, metavar="SPEC|RUN_DIR", help="a run, given by its spec or its folder"
    )
    add_runs_dir(parser)


def add_trial(parser: argparse.ArgumentParser) -> None:
    """Add the choice of one trained trial of a run."""
    parser.add_argument(
        "--trial", default="best", metavar="NAME", help="name or id of a trained trial; default: best"
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="metric that decides which trial is best; default: the run's first"
    )


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """Add the folder of runs."""
    parser.add_argument(
        "--runs-dir",
        type=_read_folder,
        default=Path("runs"),
        metavar="DIR",
        help="folder of runs; default: runs",
    )


def add_reports_dir(parser: argparse.ArgumentParser) -> None:
    """Add the folder of reports."""
    parser.add_argument(
        "--reports-dir",
        type=_read_folder,
        default=Path("reports"),
        metavar="DIR",
        help="folder of reports; default: reports",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add machine-readable output."""
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add silence."""
    parser.add_argument("--quiet", action="store_true", help="do not print progress")


def _read_folder(text: str) -> Path:
    """Return a folder of this machine's file systems.

    Raises:
        argparse.ArgumentTypeError: a URL, which would become a folder named after its scheme.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text!r} is a URL; expected a folder, because locks and states are files that are renamed in place; on "
            "a cluster, use a folder that every machine mounts under the same path"
        )
    return Path(text)
