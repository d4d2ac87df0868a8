"""Adjust many p-values, and summarise training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_bench.errors import ScoreError
from lora_bench.metrics.t_distribution import t_reach


@dataclass(frozen=True)
class SeedSummary:
    """A figure over training seeds; with one seed there is no standard error (None, never 0)."""

    mean: float
    se: float | None
    ci_low: float | None
    ci_high: float | None
    n_seeds: int


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values in the given order."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    stepped = np.minimum(np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors), 1.0)
    adjusted = np.empty(len(p_values))
    adjusted[order] = stepped
    return [float(value) for value in adjusted]


def summarize_seeds(values: Sequence[float]) -> SeedSummary:
    """Return the mean over training seeds; with two seeds or more also standard error and 95 % interval.

    The interval (Student's t) covers the variation between trainings.  The error that all seeds share (references, the
    base model's clips) is in the interval of each comparison, not here.

    Raises:
        ScoreError: there is no value, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if not len(array) or not np.isfinite(array).all():
        raise ScoreError(f"values over training seeds {list(values)}: expected one finite number per seed")
    mean, n = float(array.mean()), len(array)
    if n == 1:
        return SeedSummary(mean, None, None, None, 1)
    se = float(array.std(ddof=1) / np.sqrt(n))
    reach = t_reach(n - 1) * se
    return SeedSummary(mean, se, mean - reach, mean + reach, n)
