"""Options of the verbs: each is declared once, as a field of its verb's `Options` record."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import field, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints


def option(*names: str, **settings: Any) -> Any:
    """Declare an option of a verb.

    Args:
        names: such as `--to`; none for an argument that is given by its place.
        settings: of `argparse.ArgumentParser.add_argument`, as far as the type of the field does not say them.
    """
    return field(metadata={"names": names, "settings": settings})


def add_options(parser: argparse.ArgumentParser, record: type) -> None:
    """Add the fields of an `Options` record to the parser of its verb.

    A bool is an option without a value; an option whose field has neither a default nor None is required.
    """
    types = get_type_hints(record)
    for each in fields(record):
        names: tuple[str, ...] = each.metadata["names"]
        settings: dict[str, Any] = dict(each.metadata["settings"])
        kinds = (types[each.name], *get_args(types[each.name]))
        if bool in kinds:
            settings = {"action": "store_true", **settings}
        elif reader := next((kind for kind in kinds if kind in {Path, int, float}), None):
            settings = {"type": reader, **settings}
        if names:
            is_required = not {bool, NoneType}.intersection(kinds) and "default" not in settings
            settings |= {"dest": each.name, "required": is_required}
        parser.add_argument(*(names or (each.name,)), **settings)


def spec_option() -> Path:
    """Declare SPEC."""
    return option(metavar="SPEC", help="a YAML file, or the name of a shipped spec, such as quickstart")


def overrides_option() -> Sequence[str]:
    """Declare the overrides of a spec."""
    return option(
        "-o", "--override", action="append", default=[], metavar="KEY=VALUE",
        help="set a field in every trial, such as lora.rank=16, even where a variant sets it; can be repeated; an "
        "override that changes nothing, or that sets an axis of the grid, is an error",
    )  # fmt: skip


def run_option() -> Path:
    """Declare a run, given by its spec or its folder."""
    return option(metavar="SPEC|RUN_DIR", help="a run, given by its spec or its folder")


def trial_option() -> str:
    """Declare the choice of one trained trial of a run."""
    return option(
        "--trial", default="best", metavar="NAME", help="name or id of a trained trial; default: best"
    )


def metric_option() -> str | None:
    """Declare the metric by which the best trial is chosen."""
    text = "metric that decides which trial is best; default: the run's first"
    return option("--metric", metavar="NAME", help=text)


def folder_option(name: str, default: str, what: str) -> Path:
    """Declare a folder that is made if it does not exist."""
    text = f"folder of {what}; default: {default}"
    return option(name, type=_read_folder, default=Path(default), metavar="DIR", help=text)


def runs_dir_option() -> Path:
    """Declare the folder of runs."""
    return folder_option("--runs-dir", "runs", "runs")


def reports_dir_option() -> Path:
    """Declare the folder of reports."""
    return folder_option("--reports-dir", "reports", "reports")


def json_option() -> bool:
    """Declare machine-readable output."""
    return option("--json", help="print JSON on stdout")


def quiet_option() -> bool:
    """Declare silence."""
    return option("--quiet", help="do not print progress")


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
