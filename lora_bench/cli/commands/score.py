"""`lora-bench score`: two folders of audio, without a run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lora_bench.cli.progress_display import open_display
from lora_bench.cli.tables import format_number, format_table, print_json
from lora_bench.errors import EXIT_INCOMPLETE, EXIT_OK, UsageError
from lora_bench.metrics import parse_metric

if TYPE_CHECKING:
    from lora_bench.evaluation.folder_scores import ScoreOptions

N_ODD = 3
BESIDE = {
    "frechet_extrapolated": "FD at infinitely many clips",
    "diversity": "diversity",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}
GUARDS = {
    "silent_clips_frac": "silent clips",
    "silent_seconds_frac": "silent seconds",
    "repetition": "repetition",
    "copy_similarity": "copy, median",
    "copy_similarity_max": "copy, most",
}


def execute(arguments: argparse.Namespace) -> int:
    """Score and print; 3 if a metric could not be scored.

    Raises:
        UsageError: an unknown metric, or a folder that does not exist.
    """
    for name in arguments.metrics:
        try:
            parse_metric(name)
        except ValueError as error:
            raise UsageError(f"--metric {name}: {error}") from error
    for option in ("reference", "generated"):
        folder = getattr(arguments, option)
        if not folder.is_dir():
            raise UsageError(f"--{option} {folder}: expected a folder of audio files")
    from lora_bench.evaluation.folder_scores import score_folders

    with open_display(quiet=arguments.quiet) as progress:
        result = score_folders(
            arguments.reference, arguments.generated, arguments.metrics, progress, _read_options(arguments)
        )
    if arguments.json:
        print_json(result)
    else:
        _print_scores(result)
    return EXIT_INCOMPLETE if result["unscored"] else EXIT_OK


def _read_options(arguments: argparse.Namespace) -> ScoreOptions:
    from lora_bench.evaluation.folder_scores import ScoreOptions
    from lora_bench.spec.schema import ModelSpec

    return ScoreOptions(
        model=ModelSpec(id=arguments.model) if arguments.model else None,
        clip_s=arguments.clip_s,
        prompt=arguments.prompt,
        with_guards=not arguments.no_guards,
    )


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
    _print_beside(result)
    for score in scores:
        facts = {"D": score.get("dim"), **(score.get("provenance") or {})}
        if score.get("provenance"):
            print(f"{score['metric']}: " + "; ".join(f"{key} {value}" for key, value in facts.items()))


def _print_beside(result: dict[str, Any]) -> None:
    """What should be read beside the distances."""
    for floor in result.get("floors") or []:
        print(
            f"{floor['metric']}: real against real {format_number(floor['value'])} (corrected "
            f"{format_number(floor.get('corrected'))}), {floor['n_generated']} of the references against "
            f"{floor['n_reference']}"
        )
    for encoder, figures in (result.get("beside") or {}).items():
        words = [f"{name} {figures[key]:.3f}" for key, name in BESIDE.items() if key in figures]
        odd = ", ".join(f"{name} {distance:.4g}" for name, distance in figures["group_distances"][:N_ODD])
        print(f"{encoder}: {', '.join(words)}" + (f"; farthest by themselves: {odd}" if odd else ""))
        for figure, reason in figures["unscored"].items():
            print(f"{encoder}: {figure}: not measured: {reason}")
    guards: dict[str, Any] = result.get("guards") or {}
    sides = [(name, guards[name]) for name in ("generated", "control") if name in guards]
    if sides:
        rows = [
            (
                name if name == "generated" else "references",
                str(side["n_clips"]),
                *(f"{side[key]:.3f}" if key in side else "-" for key in GUARDS),
            )
            for name, side in sides
        ]
        print(format_table(("guard", "clips", *GUARDS.values()), rows, right=(1, 2, 3, 4, 5, 6)))
    if (nearest := guards.get("generated", {}).get("nearest_copy")) is not None:
        share = guards["generated"]["closer_than_control_frac"]
        print(
            f"most like a reference: {nearest}; {share:.0%} of the clips are more like one than 95 % of the "
            "references are like one another"
        )
    for figure, reason in (guards.get("unscored") or {}).items():
        print(f"guards: {figure}: not measured: {reason}")
