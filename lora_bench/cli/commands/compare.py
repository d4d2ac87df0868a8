"""`lora-bench compare`: two runs, or two trials, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lora_bench.artifacts import ADAPTER_CONFIG
from lora_bench.cli.options import json_option, option, runs_dir_option
from lora_bench.cli.run_places import resolve_run
from lora_bench.cli.tables import format_table, print_json
from lora_bench.comparison.side_by_side import (
    CellPair,
    Resources,
    Side,
    compare_cells,
    explain_lack,
    find_changes,
    find_warnings,
    list_resources,
    pair_trials,
)
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.report.cells import DESCRIPTIVE
from lora_bench.report.formatting import format_difference, format_interval, format_value, use_plain_signs
from lora_bench.results.gather import gather_results
from lora_bench.results.reading import read_results_file
from lora_bench.results.run_records import RunResults
from lora_bench.spec.words import suggest

SCHEMA = 1
MAX_NAME, MAX_PROMPT = 16, 20  # so that a table fits 100 columns
MAX_CHANGES = 6
_SIDES = ("first", "second")
_FORMS = {"params": "{:,.0f}", "train_s": "{:.0f} s", "total_s": "{:.0f} s", "memory_gib": "{:.2f} GiB"}

Taken = tuple[str, Resources, Resources]
"""Resources of both sides of a pair, by its name."""


def _side_option() -> Path:
    return option(
        metavar="SPEC|RUN_DIR[:TRIAL]", help="a run, its results.json, or one of its trials or adapters"
    )


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench compare`."""

    first: Path = _side_option()
    second: Path = _side_option()
    runs_dir: Path = runs_dir_option()
    json: bool = json_option()


def execute(options: Options) -> int:
    """Print every cell that either side has, then what each trial took.

    Raises:
        UsageError: one of the two is neither a run nor a trial, or one is a run and the other a trial.
    """
    first, second = (read_side(side, options.runs_dir) for side in (options.first, options.second))
    if (first.trial is None) != (second.trial is None):
        raise UsageError(
            f"{first.label} and {second.label}: one is a run and one is a trial; compare two runs, or two trials"
        )
    pairs = pair_trials(first, second)
    cells, untested = compare_cells(pairs, first, second)
    resources = [(name, list_resources(one), list_resources(other)) for name, one, other in pairs]
    warnings = find_warnings(first.results, second.results)
    changes = find_changes(pairs)
    conclusion = _conclude(cells)
    lack = None if conclusion else explain_lack(pairs, untested, first.results.planned.primary_metric)
    if options.json:
        document = {
            "schema": SCHEMA, "first": first.label, "second": second.label, "warnings": warnings,
            "changes": changes, "cells": [cell.list_fields() for cell in cells], "untested": untested,
            "no_verdict": lack,
            "resources": [_list_taken(row) for row in resources],
        }  # fmt: skip
        print_json(document)
        return EXIT_OK
    print(f"A {first.label}\nB {second.label}")
    has_off_genre = any(side.results.planned.off_genre for side in (first, second))
    print(_format_cells(cells, "(genre's prompts)" if has_off_genre else "(all)"))
    if any(cell.test is not None for cell in cells):
        print("a B - A with an interval is corrected for the bias of finite samples; A and B are not")
    if any(side != Resources() for row in resources for side in row[1:]):
        print()
        print(_format_resources(resources))
    for name, listed in changes.items():
        more = f" and {len(listed) - MAX_CHANGES} more" if len(listed) > MAX_CHANGES else ""
        print(f"{name}: {', '.join(listed[:MAX_CHANGES])}{more}")
    unpaired = list(
        dict.fromkeys(cell.trial for cell in cells if cell.test is not None and not cell.test.paired)
    )
    if unpaired:
        print(f"without pairs ({_name_some(unpaired)}): another system's clips have noise of their own")
    for reason, names in untested.items():
        print(f"no interval ({_name_some(names)}): {reason}")
    for warning in warnings:
        print(f"warning: {warning}")
    for line in conclusion or [f"no verdict: {lack}"]:
        print(line)
    return EXIT_OK


def read_side(place: Path, runs_dir: Path) -> Side:
    """Read a run's folder or spec, its `results.json`, the folder of a trial or of its adapter, or `RUN:TRIAL`.

    Raises:
        UsageError: none of these, or the run has no such trial.
    """
    is_adapter = (place / ADAPTER_CONFIG).is_file()
    trial = place.parent if is_adapter else place
    run = TrialFolder(trial.absolute()).run
    if trial.is_dir() and run.trials == trial.absolute().parent and run.plan.is_file():
        return _pick_trial(trial.parent.parent, trial.name)
    if not place.exists() and ":" in place.name:
        path, _, name = place.as_posix().rpartition(":")
        return _pick_trial(resolve_run(Path(path), runs_dir), name)
    if place.suffix == ".json" and place.is_file():
        return Side(read_results_file(place), None, None)
    if is_adapter:
        raise UsageError(
            f"{place}: is an adapter, which has no scores; name it in a spec (`lora: {{path: {place}}}`), run that, "
            "and compare the run or its trial"
        )
    folder = resolve_run(place, runs_dir)
    return Side(read_results(folder), folder, None)


def _pick_trial(run: Path, wanted: str) -> Side:
    results = read_results(run)
    known = {name: trial for trial in results.trials for name in (trial.id, trial.name)}
    if wanted not in known:
        names = [trial.name for trial in results.trials]
        raise UsageError(
            f"{run}: has no trial `{wanted}`{suggest(wanted, known)}; trials are {', '.join(names[:12])}"
        )
    return Side(results, run, known[wanted])


def read_results(run: Path) -> RunResults:
    """Return the results of a run's folder.

    Raises:
        UsageError: it is another folder.
        StoreError: its files are not those of a run.
    """
    if not RunFolder(run).is_run:
        raise UsageError(
            f"{run}: holds no run; expected the folder of a run, such as runs/quickstart, its spec, its results.json, "
            "or a trial as runs/quickstart:r4-attention"
        )
    return gather_results(run)


def _format_cells(cells: Sequence[CellPair], pooled: str) -> str:
    """Format a row per cell; `pooled` names the row of several prompts."""
    is_compared = any(cell.test for cell in cells)
    head = [
        "trial",
        "metric",
        "prompt",
        "A",
        "B",
        "B - A",
        *(["95 % interval", "B is"] if is_compared else []),
    ]
    rows = [
        [
            _shorten(cell.trial, MAX_NAME),
            cell.metric,
            pooled if cell.prompt is None else _shorten(cell.prompt, MAX_PROMPT),
            *(_format_value(value) for value in (cell.first, cell.second)),
            *_format_difference(cell),
        ][: len(head)]
        for cell in cells
    ]
    return format_table(head, rows, right=(3, 4, 5, 6))


def _format_difference(cell: CellPair) -> list[str]:
    if cell.test is None:
        return ["-" if cell.delta is None else use_plain_signs(format_difference(cell.delta)), "-", "-"]
    interval = format_interval(cell.test.ci_low, cell.test.ci_high, signed=True)
    change = format_difference(cell.test.delta, error=cell.test.se)
    return [use_plain_signs(change), use_plain_signs(interval), cell.test.verdict or DESCRIPTIVE]


def _format_value(value: float | None) -> str:
    return "-" if value is None else use_plain_signs(format_value(value))


def _conclude(cells: Sequence[CellPair]) -> list[str]:
    """Return the answer on the primary metric over all prompts, by trial; empty without a verdict."""
    parts: list[str] = []
    for cell in cells:
        test = cell.test
        if test is not None and test.verdict is not None and cell.prompt is None:
            change = format_difference(test.delta, error=test.se)
            interval = format_interval(test.ci_low, test.ci_high, signed=True)
            parts.append(f"{cell.trial}: B is {test.verdict} on {cell.metric} ({change}, 95 % {interval})")
    return [use_plain_signs(part) for part in parts[:MAX_CHANGES]]


def _list_taken(row: Taken) -> Mapping[str, object]:
    """Return a row as JSON: `first_params`, `second_params` and so on."""
    sides = zip(_SIDES, row[1:], strict=True)
    return {
        "trial": row[0],
        **{f"{side}_{name}": value for side, taken in sides for name, value in asdict(taken).items()},
    }


def _format_resources(resources: Sequence[Taken]) -> str:
    head = ["trial", "params A", "B", "training A", "B", "in all A", "B", "memory A", "B"]
    rows = [
        [row[0], *(_format(getattr(side, name), form) for name, form in _FORMS.items() for side in row[1:])]
        for row in resources
    ]
    return format_table(head, rows, right=tuple(range(1, 9)))


def _format(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _name_some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
