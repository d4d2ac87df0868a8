"""`lora-bench score`: two folders of audio, without a run."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lora_bench.commands.tables import format_number, format_table
from lora_bench.console import open_display
from lora_bench.errors import EXIT_INCOMPLETE, EXIT_OK, UsageError
from lora_bench.metrics import validate_metric_name


def execute(arguments: argparse.Namespace) -> int:
    """Score and print; 3 if a metric could not be scored.

    Raises:
        UsageError: an unknown metric, or a folder that does not exist.
    """
    for name in arguments.metrics:
        try:
            validate_metric_name(name)
        except ValueError as error:
            raise UsageError(f"--metric {name}: {error}") from error
    for option in ("reference", "generated"):
        folder = getattr(arguments, option)
        if not folder.is_dir():
            raise UsageError(f"--{option} {folder}: expected a folder of audio files")
    from lora_bench.scoring import score_folders

    with open_display(quiet=arguments.quiet) as progress:
        result = score_folders(
            arguments.reference,
            arguments.generated,
            arguments.metrics,
            progress,
            clip_s=arguments.clip_s,
            prompt=arguments.prompt,
        )
    if arguments.json:
        print(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        _print_scores(result)
    return EXIT_INCOMPLETE if result["unscored"] else EXIT_OK


def _print_scores(result: dict[str, Any]) -> None:
    """A table, then what to mind, what is missing, and where each number comes from."""
    scores: list[dict[str, Any]] = result["scores"]
    figures = ("value", "corrected", "ci_low", "ci_high")
    rows = [
        (
            str(score["metric"]),
            *(format_number(score.get(key)) for key in figures),
            str(score["n_generated"]),
            str(score["n_reference"]),
        )
        for score in scores
    ]
    head = ("metric", "value", "corrected", "low", "high", "generated", "references")
    print(format_table(head, rows, right=(1, 2, 3, 4, 5, 6)))
    for item in result["unscored"]:
        print(f"{item['metric']}: not scored: {item['reason']}")
    for score in scores:
        if score.get("note"):
            print(f"{score['metric']}: mind: {score['note']}")
    if any(score.get("ci_low") is not None for score in scores):
        print(
            "low and high are the 95 % interval of the corrected value, the value without finite-sample bias"
        )
    for generated, reference in result.get("identical_files") or []:
        print(f"warning: {generated} is the same file as the reference {reference}")
    for score in scores:
        facts = {"D": score.get("dim"), **(score.get("provenance") or {})}
        if score.get("provenance"):
            print(f"{score['metric']}: " + "; ".join(f"{key} {value}" for key, value in facts.items()))
