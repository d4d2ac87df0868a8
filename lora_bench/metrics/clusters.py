"""Vectors grouped by independent sample: the clip if generated, the track if reference.

Windows of one clip, and clips of one track, are similar.  Resampling and leaving out therefore take whole clusters,
never single vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import Embeddings
from lora_bench.errors import ScoreError
from lora_bench.metrics.frechet import check_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Clusters:
    """Vectors sorted by cluster.

    Attributes:
        vectors: [M, D] float64, the clusters one after the other.
        starts: [G + 1] first row of each cluster, and M at the end.
        strata: [G] number of the stratum (the prompt) of each cluster; clusters are exchangeable only
            within a stratum, and every stratum keeps its share of the vectors.
        n_clips: clips in the set.
        by: `group` if the clusters are the groups, `clip` if there is one group only and they are its clips.
    """

    vectors: NDArray[np.float64]
    starts: NDArray[np.int64]
    strata: NDArray[np.int64]
    n_clips: int
    by: str

    @property
    def n_clusters(self) -> int:
        """Number of clusters, G."""
        return len(self.starts) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Vectors per cluster, [G]."""
        return np.diff(self.starts)

    def rows(self, cluster: int) -> NDArray[np.float64]:
        """Return the vectors of one cluster, [m, D]."""
        return self.vectors[self.starts[cluster] : self.starts[cluster + 1]]

    def labels(self) -> NDArray[np.int64]:
        """Return the cluster of each vector, [M]."""
        return np.repeat(np.arange(self.n_clusters), self.sizes)

    def take(self, clusters: Iterable[int]) -> NDArray[np.float64]:
        """Return the vectors of some clusters, one after the other, [m, D]."""
        return np.concatenate([self.rows(int(cluster)) for cluster in clusters])

    def merge_to(self, n_max: int, seed: int = 0) -> Clusters:
        """Merge clusters at random into at most `n_max` per stratum; the vectors stay the same.

        Leaving out a merged cluster costs one replicate instead of several.  The estimate of the variance
        stays valid but gets noisier.
        """
        if n_max >= np.bincount(self.strata).max():
            return self
        bins: list[NDArray[np.int64]] = []
        strata: list[int] = []
        for stratum in np.unique(self.strata):
            members = np.flatnonzero(self.strata == stratum)
            if (
                len(members) > n_max
            ):  # the same draw in every set, so that sets of the same clips stay aligned
                members = np.random.default_rng(seed).permutation(members)
            parts = np.array_split(members, min(n_max, len(members)))
            bins += parts
            strata += [int(stratum)] * len(parts)
        vectors = np.concatenate([self.take(part) for part in bins])
        sizes = [int(self.sizes[part].sum()) for part in bins]
        return Clusters(vectors, _starts(sizes), np.asarray(strata, dtype=np.int64), self.n_clips, self.by)


def pool_small_strata(clusters: Clusters, n_min: int) -> Clusters:
    """Put all clusters into one stratum if a stratum has fewer than `n_min`, too few to vary within."""
    if np.bincount(clusters.strata).min() >= n_min:
        return clusters
    return replace(clusters, strata=np.zeros_like(clusters.strata))


def _starts(sizes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def check_embeddings(embeddings: Embeddings, side: str) -> NDArray[np.float64]:
    """Return the vectors of an `Embeddings` as float64 [M, D], after checks that name the clip at fault.

    Raises:
        UnscoredError: there are fewer than two vectors.
        ScoreError: not finite, a clip without vectors, or arrays that do not fit together.
    """
    index = np.asarray(embeddings.clip_index)
    n_clips = len(embeddings.clip_names)
    if len(index) != len(embeddings.values) or len(embeddings.groups) != n_clips:
        raise ScoreError(
            f"{side} embeddings: {len(embeddings.values)} vectors, {len(index)} clip indices, {n_clips} clip "
            f"names and {len(embeddings.groups)} groups do not fit together"
        )
    counts = np.bincount(index, minlength=n_clips) if len(index) else np.zeros(n_clips, dtype=np.int64)
    if len(counts) > n_clips or (np.diff(index) < 0).any():
        raise ScoreError(f"{side} embeddings: clip_index must ascend from 0 to {n_clips - 1}")
    if (counts == 0).any():
        name = embeddings.clip_names[int(np.argmin(counts))]
        raise ScoreError(f"{side} embeddings: clip {name} has no vector; every clip must be scored")
    bad = ~np.isfinite(np.asarray(embeddings.values)).all(axis=tuple(range(1, np.ndim(embeddings.values))))
    if bad.any():
        name = embeddings.clip_names[int(index[int(np.argmax(bad))])]
        raise ScoreError(
            f"{side} embeddings: {int(bad.sum())} of {len(bad)} vectors hold NaN or infinite values, the "
            f"first in clip {name}; a distance needs finite values, so look at that clip and at the encoder"
        )
    return check_vectors(embeddings.values, side)


def cluster_embeddings(embeddings: Embeddings, side: str) -> Clusters:
    """Cluster the vectors of a set by group, or by clip if all clips belong to one group.

    Args:
        embeddings: one side of a score.
        side: `generated` or `reference`, for messages.

    Raises:
        ScoreError: as `check_embeddings`.
    """
    vectors = check_embeddings(embeddings, side)
    n_clips = len(embeddings.clip_names)
    names = list(dict.fromkeys(embeddings.groups))
    if len(names) > 1:
        number = {name: place for place, name in enumerate(names)}
        of_clip = np.asarray([number[name] for name in embeddings.groups], dtype=np.int64)
        by = "group"
    else:
        of_clip, by = np.arange(n_clips, dtype=np.int64), "clip"
    of_vector = of_clip[np.asarray(embeddings.clip_index)]
    order = np.argsort(of_vector, kind="stable")
    sizes = np.bincount(of_vector)
    return Clusters(vectors[order], _starts(sizes), np.zeros(len(sizes), dtype=np.int64), n_clips, by)


def stack_strata(parts: Sequence[Clusters]) -> Clusters:
    """Join several sets (one per prompt) into one, each a stratum of its own."""
    if len({part.vectors.shape[1] for part in parts}) > 1:
        raise ScoreError("sets of different dimensions cannot be pooled; all must come from one encoder")
    return Clusters(
        vectors=np.concatenate([part.vectors for part in parts]),
        starts=_starts(np.concatenate([part.sizes for part in parts])),
        strata=np.repeat(np.arange(len(parts), dtype=np.int64), [part.n_clusters for part in parts]),
        n_clips=sum(part.n_clips for part in parts),
        by=parts[0].by,
    )


def take_clips(embeddings: Embeddings, clips: Sequence[int]) -> Embeddings:
    """Return some clips of a set in the given order; each becomes a cluster with the clip's name."""
    index = np.asarray(embeddings.clip_index)
    rows = [np.flatnonzero(index == clip) for clip in clips]
    names = tuple(embeddings.clip_names[clip] for clip in clips)
    return Embeddings(
        values=np.asarray(embeddings.values)[np.concatenate(rows)],
        clip_index=np.repeat(np.arange(len(clips), dtype=np.int64), [len(part) for part in rows]),
        clip_names=names,
        groups=names,
        provenance=embeddings.provenance,
    )


def average_clips(embeddings: Embeddings) -> Embeddings:
    """Return the set with one vector per clip, the mean of its windows.

    Raises:
        ScoreError: as `check_embeddings`.
    """
    vectors = check_embeddings(embeddings, "clip")
    index = np.asarray(embeddings.clip_index)
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    means = np.add.reduceat(vectors, starts) / np.bincount(index)[:, None]
    return replace(embeddings, values=means, clip_index=np.arange(len(means), dtype=np.int64))
