"""`lora-bench compare`: two runs side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_bench.commands.tables import format_number, format_table
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.results import gather_results
from lora_bench.spec.configurations import find_differences
from lora_bench.store import read_json

SCHEMA = 1
MAX_PROMPT = 40
# A difference in any of these makes two scores answers to different questions.
_PAIRED_BY = ("dataset", "generation", "prompts")

Json = dict[str, Any]
CellKey = tuple[str, str, str | None]


def execute(arguments: argparse.Namespace) -> int:
    """Print every cell that either run has."""
    first, second = read_results(arguments.first), read_results(arguments.second)
    cells = compare_cells(first, second)
    warnings = find_warnings(first, second)
    if arguments.json:
        document = {
            "schema": SCHEMA,
            "first": str(first["name"]),
            "second": str(second["name"]),
            "warnings": warnings,
            "cells": cells,
        }
        print(json.dumps(document, indent=1, ensure_ascii=False))
        return EXIT_OK
    rows = [
        (
            str(cell["trial"]),
            str(cell["metric"]),
            _shorten(cell["prompt"]),
            format_number(cell["first"]),
            format_number(cell["second"]),
            format_number(cell["delta"]),
        )
        for cell in cells
    ]
    head = ("trial", "metric", "prompt", f"A {first['name']}", f"B {second['name']}", "B - A")
    print(format_table(head, rows, right=(3, 4, 5)))
    for warning in warnings:
        print(f"warning: {warning}")
    return EXIT_OK


def read_results(place: Path) -> Json:
    """The results of a run folder, or of a `results.json`.

    Raises:
        UsageError: neither.
    """
    if place.is_file():
        found = read_json(place)
    elif place.is_dir() and ((place / "plan.json").is_file() or (place / "results.json").is_file()):
        found = gather_results(place)
    else:
        raise UsageError(
            f"{place}: expected the folder of a run, such as runs/quickstart, or its results.json"
        )
    if not isinstance(found, dict) or not isinstance(found.get("trials"), list):
        raise UsageError(f"{place}: holds no results of a run (`trials` is missing)")
    return found


def compare_cells(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Json]:
    """Every cell of either run, in the order of the first; a value that is not there is null."""
    one, other = _index_scores(first), _index_scores(second)
    cells: list[Json] = []
    for key in dict.fromkeys((*one, *other)):
        a, b = one.get(key), other.get(key)
        delta = b - a if a is not None and b is not None else None
        trial, metric, prompt = key
        cells.append(
            {"trial": trial, "metric": metric, "prompt": prompt, "first": a, "second": b, "delta": delta}
        )
    return cells


def _index_scores(results: Mapping[str, Any]) -> dict[CellKey, float]:
    return {
        (str(trial["name"]), str(score["metric"]), score.get("prompt")): float(score["value"])
        for trial in results["trials"]
        for score in trial.get("scores") or []
    }


def find_warnings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What makes the columns answers to different questions."""
    warnings: list[str] = []
    one: Json = first.get("spec") or {}
    other: Json = second.get("spec") or {}
    for name in _PAIRED_BY:
        if one.get(name) != other.get(name):
            fields = find_differences({name: one.get(name)}, {name: other.get(name)})
            warnings.append(f"the runs differ in {', '.join(fields)}; their scores are not paired")
    for label, results in (("A", first), ("B", second)):
        if not results.get("complete", False):
            warnings.append(f"{label} ({results['name']}) is incomplete")
    return warnings


def _shorten(prompt: str | None) -> str:
    if prompt is None:
        return "(all)"
    return prompt if len(prompt) <= MAX_PROMPT else f"{prompt[: MAX_PROMPT - 3]}..."
