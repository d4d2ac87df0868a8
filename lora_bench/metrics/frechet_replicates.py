"""The Frechet distance of many re-weighted versions of one set, for one eigenvalue problem each.

With the other side fixed as `S2 = R R^T`, the distance depends on this side only through its mean, its trace and the
second moments of the projected vectors `Z = X R` (since `tr (S1 S2)^1/2 = tr (R^T S1 R)^1/2`).  All three are sums
over clusters, so leaving a cluster out or swapping two is a change of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lora_bench.metrics.clusters import Clusters
from lora_bench.metrics.frechet import Gaussian, numerical_zero

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_STORED_VALUES = 2**26  # 512 MiB of second moments; larger ones are summed again for every replicate
BATCH = 32


class Replicator(Protocol):
    """A statistic of one side's clusters, the other side being fixed."""

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Vectors per cluster, [G]."""
        ...

    @property
    def strata(self) -> NDArray[np.int64]:
        """Stratum of each cluster, [G]."""
        ...

    def distances(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the statistic [B] with every cluster counted `weights` times; `weights` is [B, G], not negative."""
        ...


class FrechetReplicator:
    """Squared Frechet distances of re-weighted clusters to a fixed Gaussian."""

    def __init__(self, clusters: Clusters, fixed: Gaussian) -> None:
        self.sizes = clusters.sizes.astype(np.float64)
        self.strata = clusters.strata
        self._fixed = fixed
        # Moments about the set's own mean: about a far origin they would lose digits.
        self._origin = clusters.vectors.mean(axis=0)
        centred = clusters.vectors - self._origin
        firsts = clusters.starts[:-1]
        self._starts = clusters.starts
        self._labels = clusters.labels()
        self._sums = np.add.reduceat(centred, firsts, axis=0)
        self._squares = np.add.reduceat(np.einsum("md,md->m", centred, centred), firsts)
        self._projected = centred @ fixed.root
        self._projected_sums = np.add.reduceat(self._projected, firsts, axis=0)
        n, rank = self._projected.shape
        self._by_rows = n < rank
        if self._by_rows:
            self._gram = self._projected @ self._projected.T
            return
        self._seconds: NDArray[np.float64] | None = None
        if len(self.sizes) * rank * rank <= MAX_STORED_VALUES:
            self._seconds = np.stack([self._second_moment(place) for place in range(len(self.sizes))])

    def distances(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distances [B] for `weights` [B, G].

        The covariance divides by the weighted number of vectors less one, so that weights of 0 and 1 give
        the distance of the subset.
        """
        counts = weights @ self.sizes
        means = (weights @ self._sums) / counts[:, None]
        spread = weights @ self._squares - counts * np.einsum("bd,bd->b", means, means)
        shifts = means + (self._origin - self._fixed.mean)
        overlaps = np.concatenate(list(self._overlaps(weights, counts)))
        overlaps /= np.sqrt(counts - 1.0)
        return (
            np.einsum("bd,bd->b", shifts, shifts)
            + spread / (counts - 1.0)
            + self._fixed.trace
            - 2.0 * overlaps
        )

    def _overlaps(
        self, weights: NDArray[np.float64], counts: NDArray[np.float64]
    ) -> Iterator[NDArray[np.float64]]:
        """Yield nuclear norms of the weighted centred projected vectors, batch by batch."""
        if self._by_rows:
            for row, count in zip(weights, counts, strict=True):
                yield sum_roots(self._centred_gram(row, float(count))[None])
            return
        for start in range(0, len(weights), BATCH):
            part, n = weights[start : start + BATCH], counts[start : start + BATCH]
            means = (part @ self._projected_sums) / n[:, None]
            scatter = (
                self._weighted_seconds(part) - (n[:, None, None] * means[:, :, None]) * means[:, None, :]
            )
            yield sum_roots(scatter)

    def _centred_gram(self, weights: NDArray[np.float64], count: float) -> NDArray[np.float64]:
        """Return inner products of the weighted centred vectors, [m, m], without clusters of weight 0."""
        of_vector = weights[self._labels]
        kept = of_vector > 0
        of_vector = of_vector[kept]
        gram = self._gram[np.ix_(kept, kept)]
        mean = gram @ of_vector / count
        centre = of_vector @ mean / count
        roots = np.sqrt(of_vector)
        return (gram - mean[:, None] - mean[None, :] + centre) * roots[:, None] * roots[None, :]

    def _second_moment(self, cluster: int) -> NDArray[np.float64]:
        rows = self._projected[self._starts[cluster] : self._starts[cluster + 1]]
        return rows.T @ rows

    def _weighted_seconds(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        rank = self._projected.shape[1]
        if self._seconds is not None:
            flat = self._seconds.reshape(len(self.sizes), rank * rank)
            return (weights @ flat).reshape(len(weights), rank, rank)
        return np.stack([(self._projected * row[self._labels, None]).T @ self._projected for row in weights])


def sum_roots(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum the roots of the eigenvalues of symmetric matrices [B, r, r] to [B]; rounding error counts as 0."""
    if matrices.shape[-1] == 0:
        return np.zeros(len(matrices))
    values = np.linalg.eigvalsh(matrices)
    floor = np.asarray([numerical_zero(row) for row in values])
    return np.sqrt(np.where(values > floor[:, None], values, 0.0)).sum(axis=1)
