"""A table with one row per cell of a run, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping

from lora_bench.metrics.provenance import describe_windowing
from lora_bench.results.records import Comparison, Settings
from lora_bench.results.run_records import RunResults, TrialResult
from lora_bench.store import hash_json

Row = Mapping[str, object]

CSV_COLUMNS: tuple[str, ...] = (
    "trial_id", "trial", "kind", "train_seed", "state", "rank", "alpha", "targets", "trainable_params",
    "metric", "prompt", "value", "corrected", "se", "ci_low", "ci_high", "n_generated", "n_reference", "dim",
    "delta", "delta_ci_low", "delta_ci_high", "p_value", "p_holm", "verdict",
    "baseline", "baseline_delta", "baseline_ci_low", "baseline_ci_high", "baseline_p_value", "baseline_p_holm",
    "baseline_verdict",
    "encoder", "weights", "window", "resampler", "estimator", "interval_method", "provenance_hash", "unscored",
)  # fmt: skip


def render_csv(results: RunResults) -> str:
    """Return one row per cell, scored or not, with its comparisons and its provenance in short."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows(list_cells(results))
    return stream.getvalue()


def list_cells(results: RunResults) -> Iterator[Row]:
    """Yield one row per cell with the fields of `CSV_COLUMNS` that it has, and perhaps others."""
    zero_shot, baseline = (
        {(item.trial, item.metric, item.prompt): item for item in compared}
        for compared in (results.comparisons, results.baseline_comparisons)
    )
    for trial in results.trials:
        shared = _list_trial_columns(trial)
        for score in trial.scores:
            place = (trial.id, score.metric, score.prompt)
            yield {
                **shared,
                **vars(score),
                **_list_comparison_columns("", zero_shot.get(place)),
                **_list_comparison_columns("baseline_", baseline.get(place)),
                **_list_provenance_columns(score.provenance),
            }
        for cell in trial.unscored:
            yield {**shared, "metric": cell.metric, "prompt": cell.prompt, "unscored": cell.reason}


def _list_comparison_columns(prefix: str, compared: Comparison | None) -> Row:
    """Return the difference to zero-shot (no prefix) or to the baseline's trial, each in columns of its own."""
    if compared is None:
        return {}
    interval = f"{prefix or 'delta_'}ci"
    return {
        f"{prefix}delta": compared.delta,
        f"{interval}_low": compared.ci_low,
        f"{interval}_high": compared.ci_high,
        f"{prefix}p_value": compared.p_value,
        f"{prefix}p_holm": compared.p_holm,
        f"{prefix}verdict": compared.verdict,
        "baseline": compared.against if prefix else None,
    }


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
        "trial_id": trial.id,
        "trial": trial.name,
        "kind": trial.kind,
        "train_seed": trial.train_seed,
        "state": trial.state,
        "rank": lora.get("rank"),
        "alpha": lora.get("alpha"),
        "targets": " ".join(map(str, targets)) if isinstance(targets, list) else targets,
        "trainable_params": trial.trainable_params,
    }
