"""Distances between sets of embeddings, their uncertainty, and guards; numpy and scipy only.

Only names are exported here, so that checking a spec loads no numerics: the distances are in `frechet`
and `kernel`, the uncertainty in `jackknife` and `paired`, the guards in `guards`.
"""

from __future__ import annotations

from lora_bench.metrics.names import ENCODER_NAMES, METRIC_NAMES, Metric, parse_metric, validate_metric_name

__all__ = ["ENCODER_NAMES", "METRIC_NAMES", "Metric", "parse_metric", "validate_metric_name"]
