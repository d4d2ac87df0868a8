"""The delete-one-cluster jackknife: bias and variance of a distance from one side's clusters.

A plug-in distance is too large by about a constant over the number of clusters.  Leaving out one cluster
after the other shows by how much (the clusters may be of unequal size: the bias is that of the delete-m_j
jackknife of Busing, Meijer and van der Leeden, 1999) and how much the distance varies (the cluster
jackknife of the variance, which needs no assumption about how a cluster's weight goes with its spread).
Strata (prompts) keep their shares of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.metrics.t_distribution import t_probability, t_reach

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_bench.metrics.frechet_replicates import Replicator


@dataclass(frozen=True)
class Jackknife:
    """What one side contributes to the error of a statistic.

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
    """[G, G] weights of the clusters in the replicate that lacks cluster `row`.

    The others of its stratum take over its share, and the total is what is left after it is gone; a cluster
    that is alone in its stratum cannot be left out, its row is all ones.
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


def leave_one_out(replicator: Replicator) -> tuple[float, NDArray[np.float64]]:
    """The statistic of the whole set, and [G] of the sets that lack one cluster."""
    weights = leave_one_out_weights(replicator.sizes, replicator.strata)
    values = replicator.distances(np.concatenate([np.ones((1, len(weights))), weights]))
    return float(values[0]), values[1:]


def summarize_replicates(
    full: float, replicates: NDArray[np.float64], sizes: NDArray[np.float64], strata: NDArray[np.int64]
) -> Jackknife | None:
    """Bias and variance from leave-one-out values; None if no stratum has two clusters.

    Args:
        full: the statistic of the whole set, computed in the same way as the replicates.
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
        variance += (n_clusters - 1) / n_clusters * float(((values - values.mean()) ** 2).sum())
        freedom += n_clusters - 1
    return Jackknife(bias, variance, freedom) if freedom else None


def make_interval(centre: float, sides: Sequence[Jackknife]) -> Interval:
    """95 % interval around a corrected statistic from independent sides (Welch's degrees of freedom)."""
    variance = sum(side.variance for side in sides)
    se = float(np.sqrt(variance))
    if variance == 0.0:
        return Interval(0.0, centre, centre)
    reach = t_reach(join_freedom(sides)) * se
    return Interval(se, centre - reach, centre + reach)


def join_freedom(sides: Sequence[Jackknife]) -> float:
    """Welch's degrees of freedom of the sum of independent variances that are not all zero."""
    variance = sum(side.variance for side in sides)
    return variance**2 / sum(side.variance**2 / side.freedom for side in sides)


def interval_p_value(centre: float, sides: Sequence[Jackknife]) -> float:
    """Two-sided p-value of no difference that agrees with `make_interval`: below 0.05 iff it leaves out 0."""
    variance = sum(side.variance for side in sides)
    if variance == 0.0:
        return 1.0 if centre == 0.0 else 0.0
    return t_probability(centre / float(np.sqrt(variance)), join_freedom(sides))
