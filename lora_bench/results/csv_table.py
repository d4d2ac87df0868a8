"""A table with one row per cell of a run, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from lora_bench.metrics.provenance import describe_windowing
from lora_bench.results.records import Contrast, Settings
from lora_bench.results.run_records import RunResults, TrialResult
from lora_bench.store import hash_json

Row = Mapping[str, object]

CSV_COLUMNS: tuple[str, ...] = (
    "trial_id", "trial", "kind", "train_seed", "state", "rank", "alpha", "targets", "trainable_params",
    "metric", "prompt", "value", "corrected", "se", "ci_low", "ci_high", "n_generated", "n_reference", "dim",
    "delta", "delta_ci_low", "delta_ci_high", "delta_detectable", "n_seeds", "primary", "verdict",
    "baseline", "baseline_delta", "baseline_ci_low", "baseline_ci_high", "baseline_verdict",
    "encoder", "weights", "window", "resampler", "estimator", "interval_method", "provenance_hash", "unscored",
)  # fmt: skip
EXTERNAL_COLUMNS = ("external", "paired")
"""Columns of runs with other systems: where their clips come from, and whether the difference is one of pairs."""


def render_csv(results: RunResults) -> str:
    """Return one row per cell, scored or not, with its contrasts and its provenance in short."""
    stream = io.StringIO()
    writer = csv.DictWriter(
        stream, list_columns(results), lineterminator="\n", extrasaction="ignore", restval=""
    )
    writer.writeheader()
    writer.writerows(list_cells(results))
    return stream.getvalue()


def list_columns(results: RunResults) -> tuple[str, ...]:
    """Return the columns: the fixed ones, and every field in which trials differ, by its dotted name.

    Where adapters of earlier steps are kept, or other systems compared, columns for these are between them.
    """
    steps = ("step",) if any(trial.step is not None for trial in results.trials) else ()
    external = EXTERNAL_COLUMNS if any(trial.external for trial in results.trials) else ()
    return (
        *CSV_COLUMNS,
        *steps,
        *external,
        *dict.fromkeys(field for trial in results.trials for field in trial.changes),
    )


def list_cells(results: RunResults) -> Iterator[Row]:
    """Yield one row per cell with the fields of `list_columns` that it has, and perhaps others."""
    zero_shot, baseline = (
        {
            (item.configuration, item.metric, item.prompt): item
            for item in results.contrasts
            if item.kind == kind
        }
        for kind in ("zero-shot", "baseline")
    )
    for trial in results.trials:
        shared = _list_trial_columns(trial)
        for score in trial.scores:
            place = (trial.configuration, score.metric, score.prompt)
            yield {
                **shared,
                **vars(score),
                **({} if trial.is_zero_shot else _list_contrast(zero_shot.get(place), baseline.get(place))),
                # what was not trained here has no training seeds
                **({"n_seeds": None} if trial.train_seed is None else {}),
                **_list_provenance_columns(score.provenance),
            }
        for cell in trial.unscored:
            yield {**shared, "metric": cell.metric, "prompt": cell.prompt, "unscored": cell.reason}


def _list_contrast(zero_shot: Contrast | None, baseline: Contrast | None) -> Row:
    """Return the differences of the trial's configuration, over its training seeds."""
    found: dict[str, object] = {}
    if zero_shot is not None:
        found = {
            "delta": zero_shot.delta,
            "delta_ci_low": zero_shot.ci_low,
            "delta_ci_high": zero_shot.ci_high,
            "delta_detectable": zero_shot.detectable,
            "n_seeds": zero_shot.n_seeds,
            "paired": zero_shot.paired,
            "primary": zero_shot.primary,
            "verdict": zero_shot.verdict,
        }
    if baseline is not None:
        found |= {
            "baseline": baseline.against,
            "baseline_delta": baseline.delta,
            "baseline_ci_low": baseline.ci_low,
            "baseline_ci_high": baseline.ci_high,
            "baseline_verdict": baseline.verdict,
        }
    return found


def _list_provenance_columns(about: Settings) -> Row:
    """Return what made the number, in short; the hash finds the whole record in `results.json`."""
    return {
        "encoder": about.get("encoder"),
        "weights": about.get("weights_hash") or about.get("weights"),
        "window": describe_windowing(about),
        "resampler": about.get("resampler"),
        "estimator": about.get("estimator"),
        "interval_method": about.get("interval"),
        "provenance_hash": hash_json(about) if about else None,
    }


def _list_trial_columns(trial: TrialResult) -> Row:
    lora = trial.lora or {}
    targets = lora.get("targets")
    return {
        **{field: _write_value(value) for field, value in trial.changes.items()},
        "trial_id": trial.id,
        "trial": trial.name,
        "kind": trial.kind,
        "step": trial.losses.steps if trial.step is None else trial.step,
        "external": None if trial.external is None else trial.external.label,
        "train_seed": trial.train_seed,
        "state": trial.state,
        "rank": lora.get("rank"),
        "alpha": lora.get("alpha"),
        "targets": _write_value(targets),
        "trainable_params": trial.trainable_params,
    }


def _write_value(value: JsonValue) -> JsonValue:
    """Return a value of a setting for one field of a table."""
    return " ".join(map(str, value)) if isinstance(value, list) else value
