"""Every cell of a run as one row of a table, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

CSV_COLUMNS: tuple[str, ...] = (
    "trial_id", "trial", "kind", "train_seed", "state", "rank", "alpha", "targets", "trainable_params",
    "metric", "prompt", "value", "corrected", "se", "ci_low", "ci_high", "n_generated", "n_reference", "dim",
    "delta", "delta_ci_low", "delta_ci_high", "p_value", "p_holm", "verdict", "unscored",
)  # fmt: skip


def render_csv(results: Mapping[str, Any]) -> str:
    """One row per cell, scored or not, with the comparison against zero-shot where there is one."""
    comparisons = {(item["trial"], item["metric"], item["prompt"]): item for item in results["comparisons"]}
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    for trial in results["trials"]:
        shared = _trial_columns(trial)
        for score in trial["scores"]:
            compared = comparisons.get((trial["id"], score["metric"], score["prompt"]), {})
            beside = {
                "delta": compared.get("delta"),
                "delta_ci_low": compared.get("ci_low"),
                "delta_ci_high": compared.get("ci_high"),
                "p_value": compared.get("p_value"),
                "p_holm": compared.get("p_holm"),
                "verdict": compared.get("verdict"),
            }
            writer.writerow(shared | score | beside)
        for cell in trial["unscored"]:
            row = {"metric": cell["metric"], "prompt": cell["prompt"], "unscored": cell["reason"]}
            writer.writerow(shared | row)
    return stream.getvalue()


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
