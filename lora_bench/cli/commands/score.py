"""`lora-bench score`: score a folder of audio against another, without a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_bench import api
from lora_bench.cli.options import json_option, option, quiet_option
from lora_bench.cli.progress_display import open_display
from lora_bench.cli.tables import format_number, format_table, print_json
from lora_bench.errors import EXIT_INCOMPLETE, EXIT_OK, UsageError
from lora_bench.metrics import parse_metric
from lora_bench.store import to_jsonable

N_ODD = 3
DIAGNOSTICS = {
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
    "copy_similarity": "copy (median)",
    "copy_similarity_max": "copy (max)",
}


def _read_seconds(text: str) -> float:
    """Return a length in seconds above zero."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a length in seconds above 0, such as 8")
    return seconds


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench score`."""

    reference: Path = option("--reference", metavar="DIR", help="folder of recordings")
    generated: Path = option("--generated", metavar="DIR", help="folder of clips to score")
    metrics: Sequence[str] = option(
        "--metric",
        action="append",
        metavar="NAME",
        help="a metric, such as mfcc20 or encodec; with @codec at its end, the references pass through the model's "
        "codec first; can be repeated",
    )
    prompt: str | None = option(
        "--prompt",
        metavar="TEXT",
        help="text that the clips were generated from, for clap_score and tag-adherence",
    )
    clip_s: float | None = option(
        "--clip-s",
        type=_read_seconds,
        metavar="S",
        help="cut all files into clips of this length; default: score whole files",
    )
    model: str | None = option(
        "--model",
        metavar="ID",
        help="model that provides the codec of encodec and NAME@codec and the sample rate of mfcc20; default: pocket",
    )
    with_guards: bool = option(
        "--no-guards",
        action="store_false",
        help="compute scores only: no reference levels, diversity, silence, repetition or copies",
    )
    quiet: bool = quiet_option()
    json: bool = json_option()


def execute(options: Options) -> int:
    """Score and print; 3 if a metric could not be scored.

    Raises:
        UsageError: an unknown metric, or a folder that does not exist.
    """
    for name in options.metrics:
        try:
            parse_metric(name)
        except ValueError as error:
            raise UsageError(f"--metric {name}: {error}") from error
    for name, folder in (("reference", options.reference), ("generated", options.generated)):
        if not folder.is_dir():
            raise UsageError(f"--{name} {folder}: expected a folder of audio files")
    from lora_bench.evaluation.folder_scores import ScoreOptions
    from lora_bench.spec.schema import ModelSpec

    chosen = ScoreOptions(
        model=ModelSpec(id=options.model) if options.model else None,
        clip_s=options.clip_s,
        prompt=options.prompt,
        with_guards=options.with_guards,
    )
    with open_display(quiet=options.quiet) as progress:
        scored = api.score_folders(
            options.reference, options.generated, options.metrics, options=chosen, progress=progress
        )
    result = to_jsonable(scored.to_json())
    if options.json:
        print_json(result)
    else:
        _print_scores(result)
    return EXIT_INCOMPLETE if result["unscored"] else EXIT_OK


def _print_scores(result: dict[str, Any]) -> None:
    """Print a table, then notes, missing scores, and the provenance of each number."""
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
        print(f"{item['metric']}: not scored: {item['reason'].removeprefix(item['metric'] + ': ')}")
    for score in scores:
        if score.get("note"):
            print(f"{score['metric']}: note: {score['note']}")
    if any(score.get("ci_low") is not None for score in scores):
        print("low and high: 95 % interval of the corrected value, which has no finite-sample bias")
    for generated, reference in result.get("identical_files") or []:
        print(f"warning: {generated} is the same file as the reference {reference}")
    _print_diagnostics(result)
    for score in scores:
        facts = {"D": score.get("dim"), **(score.get("provenance") or {})}
        if score.get("provenance"):
            print(f"{score['metric']}: " + "; ".join(f"{key} {value}" for key, value in facts.items()))


def _print_diagnostics(result: dict[str, Any]) -> None:
    """Print what should be read with the distances."""
    for floor in result.get("floors") or []:
        print(
            f"{floor['metric']}: real vs. real {format_number(floor['value'])} (corrected "
            f"{format_number(floor.get('corrected'))}), {floor['n_generated']} references against "
            f"{floor['n_reference']} others"
        )
    for encoder, figures in (result.get("beside") or {}).items():
        words = [f"{name} {figures[key]:.3f}" for key, name in DIAGNOSTICS.items() if key in figures]
        odd = ", ".join(f"{name} {distance:.4g}" for name, distance in figures["group_distances"][:N_ODD])
        print(f"{encoder}: {', '.join(words)}" + (f"; most distant files: {odd}" if odd else ""))
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
            f"most similar to a reference: {nearest}; {share:.0%} of the clips are more similar to a reference than "
            "95 % of the references are to each other"
        )
    for figure, reason in (guards.get("unscored") or {}).items():
        print(f"guards: {figure}: not measured: {reason}")
