"""Every cell of a run as one row of a table, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from lora_bench.metrics.provenance import describe_windowing
from lora_bench.store import hash_json

CSV_COLUMNS: tuple[str, ...] = (
    "trial_id", "trial", "kind", "train_seed", "state", "rank", "alpha", "targets", "trainable_params",
    "metric", "prompt", "value", "corrected", "se", "ci_low", "ci_high", "n_generated", "n_reference", "dim",
    "delta", "delta_ci_low", "delta_ci_high", "p_value", "p_holm", "verdict",
    "baseline", "baseline_delta", "baseline_ci_low", "baseline_ci_high", "baseline_p_value", "baseline_p_holm",
    "baseline_verdict",
    "encoder", "weights", "window", "resampler", "estimator", "interval_method", "provenance_hash", "unscored",
)  # fmt: skip


def render_csv(results: Mapping[str, Any]) -> str:
    """One row per cell, scored or not, with its comparisons and its provenance in short."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows(list_cells(results))
    return stream.getvalue()


def list_cells(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One record per cell with the fields of `CSV_COLUMNS` that it has, and perhaps others."""
    zero_shot, baseline = (
        {(item["trial"], item["metric"], item["prompt"]): item for item in results.get(name) or []}
        for name in ("comparisons", "baseline_comparisons")
    )
    for trial in results["trials"]:
        shared = _trial_columns(trial)
        for score in trial["scores"]:
            place = (trial["id"], score["metric"], score["prompt"])
            beside = _comparison_columns(zero_shot.get(place, {}), baseline.get(place, {}))
            yield shared | score | beside | _provenance_columns(score)
        for cell in trial["unscored"]:
            yield shared | {"metric": cell["metric"], "prompt": cell["prompt"], "unscored": cell["reason"]}


def _comparison_columns(zero_shot: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, Any]:
    """Differences to zero-shot and to the baseline's trial, never one in the other's columns."""
    return {
        "delta": zero_shot.get("delta"),
        "delta_ci_low": zero_shot.get("ci_low"),
        "delta_ci_high": zero_shot.get("ci_high"),
        "p_value": zero_shot.get("p_value"),
        "p_holm": zero_shot.get("p_holm"),
        "verdict": zero_shot.get("verdict"),
        "baseline": baseline.get("against"),
        "baseline_delta": baseline.get("delta"),
        "baseline_ci_low": baseline.get("ci_low"),
        "baseline_ci_high": baseline.get("ci_high"),
        "baseline_p_value": baseline.get("p_value"),
        "baseline_p_holm": baseline.get("p_holm"),
        "baseline_verdict": baseline.get("verdict"),
    }


def _provenance_columns(score: Mapping[str, Any]) -> dict[str, Any]:
    """What made the number, in short; the hash finds the whole record in `results.json`."""
    about: Mapping[str, Any] = score.get("provenance") or {}
    return {
        "encoder": about.get("encoder"),
        "weights": about.get("weights_hash") or about.get("weights"),
        "window": describe_windowing(about),
        "resampler": about.get("resampler"),
        "estimator": about.get("estimator"),
        "interval_method": about.get("interval"),
        "provenance_hash": hash_json(about) if about else None,
    }


def _trial_columns(trial: Mapping[str, Any]) -> dict[str, Any]:
    lora: dict[str, Any] = trial["lora"] or {}
    targets = lora.get("targets")
    return {
        "trial_id": trial["id"],
        "trial": trial["name"],
        "kind": trial["kind"],
        "train_seed": trial["train_seed"],
        "state": trial["state"],
        "rank": lora.get("rank"),
        "alpha": lora.get("alpha"),
        "targets": " ".join(targets) if isinstance(targets, list) else targets,
        "trainable_params": trial["trainable_params"],
    }
