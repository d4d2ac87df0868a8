"""Bradley-Terry strengths from paired comparisons, with intervals over raters.

The probability that item i is preferred to item j is sigmoid(s_i - s_j), with s_0 = 0.  An answer of no difference is
half a preference for each side.  Answers of one rater depend on one another, so the standard error comes from leaving
out one rater at a time (the jackknife form of the sandwich estimator, which is not too small for few raters), with
Student's t of one degree of freedom less than raters.  Where it is below that of independent answers, as when all
raters agree, the latter is taken, so that three raters of one opinion prove nothing about people, as in a sign test.

Source: R. A. Bradley, M. E. Terry, "Rank analysis of incomplete block designs" (1952); J. G. MacKinnon, H. White, "Some
heteroskedasticity-consistent covariance matrix estimators" (1985), for the jackknife.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from lora_bench.errors import ScoreError
from lora_bench.metrics.t_distribution import t_reach

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRIOR = 0.5
"""Preferences that are added in each direction between every item and item 0: the strength of an item that always wins
is finite, and that of others hardly moves."""
MAX_STEPS = 100
_LONGEST_STEP = 2.0


@dataclass(frozen=True)
class Strength:
    """The strength of one item against item 0.

    Attributes:
        se: standard error; None from one rater.
        freedom: degrees of freedom of `se`.
    """

    value: float
    se: float | None
    freedom: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the value."""
        if self.se is None:
            return None
        reach = t_reach(self.freedom) * self.se
        return self.value - reach, self.value + reach


def estimate_strengths(wins: NDArray[np.float64], prior: float = PRIOR) -> list[Strength]:
    """Return the strengths of all items but item 0, each with its standard error over raters.

    Args:
        wins: [R, K, K] how often each rater preferred the row's item to the column's.
        prior: preferences that are added in each direction; 0 is maximum likelihood.

    Raises:
        ScoreError: there is no finite solution, which a positive prior excludes.
    """
    n_raters = len(wins)
    total = np.sum(wins, axis=0)
    values, covariance = fit_strengths(total[None], prior)
    if n_raters < 2:
        return [Strength(float(value), None, 0) for value in values[0]]
    without, _ = fit_strengths(total - wins, prior)
    spread = (n_raters - 1) / n_raters * np.sum(np.square(without - values[0]), axis=0)
    errors = np.sqrt(np.maximum(spread, np.diagonal(covariance[0])))
    return [
        Strength(float(value), float(error), n_raters - 1)
        for value, error in zip(values[0], errors, strict=True)
    ]


def fit_strengths(
    wins: NDArray[np.float64], prior: float = PRIOR
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit many sets of comparisons by Newton's method.

    Args:
        wins: [N, K, K] as above, a set each.
        prior: preferences that are added in each direction.

    Returns:
        Strengths [N, K - 1], and their covariances [N, K - 1, K - 1] if all answers were independent.

    Raises:
        ScoreError: there is no finite solution, which a positive prior excludes.
    """
    counted = np.array(wins, dtype=np.float64)
    counted[:, 0, 1:] += prior
    counted[:, 1:, 0] += prior
    compared = counted + np.swapaxes(counted, 1, 2)  # [N, K, K]
    won = np.sum(counted, axis=2)
    strengths = np.zeros(counted.shape[:2])  # [N, K]
    for _ in range(MAX_STEPS):
        expected = expit(strengths[:, :, None] - strengths[:, None, :])
        gradient = (won - np.sum(compared * expected, axis=2))[:, 1:]
        weight = compared * expected * (1.0 - expected)
        diagonal = np.sum(weight, axis=2)[:, :, None] * np.eye(counted.shape[1])
        information = (diagonal - weight)[:, 1:, 1:]
        try:
            step = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:
            break
        strengths[:, 1:] += np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        if np.max(np.abs(step), initial=0.0) < 1e-9:
            return strengths[:, 1:], np.linalg.inv(information)
    raise ScoreError("the strengths have no finite solution: an item was preferred always or never")


def find_connected(compared: NDArray[np.float64]) -> list[bool]:
    """Return, for each item, whether comparisons lead from it to item 0.

    Args:
        compared: [K, K] number of comparisons.
    """
    reached = np.zeros(len(compared), dtype=bool)
    reached[0] = True
    for _ in range(len(compared)):
        reached |= (compared[reached] > 0).any(axis=0)
    return [bool(item) for item in reached]


def to_share(strength: float) -> float:
    """Return the probability of being preferred to item 0."""
    return 1.0 / (1.0 + math.exp(-strength))
