"""The delete-one-cluster jackknife: bias and variance of a distance from one side's clusters.

A plug-in distance is too large by about a constant over the number of clusters.  Leaving out one cluster after the
other estimates this bias (for clusters of unequal size: the delete-m_j jackknife of Busing, Meijer and van der Leeden,
1999) and the variance of the distance (the cluster jackknife, which assumes nothing about the relation of a cluster's
weight and spread).  Strata (prompts) keep their shares of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.metrics.t_distribution import t_reach
from lora_bench.metrics.verdicts import ALPHA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_bench.metrics.frechet_replicates import Replicator

ROUNDING = 1e-12
"""Share of the size of what is summed below which float64 numbers are equal.

Sums of 1,000 clips differ by about 1e-13 with the order.  Another last digit of one rating in float32 changes the mean
of 10,000 clips by more.
"""


@dataclass(frozen=True)
class Jackknife:
    """The contribution of one side to the error of a statistic.

    Attributes:
        bias: estimated bias, to be subtracted.
        variance: estimated variance.
        freedom: degrees of freedom of the variance.
    """

    bias: float
    variance: float
    freedom: float


@dataclass(frozen=True)
class Interval:
    """Standard error and confidence interval."""

    se: float
    low: float
    high: float


def leave_one_out_weights(sizes: NDArray[np.float64], strata: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weights [G, G]: row g holds the clusters' weights in the replicate without cluster g.

    The other clusters of its stratum take over its share, and the total is that of the remaining vectors.  A cluster
    that is alone in its stratum cannot be left out: its row is all ones.
    """
    n_clusters, total = len(sizes), sizes.sum()
    weights = np.ones((n_clusters, n_clusters))
    for cluster, size in enumerate(sizes):
        mates = strata == strata[cluster]
        of_stratum = sizes[mates].sum()
        if of_stratum == size:
            continue
        weights[cluster] *= (total - size) / total
        weights[cluster, mates] *= of_stratum / (of_stratum - size)
        weights[cluster, cluster] = 0.0
    return weights


def leave_out_means(sums: NDArray[np.float64], sizes: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Return the means of vectors without each cluster, [G, D].

    Args:
        sums: [G, D] sum of each cluster's vectors, G > 1.
        sizes: [G] vectors per cluster; None is one each.
    """
    counts = np.ones(len(sums)) if sizes is None else sizes.astype(np.float64)
    return (sums.sum(axis=0) - sums) / (counts.sum() - counts)[:, None]


def leave_one_out(replicator: Replicator) -> tuple[float, NDArray[np.float64]]:
    """Return the statistic of the whole set, and of the sets without one cluster, [G]."""
    weights = leave_one_out_weights(replicator.sizes, replicator.strata)
    values = replicator.distances(np.concatenate([np.ones((1, len(weights))), weights]))
    return float(values[0]), values[1:]


def is_rounding(differences: float | NDArray[np.float64], scale: float) -> bool:
    """Return whether differences of numbers of size `scale` are rounding alone."""
    return bool(np.abs(differences).max(initial=0.0) <= ROUNDING * scale)


def centre_replicates(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [n] less their mean; equal values become exactly zero, which their mean may miss by rounding."""
    offsets = values - values[0]
    return offsets - offsets.mean()


def summarize_replicates(
    full: float, replicates: NDArray[np.float64], sizes: NDArray[np.float64], strata: NDArray[np.int64]
) -> Jackknife | None:
    """Estimate bias and variance from leave-one-out values; None if no stratum has two clusters.

    Args:
        full: the statistic of the whole set, computed like the replicates.
        replicates: [G] statistic without each cluster.
        sizes: [G] vectors per cluster.
        strata: [G] stratum of each cluster.
    """
    bias = variance = freedom = 0.0
    for stratum in np.unique(strata):
        mates = strata == stratum
        n_clusters = int(mates.sum())
        if n_clusters < 2:
            continue
        values = replicates[mates]
        shares = sizes[mates] / sizes[mates].sum()
        bias += float((1.0 - shares) @ values) - (n_clusters - 1) * full
        variance += (n_clusters - 1) / n_clusters * float((centre_replicates(values) ** 2).sum())
        freedom += n_clusters - 1
    return Jackknife(bias, variance, freedom) if freedom else None


def make_interval(centre: float, sides: Sequence[Jackknife], alpha: float = ALPHA) -> Interval:
    """Return the interval around a corrected statistic from independent sides (Welch's degrees of freedom)."""
    variance = sum(side.variance for side in sides)
    se = float(np.sqrt(variance))
    if variance == 0.0:
        return Interval(0.0, centre, centre)
    reach = t_reach(join_freedom(sides), alpha) * se
    return Interval(se, centre - reach, centre + reach)


def join_freedom(sides: Sequence[Jackknife]) -> float:
    """Return Welch's degrees of freedom of a sum of independent variances, not all zero."""
    variance = sum(side.variance for side in sides)
    return variance**2 / sum(side.variance**2 / side.freedom for side in sides)
