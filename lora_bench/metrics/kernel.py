"""The kernel distance (KAD): 100 times the unbiased squared maximum mean discrepancy.

Gaussian kernel `exp(-|x - y|^2 / (2 s^2))` with `s` the median pairwise distance of the reference, as in KADTK.
Unlike KADTK, pairs within one cluster (clip or track) do not count, not only pairs of a vector with itself: windows
of one clip are similar, and counting them makes a set look closer to itself than an independent sample would be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.errors import UnscoredError
from lora_bench.metrics.clusters import Clusters, pool_small_strata

if TYPE_CHECKING:
    from numpy.typing import NDArray

KAD_SCALE = 100.0
MAX_BANDWIDTH_VECTORS = 4096
MAX_CHANGE_VECTORS = 1024
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
        bandwidth_changes: [G] of a cluster that has weight 0; None if the other side decides the bandwidth.
        slope: the same of the kernel's derivative with respect to its bandwidth.
    """

    side: Side
    cross: NDArray[np.float64]
    fixed_mean: float
    fixed_size: float
    bandwidth_changes: NDArray[np.float64] | None = None
    slope: KernelReplicator | None = None

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
        found = KAD_SCALE * (self.side.means(weights) + self.fixed_mean - 2.0 * cross)
        if self.slope is None or self.bandwidth_changes is None:
            return found
        return found + ((weights == 0.0) @ self.bandwidth_changes) * self.slope.distances(weights)


@dataclass(frozen=True)
class BlockSums:
    """Kernel sums between all clusters of both sides; distance and replicates follow from them.

    Attributes:
        generated: sums among the generated clusters.
        reference: sums among the reference's clusters.
        cross: [G, H] sums between them.
        bandwidth: the kernel's width.
        bandwidth_changes: [H] change of the bandwidth if a cluster of the reference is left out.
        slope: the same sums of the kernel's derivative with respect to its width; None in the slope itself.
    """

    generated: Side
    reference: Side
    cross: NDArray[np.float64]
    bandwidth: float
    bandwidth_changes: NDArray[np.float64]
    slope: BlockSums | None = None

    def of_generated(self) -> KernelReplicator:
        """Return the replicates of the generated side."""
        return KernelReplicator(
            self.generated,
            self.cross.sum(axis=1),
            _own_mean(self.reference),
            float(self.reference.sizes.sum()),
        )

    def of_reference(self) -> KernelReplicator:
        """Return the replicates of the reference side; a cluster that is left out changes the bandwidth, too."""
        return KernelReplicator(
            self.reference,
            self.cross.sum(axis=0),
            _own_mean(self.generated),
            float(self.generated.sizes.sum()),
            self.bandwidth_changes,
            None if self.slope is None else self.slope.of_reference(),
        )

    def take_generated(self, clusters: slice) -> BlockSums:
        """Return the sums of some of the generated clusters."""
        side = self.generated
        part = Side(side.sums[clusters, clusters], side.sizes[clusters], side.strata[clusters])
        slope = None if self.slope is None else self.slope.take_generated(clusters)
        return replace(self, generated=part, cross=self.cross[clusters], slope=slope)


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


def change_median_distance(reference: Clusters) -> NDArray[np.float64]:
    """Return [G] by how much the median distance changes if a cluster is left out; 0 where two are all there are.

    About `MAX_CHANGE_VECTORS` vectors are used, for only the difference matters.
    """
    thin = thin_clusters(reference, MAX_CHANGE_VECTORS)
    if thin.n_clusters < 3:
        return np.zeros(thin.n_clusters)
    labels = thin.labels()
    vectors = thin.vectors - thin.vectors.mean(axis=0)
    first, second = np.triu_indices(len(vectors), 1)
    apart = labels[first] != labels[second]
    first, second = labels[first][apart], labels[second][apart]
    distances = np.sqrt(squared_distances(vectors, vectors)[np.triu_indices(len(vectors), 1)][apart])
    order = np.argsort(distances)
    distances, first, second = distances[order], first[order], second[order]

    def median_without(places: NDArray[np.int64]) -> float:
        n_left = len(distances) - len(places)
        middle = np.array([(n_left - 1) // 2, n_left // 2])
        # place of the k-th that is left: k, and one more for each that is left out before it
        skipped = np.searchsorted(places - np.arange(len(places)), middle, side="right")
        return float(distances[middle + skipped].mean())

    full = median_without(np.array([], dtype=np.int64))
    left_out = (
        np.flatnonzero((first == cluster) | (second == cluster)) for cluster in range(thin.n_clusters)
    )
    return np.array([median_without(places) - full for places in left_out])


def sum_kernel_blocks(generated: Clusters, reference: Clusters, bandwidth: float) -> BlockSums:
    """Sum the kernel, and its derivative with respect to the bandwidth, between all clusters of both sides.

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
        sums = np.empty((2, len(a), second.n_clusters))
        for start in range(0, len(a), CHUNK):
            exponent = squared_distances(a[start : start + CHUNK], b) / (-2.0 * bandwidth**2)
            kernel = np.exp(exponent)
            sums[0, start : start + CHUNK] = np.add.reduceat(kernel, second.starts[:-1], axis=1)
            exponent *= kernel
            sums[1, start : start + CHUNK] = np.add.reduceat(exponent, second.starts[:-1], axis=1)
        sums[1] *= -2.0 / bandwidth
        return np.add.reduceat(sums, first.starts[:-1], axis=1)

    def make_sides(vectors: NDArray[np.float64], clusters: Clusters) -> list[Side]:
        both = sum_blocks(vectors, clusters, vectors, clusters)
        for sums in both:
            np.fill_diagonal(sums, 0.0)
        return [Side(sums, clusters.sizes.astype(np.float64), clusters.strata) for sums in both]

    changes = change_median_distance(reference)
    parts = zip(
        make_sides(x, generated),
        make_sides(y, reference),
        sum_blocks(x, generated, y, reference),
        strict=True,
    )
    sums, slope = (BlockSums(*part, bandwidth, changes) for part in parts)
    return replace(sums, slope=slope)


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
