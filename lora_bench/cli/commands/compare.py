"""`lora-bench compare`: two runs, or two trials, side by side."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_bench.cli import shared_options
from lora_bench.cli.run_places import RUN_FILES, resolve_run
from lora_bench.cli.tables import format_number, format_table, print_json
from lora_bench.comparison.across_runs import compare_pair, find_trial_files
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.results.gather import gather_results
from lora_bench.results.shape import read_results_file
from lora_bench.spec.configurations import drop_effect_free, find_differences
from lora_bench.spec.words import suggest

if TYPE_CHECKING:
    from lora_bench.comparison.paired_test import Comparison

SCHEMA = 1
MAX_PROMPT = 40
MAX_CHANGES = 6
# A difference in any of these makes two scores answers to different questions.
_PAIRED_BY = ("dataset", "generation", "prompts")
_SETTINGS = ("lora", "train")

Json = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """A run, or one trial of it.

    Attributes:
        folder: of the run; None for a `results.json` without one.
        trial: the trial that was asked for; None for the whole run.
    """

    results: Json
    folder: Path | None
    trial: Json | None

    @property
    def label(self) -> str:
        """The run's name, with the trial's."""
        name = str(self.results["name"])
        return name if self.trial is None else f"{name}:{self.trial['name']}"


Pair = tuple[str, Json | None, Json | None]


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
            "changes": changes, "cells": cells, "untested": untested, "resources": resources,
        }  # fmt: skip
        print_json(document)
        return EXIT_OK
    print(_format_cells(cells, first.label, second.label))
    if any(row[name] is not None for row in resources for name in row if name != "trial"):
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
    """A run's folder or spec, its `results.json`, a trial's folder, or `RUN:TRIAL`.

    Raises:
        UsageError: none of these, or the run has no such trial.
    """
    if place.is_dir() and place.parent.name == "trials" and (place.parent.parent / "plan.json").is_file():
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
    known = {
        str(trial[key]): trial for trial in results["trials"] for key in ("id", "name") if trial.get(key)
    }
    if wanted not in known:
        names = [str(trial["name"]) for trial in results["trials"]]
        raise UsageError(
            f"{run}: has no trial `{wanted}`{suggest(wanted, known)}; trials are {', '.join(names[:12])}"
        )
    return Side(results, run, known[wanted])


def read_results(run: Path) -> Json:
    """The results of a run's folder.

    Raises:
        UsageError: it is another folder.
        StoreError: its files are not those of a run.
    """
    if not any((run / name).is_file() for name in RUN_FILES):
        raise UsageError(
            f"{run}: holds no run; expected the folder of a run, such as runs/quickstart, its spec, its results.json, "
            "or a trial as runs/quickstart:r4-attention"
        )
    return gather_results(run)


def pair_trials(first: Side, second: Side) -> list[Pair]:
    """Trials that belong together: those that were asked for, else those of one name, in the first's order."""
    if first.trial is not None and second.trial is not None:
        names = dict.fromkeys((str(first.trial["name"]), str(second.trial["name"])))
        return [(" / ".join(names), first.trial, second.trial)]
    one, other = ({str(t["name"]): t for t in side.results["trials"]} for side in (first, second))
    return [(name, one.get(name), other.get(name)) for name in dict.fromkeys((*one, *other))]


def compare_cells(
    pairs: Sequence[Pair], first: Side, second: Side
) -> tuple[list[Json], dict[str, list[str]]]:
    """Every cell of either side, and why trials were not tested; a value that is not there is null."""
    cells: list[Json] = []
    untested: dict[str, list[str]] = {}
    for name, one, other in pairs:
        values, others = _index_scores(one), _index_scores(other)
        tests: Mapping[tuple[str, str | None], Comparison] = {}
        if one is not None and other is not None:
            files = find_trial_files(first.folder, one), find_trial_files(second.folder, other)
            metrics = list(dict.fromkeys(metric for metric, _ in values if (metric, None) in others))
            tests, reasons = compare_pair(*files, metrics)
            for reason in reasons:
                untested.setdefault(reason, []).append(name)
        for metric, prompt in dict.fromkeys((*values, *others)):
            a, b = values.get((metric, prompt)), others.get((metric, prompt))
            delta = b - a if a is not None and b is not None else None
            cell = {
                "trial": name,
                "metric": metric,
                "prompt": prompt,
                "first": a,
                "second": b,
                "delta": delta,
            }
            cells.append(cell | {"test": _write_test(tests.get((metric, prompt)))})
    return cells, untested


def _index_scores(trial: Json | None) -> dict[tuple[str, str | None], float]:
    scores: list[Json] = (trial or {}).get("scores") or []
    return {(str(score["metric"]), score.get("prompt")): float(score["value"]) for score in scores}


def _write_test(test: Comparison | None) -> Json | None:
    """The paired comparison of B against A; its difference is corrected for the bias of finite samples."""
    if test is None:
        return None
    names = ("delta", "ci_low", "ci_high", "p_value", "p_holm", "verdict", "n_pairs")
    return {name: getattr(test, name) for name in names}


def describe_resources(name: str, first: Json | None, second: Json | None) -> Json:
    """What a trial took, both sides; null where it is not known."""
    row: Json = {"trial": name}
    for label, trial in (("first", first), ("second", second)):
        stages: Json = (trial or {}).get("wall_s") or {}
        row |= {
            f"{label}_params": (trial or {}).get("trainable_params"),
            f"{label}_train_s": stages.get("train"),
            f"{label}_total_s": math.fsum(float(value) for value in stages.values()) if stages else None,
            f"{label}_memory_gib": (trial or {}).get("peak_memory_gib"),
        }
    return row


def find_warnings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What makes the columns answers to different questions."""
    warnings: list[str] = []
    one, other = (_drop_counts(results.get("spec") or {}) for results in (first, second))
    for name in _PAIRED_BY:
        if one.get(name) != other.get(name):
            fields = find_differences({name: one.get(name)}, {name: other.get(name)})
            warnings.append(f"the runs differ in {', '.join(fields)}; their scores are not paired")
    for label, results in (("A", first), ("B", second)):
        if not results.get("complete", False):
            warnings.append(f"{label} ({results['name']}) is incomplete")
    return warnings


def _drop_counts(spec: Json) -> Json:
    """A spec without the number of clips and the batch size, which do not decide whether clips are pairs."""
    generation = {"generation": spec.get("generation") or {}}
    return {**spec, **drop_effect_free(generation)}


def find_changes(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Settings in which the two sides of a pair differ: `lora.rank 8 -> 16`."""
    found: dict[str, list[str]] = {}
    for name, first, second in pairs:
        if first is None or second is None:
            continue
        one, other = ({key: trial.get(key) or {} for key in _SETTINGS} for trial in (first, second))
        changes = [
            f"{field} {_look_up(one, field)} -> {_look_up(other, field)}"
            for field in find_differences(one, other)
        ]
        if changes:
            found[name] = changes
    return found


def _look_up(mapping: Mapping[str, Any], dotted: str) -> Any:
    value: Any = mapping
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _format_cells(cells: Sequence[Json], first: str, second: str) -> str:
    head = ["trial", "metric", "prompt", f"A {first}", f"B {second}", "B - A"]
    is_tested = any(cell["test"] for cell in cells)
    if is_tested:
        head += ["corrected", "95 % interval", "p (Holm)", "B is"]
    rows: list[list[str]] = []
    for cell in cells:
        numbers = [format_number(cell[name]) for name in ("first", "second", "delta")]
        row = [str(cell["trial"]), str(cell["metric"]), _shorten(cell["prompt"]), *numbers]
        rows.append(row + (_format_test(cell["test"]) if is_tested else []))
    return format_table(head, rows, right=(3, 4, 5, 6, 7, 8))


def _format_test(test: Json | None) -> list[str]:
    if test is None:
        return ["-", "-", "-", "not tested"]
    low, high = test["ci_low"], test["ci_high"]
    interval = "-" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
    return [f"{test['delta']:+.4f}", interval, f"{test['p_holm']:.3f}", str(test["verdict"])]


def _format_resources(resources: Sequence[Json]) -> str:
    head = ["trial", "params A", "B", "training A", "B", "in all A", "B", "memory A", "B"]
    forms = (
        ("params", "{:,.0f}"),
        ("train_s", "{:.0f} s"),
        ("total_s", "{:.0f} s"),
        ("memory_gib", "{:.2f} GiB"),
    )
    rows = [
        [str(row["trial"])]
        + [
            "-" if row[f"{side}_{name}"] is None else form.format(row[f"{side}_{name}"])
            for name, form in forms
            for side in ("first", "second")
        ]
        for row in resources
    ]
    return format_table(head, rows, right=tuple(range(1, 9)))


def _name_some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _shorten(prompt: str | None) -> str:
    if prompt is None:
        return "(all)"
    return prompt if len(prompt) <= MAX_PROMPT else f"{prompt[: MAX_PROMPT - 3]}..."
