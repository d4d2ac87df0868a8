"""Distances between sets of embeddings, their uncertainty, and guards; numpy and scipy only.

This module exports names only, so that checking a spec loads no numerics.  The distances are in `frechet` and
`kernel`, the uncertainty in `jackknife` and `paired`, the guards in `guards`.
"""

from __future__ import annotations

from lora_bench.metrics.names import ENCODER_NAMES, METRIC_NAMES, Metric, parse_metric

__all__ = ["ENCODER_NAMES", "METRIC_NAMES", "Metric", "parse_metric"]
