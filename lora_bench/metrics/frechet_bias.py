"""The bias of the Frechet distance if the dimension is not small against the number of clusters.

The jackknife removes the part of the bias that falls with 1 / n.  With D near n the rest is as large as the standard
error.  It is then estimated from the change of the distance when the sets are halved.  The ratio of bias to change
comes from simulated sets: Gaussians with shrunk covariances, between and within clusters, imitate both populations,
and their bias is known.  Only this ratio comes from the imitation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.metrics.clusters import Clusters
from lora_bench.metrics.frechet import factor_covariance, fit_gaussian, frechet_between
from lora_bench.metrics.frechet_replicates import sum_roots
from lora_bench.metrics.shrinkage import MIN_FREEDOM, shrink_covariance

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_SPLITS = 8
N_DRAWS = 8
MIN_CLUSTERS = 16
MAX_DIM = 512
# Error of the imitation as a share of the extrapolated part, from the calibration study.
RATIO_ERROR = 0.15


@dataclass(frozen=True)
class SurrogateBias:
    """Bias of a plug-in Frechet distance.

    Attributes:
        bias: to be subtracted.
        doubt: standard error that the imitation and its finite number of splits and draws add.
        ratio: bias over the change on halving; 1 if the bias falls with 1 / n.
    """

    bias: float
    doubt: float
    ratio: float


def estimate_frechet_bias(generated: Clusters, reference: Clusters, seed: int = 0) -> SurrogateBias:
    """Estimate the bias from halving both sides, with a ratio learnt from imitations.

    Args:
        generated: at least `MIN_CLUSTERS` clusters of one stratum.
        reference: at least `MIN_CLUSTERS` clusters.
        seed: of the splits and draws.
    """
    rng = np.random.default_rng(seed)
    change, change_se = _change_on_halving(generated, reference, rng)
    pair = ImitatedPair(_imitate(generated), _imitate(reference))
    bias, bias_se = pair.mean_excess(rng, 1.0)
    at_half, half_se = pair.mean_excess(rng, 0.5)
    ratio, ratio_se = 1.0, 0.0
    if at_half > bias > 0.0 and bias > at_half - bias:
        growth = at_half - bias
        ratio = bias / growth
        ratio_se = float(np.hypot(at_half * bias_se, bias * half_se)) / growth**2
    parts = (RATIO_ERROR * change * (ratio - 1.0), change * ratio_se, ratio * change_se)
    return SurrogateBias(change * ratio, float(np.linalg.norm(parts)), ratio)


def _change_on_halving(
    generated: Clusters, reference: Clusters, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the mean distance of complementary halves less that of the whole, and its error over splits."""
    full = frechet_between(fit_gaussian(generated.vectors), fit_gaussian(reference.vectors))
    values: list[float] = []
    for _ in range(N_SPLITS):
        for ours, theirs in zip(_halve(generated, rng), _halve(reference, rng), strict=True):
            half, other = fit_gaussian(generated.take(ours)), fit_gaussian(reference.take(theirs))
            values.append(frechet_between(half, other))
    mean, se = _summarize_draws(np.reshape(values, (N_SPLITS, -1)).mean(axis=1))
    return mean - full, se


def _summarize_draws(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and standard error of independent draws."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _halve(clusters: Clusters, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    return np.array_split(rng.permutation(clusters.n_clusters), 2)


@dataclass(frozen=True)
class Level:
    """One level of variation: a sum of squares distributed as a scaled Wishart matrix.

    Attributes:
        root: [D, D] of the mean square.
        freedom: effective degrees of freedom.
        total: nominal degrees of freedom, the sum of squares over the mean square.
    """

    root: NDArray[np.float64]
    freedom: float
    total: float


@dataclass(frozen=True)
class Imitation:
    """A Gaussian population of clusters with about the covariances of a sample.

    Attributes:
        mean: [D].
        covariance: [D, D] of a vector.
        between: variation of the cluster means.
        within: variation of the vectors about their cluster's mean.
        n_vectors: size of the sample.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    between: Level
    within: Level
    n_vectors: int

    def draw(self, rng: np.random.Generator, share: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw mean [D] and covariance [D, D] of a sample of `share` times the size."""
        n = self.n_vectors * share
        scatter = _draw_scatter(self.between, rng, share) + _draw_scatter(self.within, rng, share)
        mean = self.mean + self.between.root @ rng.normal(size=self.between.root.shape[1]) / np.sqrt(n)
        return mean, scatter / (n - 1.0)


def _imitate(clusters: Clusters) -> Imitation:
    """Shrink the mean squares between and within clusters, with degrees of freedom that match their spread."""
    n, dim = clusters.vectors.shape
    n_clusters = clusters.n_clusters
    mean = clusters.vectors.mean(axis=0)
    means = np.add.reduceat(clusters.vectors, clusters.starts[:-1], axis=0) / clusters.sizes[:, None]
    offsets = np.sqrt(clusters.sizes)[:, None] * (means - mean)
    rests = clusters.vectors - means[clusters.labels()]
    between = offsets.T @ offsets
    # ||o o^T||^2 is |o|^4: the spread of the clusters' shares gives the number of independent ones.
    fourth = float((np.einsum("gd,gd->g", offsets, offsets) ** 2).sum())
    own_freedom = _match_freedom(between, fourth, n_clusters, n_clusters - 1.0)
    mean_square = shrink_covariance(between / (n_clusters - 1.0), own_freedom)
    first = Level(factor_covariance(mean_square), own_freedom, n_clusters - 1.0)
    within = rests.T @ rests
    second, within_covariance = Level(np.zeros((dim, 0)), 1.0, 1.0), np.zeros((dim, dim))
    if float(np.trace(within)) > 1e-12 * float(np.trace(between)):
        shares = np.split(rests, clusters.starts[1:-1])
        fourth = sum(_squared_norm(part) for part in shares)
        nominal = float(n - n_clusters)
        freedom = _match_freedom(within, fourth, n_clusters, nominal)
        within_square = shrink_covariance(within / nominal, freedom)
        second = Level(factor_covariance(within_square), freedom, nominal)
        within_covariance = within_square * nominal
    covariance = (mean_square * n_clusters + within_covariance) / n
    return Imitation(mean, covariance, first, second, n)


def _squared_norm(rows: NDArray[np.float64]) -> float:
    """Return the squared Frobenius norm of `rows.T @ rows`, from the smaller of the two products."""
    product = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    return float((product**2).sum())


def _match_freedom(scatter: NDArray[np.float64], fourth: float, n_clusters: int, nominal: float) -> float:
    """Return the degrees of freedom of a Wishart matrix that varies like the sum of the clusters' shares.

    Args:
        scatter: [D, D] sum over clusters.
        fourth: sum over clusters of the squared Frobenius norm of each share.
        n_clusters: number of clusters.
        nominal: upper bound of the degrees of freedom.
    """
    trace, squares = float(np.trace(scatter)), float((scatter**2).sum())
    variance = (fourth - squares / n_clusters) * n_clusters / (n_clusters - 1.0)
    return (
        float(np.clip((trace**2 + squares) / variance, MIN_FREEDOM, nominal)) if variance > 0.0 else nominal
    )


def _draw_scatter(level: Level, rng: np.random.Generator, share: float) -> NDArray[np.float64]:
    """Draw a sum of squares: Wishart with the level's effective freedom, scaled to its nominal size."""
    dim, rank = level.root.shape
    if rank == 0:
        return np.zeros((dim, dim))
    freedom = max(level.freedom * share, 1.0)
    if freedom > rank:  # Bartlett's decomposition
        lower = np.tril(rng.normal(size=(rank, rank)), -1)
        np.fill_diagonal(lower, np.sqrt(rng.chisquare(freedom - np.arange(rank))))
        drawn = level.root @ lower
    else:
        count = round(freedom)
        drawn = level.root @ rng.normal(size=(rank, count))
        freedom = float(count)
    return drawn @ drawn.T * (level.total * share / freedom)


class ImitatedPair:
    """Two imitations, and the Frechet distance between samples of them."""

    def __init__(self, generated: Imitation, reference: Imitation) -> None:
        self._ours, self._theirs = generated, reference
        self._shift = generated.mean - reference.mean
        own_values, own_axes = np.linalg.eigh(generated.covariance)
        own_roots = np.sqrt(np.maximum(own_values, 1e-14 * own_values.max()))
        root = own_axes * own_roots
        values, axes = np.linalg.eigh(root.T @ reference.covariance @ root)
        values = np.maximum(values, 1e-14 * values.max())
        forth, back = (own_axes / own_roots) @ axes, root @ axes
        # Gradients of 2 tr (S1 S2)^1/2: the maps from one Gaussian to the other.
        self._map = (forth * np.sqrt(values)) @ forth.T
        self._map_back = (back / np.sqrt(values)) @ back.T
        overlap = float(np.sqrt(values).sum())
        traces = float(np.trace(generated.covariance) + np.trace(reference.covariance))
        self.distance = float(self._shift @ self._shift) + traces - 2.0 * overlap

    def mean_excess(self, rng: np.random.Generator, share: float) -> tuple[float, float]:
        """Return the mean distance of samples of `share` times the size, less that of the populations, and its error.

        The first-order part of each sample's error has mean zero and is subtracted, so that few draws suffice.
        """
        draws = (self._ours.draw(rng, share) + self._theirs.draw(rng, share) for _ in range(N_DRAWS))
        return _summarize_draws(np.array([self._excess(*draw) for draw in draws]))

    def _excess(
        self,
        mean: NDArray[np.float64],
        covariance: NDArray[np.float64],
        other_mean: NDArray[np.float64],
        other_covariance: NDArray[np.float64],
    ) -> float:
        root = factor_covariance(covariance)
        overlap = float(sum_roots((root.T @ other_covariance @ root)[None])[0])
        shift = mean - other_mean
        traces = float(np.trace(covariance) + np.trace(other_covariance))
        distance = float(shift @ shift) + traces - 2.0 * overlap
        ours, theirs = covariance - self._ours.covariance, other_covariance - self._theirs.covariance
        first_order = 2.0 * float(self._shift @ (shift - self._shift))
        first_order += float(np.trace(ours) + np.trace(theirs))
        first_order -= float((self._map * ours).sum() + (self._map_back * theirs).sum())
        return distance - self.distance - first_order
