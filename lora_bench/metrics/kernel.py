"""The kernel distance (KAD): 100 times the unbiased squared maximum mean discrepancy.

Gaussian kernel `exp(-|x - y|^2 / (2 s^2))` with `s` the median pairwise distance of the reference, as in KADTK.
Unlike KADTK, pairs within one cluster (clip or track) do not count, not only pairs of a vector with itself: windows
of one clip are similar, and counting them makes a set look closer to itself than an independent sample would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.errors import UnscoredError
from lora_bench.metrics.clusters import Clusters, pool_small_strata

if TYPE_CHECKING:
    from numpy.typing import NDArray

KAD_SCALE = 100.0
MAX_BANDWIDTH_VECTORS = 4096
# Frames of a clip are nearly equal vectors, and time grows with the square of their number.
MAX_VECTORS = 6000
CHUNK = 1024


@dataclass(frozen=True)
class Side:
    """Kernel sums among the clusters of one side.

    Attributes:
        sums: [G, G] over pairs of vectors; the diagonal is 0, as pairs within a cluster do not count.
        sizes: [G] vectors per cluster.
        strata: [G] stratum of each cluster.
    """

    sums: NDArray[np.float64]
    sizes: NDArray[np.float64]
    strata: NDArray[np.int64]

    def means(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean kernel [B] of two vectors from different clusters, for weights [B, G] of the clusters.

        Strata count by their share of the vectors, so that leaving out pairs within a cluster does not favour pairs
        of different strata.
        """
        counts = weights * self.sizes
        shares = counts / counts.sum(axis=1, keepdims=True)
        mean = np.zeros(len(weights))
        names = np.unique(self.strata)
        for one in names:
            here = self.strata == one
            for other in names:
                there = self.strata == other
                pairs = counts[:, here].sum(axis=1) * counts[:, there].sum(axis=1)
                if one == other:
                    pairs -= (counts[:, here] ** 2).sum(axis=1)
                sums = weights[:, here] @ self.sums[np.ix_(here, there)]
                total = np.einsum("bg,bg->b", sums, weights[:, there])
                mean += shares[:, here].sum(axis=1) * shares[:, there].sum(axis=1) * total / pairs
        return mean


@dataclass(frozen=True)
class KernelReplicator:
    """Kernel distances of re-weighted clusters of one side to the fixed other side.

    Attributes:
        side: the clusters that are re-weighted.
        cross: [G] kernel sums of each cluster with all vectors of the fixed side.
        fixed_mean: mean kernel within the fixed side.
        fixed_size: vectors of the fixed side.
    """

    side: Side
    cross: NDArray[np.float64]
    fixed_mean: float
    fixed_size: float

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Vectors per cluster, [G]."""
        return self.side.sizes

    @property
    def strata(self) -> NDArray[np.int64]:
        """Stratum of each cluster, [G]."""
        return self.side.strata

    def distances(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 100 x the unbiased squared MMD, [B], for weights [B, G]."""
        cross = (weights @ self.cross) / ((weights @ self.sizes) * self.fixed_size)
        return KAD_SCALE * (self.side.means(weights) + self.fixed_mean - 2.0 * cross)


@dataclass(frozen=True)
class BlockSums:
    """Kernel sums between all clusters of both sides; distance and replicates follow from them.

    Attributes:
        generated: sums among the generated clusters.
        reference: sums among the reference's clusters.
        cross: [G, H] sums between them.
        bandwidth: the kernel's width.
    """

    generated: Side
    reference: Side
    cross: NDArray[np.float64]
    bandwidth: float

    def of_generated(self) -> KernelReplicator:
        """Return the replicates of the generated side."""
        return KernelReplicator(
            self.generated,
            self.cross.sum(axis=1),
            _own_mean(self.reference),
            float(self.reference.sizes.sum()),
        )

    def of_reference(self) -> KernelReplicator:
        """Return the replicates of the reference side."""
        return KernelReplicator(
            self.reference,
            self.cross.sum(axis=0),
            _own_mean(self.generated),
            float(self.generated.sizes.sum()),
        )

    def take_generated(self, clusters: slice) -> BlockSums:
        """Return the sums of some of the generated clusters."""
        side = self.generated
        part = Side(side.sums[clusters, clusters], side.sizes[clusters], side.strata[clusters])
        return BlockSums(part, self.reference, self.cross[clusters], self.bandwidth)


def _own_mean(side: Side) -> float:
    return float(side.means(np.ones((1, len(side.sizes))))[0])


def thin_clusters(clusters: Clusters, n_max: int = MAX_VECTORS) -> Clusters:
    """Keep at most about `n_max` vectors, evenly spaced within every cluster, at least one of each."""
    n = len(clusters.vectors)
    if n <= n_max:
        return clusters
    kept: list[NDArray[np.int64]] = []
    for start, size in zip(clusters.starts, clusters.sizes, strict=False):
        count = max(1, round(int(size) * n_max / n))
        kept.append(start + ((np.arange(count) + 0.5) * (size / count)).astype(np.int64))
    sizes = [len(part) for part in kept]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Clusters(
        clusters.vectors[np.concatenate(kept)], starts, clusters.strata, clusters.n_clips, clusters.by
    )


def squared_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return squared Euclidean distances [len(x), len(y)], never negative."""
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)[None, :] - 2.0 * (x @ y.T)
    return np.maximum(squares, 0.0)


def median_distance(reference: Clusters) -> float:
    """Return the median distance between vectors of different clusters, the kernel's bandwidth.

    A large set is thinned to about `MAX_BANDWIDTH_VECTORS` evenly spaced vectors.

    Raises:
        UnscoredError: all vectors are equal, so that the kernel would have no width.
    """
    thin = thin_clusters(reference, MAX_BANDWIDTH_VECTORS)
    labels = thin.labels()
    origin = thin.vectors.mean(axis=0)
    vectors = thin.vectors - origin
    distances: list[NDArray[np.float64]] = []
    for start in range(0, len(vectors), CHUNK):
        block = squared_distances(vectors[start : start + CHUNK], vectors)
        distances.append(np.sqrt(block[labels[start : start + CHUNK, None] < labels[None, :]]))
    median = float(np.median(np.concatenate(distances)))
    spread = float(np.sqrt((vectors * vectors).sum(axis=1).max()))
    if median <= 1e-7 * (spread + float(np.abs(origin).max())):
        raise UnscoredError(
            "reference embeddings: their median pairwise distance is 0, so the kernel distance has no "
            "bandwidth; the reference clips must differ"
        )
    return median


def sum_kernel_blocks(generated: Clusters, reference: Clusters, bandwidth: float) -> BlockSums:
    """Sum the kernel between all clusters of both sides.

    Args:
        generated: thinned clusters.
        reference: thinned clusters.
        bandwidth: the kernel's width, from `median_distance`.
    """
    origin = reference.vectors.mean(axis=0)
    x, y = generated.vectors - origin, reference.vectors - origin

    def sum_blocks(
        a: NDArray[np.float64], first: Clusters, b: NDArray[np.float64], second: Clusters
    ) -> NDArray[np.float64]:
        sums = np.empty((len(a), second.n_clusters))
        for start in range(0, len(a), CHUNK):
            kernel = np.exp(squared_distances(a[start : start + CHUNK], b) / (-2.0 * bandwidth**2))
            sums[start : start + CHUNK] = np.add.reduceat(kernel, second.starts[:-1], axis=1)
        return np.add.reduceat(sums, first.starts[:-1], axis=0)

    def make_side(vectors: NDArray[np.float64], clusters: Clusters) -> Side:
        sums = sum_blocks(vectors, clusters, vectors, clusters)
        np.fill_diagonal(sums, 0.0)
        return Side(sums, clusters.sizes.astype(np.float64), clusters.strata)

    return BlockSums(
        make_side(x, generated), make_side(y, reference), sum_blocks(x, generated, y, reference), bandwidth
    )


def prepare_blocks(generated: Clusters, reference: Clusters) -> BlockSums:
    """Check and thin both sides, and sum the kernel.

    Raises:
        UnscoredError: a side has one cluster only, or the reference's vectors are all equal.
    """
    for clusters, side in ((generated, "generated"), (reference, "reference")):
        if clusters.n_clusters < 2:
            raise UnscoredError(
                f"{side} embeddings: one clip only; the kernel distance compares clips and needs at least 2"
            )
    ours, theirs = thin_clusters(pool_small_strata(generated, 3)), thin_clusters(reference)
    return sum_kernel_blocks(ours, theirs, median_distance(theirs))
