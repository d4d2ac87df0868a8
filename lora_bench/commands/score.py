"""`lora-bench score`: two folders of audio, without a run."""

from __future__ import annotations

import argparse
import json

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
        result = score_folders(arguments.reference, arguments.generated, arguments.metrics, progress)
    if arguments.json:
        print(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        rows = [
            (
                str(score["metric"]),
                format_number(score["value"]),
                format_number(score.get("ci_low")),
                format_number(score.get("ci_high")),
                str(score["n_generated"]),
                str(score["n_reference"]),
            )
            for score in result["scores"]
        ]
        head = ("metric", "value", "low", "high", "generated", "references")
        print(format_table(head, rows, right=(1, 2, 3, 4, 5)))
        for item in result["unscored"]:
            print(f"{item['metric']}: not scored: {item['reason']}")
    return EXIT_INCOMPLETE if result["unscored"] else EXIT_OK
