"""`lora-bench compare`: two runs, or two trials, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from lora_bench.cli import shared_options
from lora_bench.cli.run_places import resolve_run
from lora_bench.cli.tables import format_number, format_table, print_json
from lora_bench.comparison.across_runs import compare_pair, find_trial_files
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.results.gather import gather_results
from lora_bench.results.reading import read_results_file
from lora_bench.results.records import Comparison, Settings
from lora_bench.results.run_records import RunResults, TrialResult
from lora_bench.results.settings import read_section
from lora_bench.spec.configurations import drop_effect_free, find_differences
from lora_bench.spec.words import suggest
from lora_bench.store import to_jsonable

SCHEMA = 1
MAX_PROMPT = 40
MAX_CHANGES = 6
# A difference in any of these makes two scores answers to different questions.
_PAIRED_BY = ("dataset", "generation", "prompts")
_TEST_FIELDS = {"delta", "ci_low", "ci_high", "p_value", "p_holm", "verdict", "n_pairs"}

Key = tuple[str, str | None]


@dataclass(frozen=True)
class Side:
    """A run, or one trial of it.

    Attributes:
        folder: of the run; None for a `results.json` without one.
        trial: the trial that was asked for; None for the whole run.
    """

    results: RunResults
    folder: Path | None
    trial: TrialResult | None

    @property
    def label(self) -> str:
        """Name of the run, with the trial's."""
        name = self.results.name
        return name if self.trial is None else f"{name}:{self.trial.name}"


Pair = tuple[str, TrialResult | None, TrialResult | None]


@dataclass(frozen=True)
class CellPair:
    """One cell of both sides, and the paired test of B against A; what is absent is None."""

    trial: str
    metric: str
    prompt: str | None
    first: float | None
    second: float | None
    delta: float | None
    test: Comparison | None


@dataclass(frozen=True)
class ResourcePair:
    """Resources of a trial, both sides; None where it is unknown."""

    trial: str
    first_params: int | None
    first_train_s: float | None
    first_total_s: float | None
    first_memory_gib: float | None
    second_params: int | None
    second_train_s: float | None
    second_total_s: float | None
    second_memory_gib: float | None

    @property
    def is_known(self) -> bool:
        """Return whether anything is known."""
        return any(value is not None for name, value in vars(self).items() if name != "trial")


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench compare`."""

    first: Path
    second: Path
    runs_dir: Path
    json: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of the verb."""
    for name in ("first", "second"):
        parser.add_argument(
            name,
            type=Path,
            metavar="SPEC|RUN_DIR[:TRIAL]",
            help="a run, its results.json, or one of its trials",
        )
    shared_options.add_runs_dir(parser)
    shared_options.add_json(parser)


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
    resources = [describe_resources(*pair) for pair in pairs]
    warnings = find_warnings(first.results, second.results)
    changes = find_changes(pairs)
    if options.json:
        document = {
            "schema": SCHEMA, "first": first.label, "second": second.label, "warnings": warnings,
            "changes": changes, "cells": list(map(_list_fields, cells)), "untested": untested, "resources": resources,
        }  # fmt: skip
        print_json(to_jsonable(document))
        return EXIT_OK
    print(_format_cells(cells, first.label, second.label))
    if any(row.is_known for row in resources):
        print()
        print(_format_resources(resources))
    for name, listed in changes.items():
        more = f" and {len(listed) - MAX_CHANGES} more" if len(listed) > MAX_CHANGES else ""
        print(f"{name}: {', '.join(listed[:MAX_CHANGES])}{more}")
    for reason, names in untested.items():
        print(f"not tested in pairs ({_name_some(names)}): {reason}")
    for warning in warnings:
        print(f"warning: {warning}")
    return EXIT_OK


def read_side(place: Path, runs_dir: Path) -> Side:
    """Read a run's folder or spec, its `results.json`, a trial's folder, or `RUN:TRIAL`.

    Raises:
        UsageError: none of these, or the run has no such trial.
    """
    run = TrialFolder(place.absolute()).run
    if place.is_dir() and run.trials == place.absolute().parent and run.plan.is_file():
        return _pick_trial(place.parent.parent, place.name)
    if not place.exists() and ":" in place.name:
        run, _, name = place.as_posix().rpartition(":")
        return _pick_trial(resolve_run(Path(run), runs_dir), name)
    if place.suffix == ".json" and place.is_file():
        return Side(read_results_file(place), None, None)
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


def pair_trials(first: Side, second: Side) -> list[Pair]:
    """Return trials that belong together: those asked for, else those of one name, in the first's order."""
    if first.trial is not None and second.trial is not None:
        names = dict.fromkeys((first.trial.name, second.trial.name))
        return [(" / ".join(names), first.trial, second.trial)]
    one, other = ({trial.name: trial for trial in side.results.trials} for side in (first, second))
    return [(name, one.get(name), other.get(name)) for name in dict.fromkeys((*one, *other))]


def compare_cells(
    pairs: Sequence[Pair], first: Side, second: Side
) -> tuple[list[CellPair], dict[str, list[str]]]:
    """Return every cell of either side, and why trials were not tested."""
    cells: list[CellPair] = []
    untested: dict[str, list[str]] = {}
    for name, one, other in pairs:
        values, others = _index_scores(one), _index_scores(other)
        tests: Mapping[Key, Comparison] = {}
        if one is not None and other is not None:
            files = find_trial_files(first.folder, one), find_trial_files(second.folder, other)
            metrics = list(dict.fromkeys(metric for metric, _ in values if (metric, None) in others))
            tests, reasons = compare_pair(*files, metrics)
            for reason in reasons:
                untested.setdefault(reason, []).append(name)
        for key in dict.fromkeys((*values, *others)):
            a, b = values.get(key), others.get(key)
            delta = b - a if a is not None and b is not None else None
            cells.append(CellPair(name, *key, a, b, delta, tests.get(key)))
    return cells, untested


def _index_scores(trial: TrialResult | None) -> dict[Key, float]:
    return {(s.metric, s.prompt): s.value for s in (trial.scores if trial is not None else ())}


def _list_fields(cell: CellPair) -> Mapping[str, object]:
    """Return a cell as JSON; the difference of its test is corrected for the bias of finite samples."""
    test = None if cell.test is None else cell.test.model_dump(include=_TEST_FIELDS)
    return {**vars(cell), "test": test}


def describe_resources(name: str, first: TrialResult | None, second: TrialResult | None) -> ResourcePair:
    """Return what a trial took, both sides."""
    return ResourcePair(name, *_list_resources(first), *_list_resources(second))


def _list_resources(
    trial: TrialResult | None,
) -> tuple[int | None, float | None, float | None, float | None]:
    if trial is None:
        return None, None, None, None
    return trial.trainable_params, trial.wall_s.get("train"), trial.total_s, trial.peak_memory_gib


def find_warnings(first: RunResults, second: RunResults) -> list[str]:
    """Return what makes the columns answers to different questions."""
    warnings: list[str] = []
    one, other = (_drop_counts(results.spec) for results in (first, second))
    for name in _PAIRED_BY:
        if one.get(name) != other.get(name):
            fields = find_differences({name: one.get(name)}, {name: other.get(name)})
            warnings.append(f"the runs differ in {', '.join(fields)}; their scores are not paired")
    for label, results in (("A", first), ("B", second)):
        if not results.complete:
            warnings.append(f"{label} ({results.name}) is incomplete")
    return warnings


def _drop_counts(spec: Settings) -> Settings:
    """Return a spec without the number of clips and the batch size, which do not decide if clips are pairs."""
    generation = dict(read_section(spec, "generation"))
    return {**spec, **drop_effect_free({"generation": generation})}


def find_changes(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Return settings in which the two sides of a pair differ: `lora.rank 8 -> 16`."""
    found: dict[str, list[str]] = {}
    for name, first, second in pairs:
        if first is None or second is None:
            continue
        one, other = (
            {"lora": dict(trial.lora or {}), "train": dict(trial.train or {})} for trial in (first, second)
        )
        changes = [
            f"{field} {_look_up(one, field)} -> {_look_up(other, field)}"
            for field in find_differences(one, other)
        ]
        if changes:
            found[name] = changes
    return found


def _look_up(settings: Settings, dotted: str) -> JsonValue:
    *sections, name = dotted.split(".")
    return read_section(settings, *sections).get(name)


def _format_cells(cells: Sequence[CellPair], first: str, second: str) -> str:
    head = ["trial", "metric", "prompt", f"A {first}", f"B {second}", "B - A"]
    is_tested = any(cell.test for cell in cells)
    if is_tested:
        head += ["corrected", "95 % interval", "p (Holm)", "B is"]
    rows: list[list[str]] = []
    for cell in cells:
        numbers = [format_number(value) for value in (cell.first, cell.second, cell.delta)]
        row = [cell.trial, cell.metric, _shorten(cell.prompt), *numbers]
        rows.append(row + (_format_test(cell.test) if is_tested else []))
    return format_table(head, rows, right=(3, 4, 5, 6, 7, 8))


def _format_test(test: Comparison | None) -> list[str]:
    if test is None:
        return ["-", "-", "-", "not tested"]
    low, high = test.ci_low, test.ci_high
    interval = "-" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
    return [f"{test.delta:+.4f}", interval, _format(test.p_holm, "{:.3f}"), test.verdict or "-"]


def _format_resources(resources: Sequence[ResourcePair]) -> str:
    head = ["trial", "params A", "B", "training A", "B", "in all A", "B", "memory A", "B"]
    rows = [
        [
            row.trial,
            _format(row.first_params, "{:,.0f}"),
            _format(row.second_params, "{:,.0f}"),
            _format(row.first_train_s, "{:.0f} s"),
            _format(row.second_train_s, "{:.0f} s"),
            _format(row.first_total_s, "{:.0f} s"),
            _format(row.second_total_s, "{:.0f} s"),
            _format(row.first_memory_gib, "{:.2f} GiB"),
            _format(row.second_memory_gib, "{:.2f} GiB"),
        ]
        for row in resources
    ]
    return format_table(head, rows, right=tuple(range(1, 9)))


def _format(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _name_some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _shorten(prompt: str | None) -> str:
    if prompt is None:
        return "(all)"
    return prompt if len(prompt) <= MAX_PROMPT else f"{prompt[: MAX_PROMPT - 3]}..."
