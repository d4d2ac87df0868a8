"""The Frechet distance at infinite sample size by extrapolation, and the distance of single clips.

FAD-infinity in common tools draws single frames with replacement, which keeps the bias that it should remove:
repeated frames and frames of one clip are not independent.  Here whole clips are drawn without replacement.  The
figure serves comparison with other tools; the jackknife does the same with less noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.errors import UnscoredError
from lora_bench.metrics.clusters import Clusters
from lora_bench.metrics.frechet import check_same_dim, fit_gaussian, frechet_between
from lora_bench.metrics.frechet_replicates import FrechetReplicator

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Extrapolation:
    """A straight line fitted to distances over 1 / n.

    Attributes:
        value: intercept, the distance for infinitely many clips on this side.
        slope: bias times number of clips.
        r_squared: share of the variance of the points that the line explains.
        n_clips: [P] numbers of clips; `distances` [P] are the mean distances of that many clips.
    """

    value: float
    slope: float
    r_squared: float
    n_clips: tuple[int, ...]
    distances: tuple[float, ...]


def extrapolate_frechet(
    generated: Clusters, reference: Clusters, *, n_sizes: int = 8, n_draws: int = 8, seed: int = 0
) -> Extrapolation:
    """Compute FAD-infinity of the generated side; the reference stays as it is.

    Args:
        generated: clusters that are drawn without replacement, from a third of them up to all.
        reference: fixed; its own bias stays.
        n_sizes: points on the line, evenly spaced in 1 / n.
        n_draws: draws per point (one where all clips are taken).
        seed: of the draws.

    Raises:
        UnscoredError: fewer than six clips.
        ScoreError: different dimensions.
    """
    n = generated.n_clusters
    if n < 6:
        raise UnscoredError(
            f"generated embeddings: {n} clips, extrapolating over their number needs at least 6"
        )
    check_same_dim(generated.vectors, reference.vectors)
    replicator = FrechetReplicator(generated, fit_gaussian(reference.vectors))
    rng = np.random.default_rng(seed)
    counts = np.unique(np.round(1.0 / np.linspace(1.0 / n, 3.0 / n, n_sizes)).astype(int))
    means: list[float] = []
    for count in counts:
        weights = np.zeros((1 if count == n else n_draws, n))
        for row in weights:
            row[rng.permutation(n)[:count]] = 1.0
        means.append(float(replicator.distances(weights).mean()))
    inverse, distances = 1.0 / counts, np.asarray(means)
    slope, intercept = np.polyfit(inverse, distances, 1)
    rest = distances - (slope * inverse + intercept)
    total = float(((distances - distances.mean()) ** 2).sum())
    r_squared = 1.0 - float((rest**2).sum()) / total if total > 0.0 else 1.0
    return Extrapolation(
        float(intercept), float(slope), r_squared, tuple(int(count) for count in counts), tuple(means)
    )


def distances_per_cluster(generated: Clusters, reference: Clusters) -> list[float | None]:
    """Compute the Frechet distance of every clip to the whole reference; None for a clip of one vector.

    Such a distance ranks clips (outliers first).  Its value is mostly bias, because a clip has few vectors.

    Raises:
        ScoreError: different dimensions.
    """
    check_same_dim(generated.vectors, reference.vectors)
    fixed = fit_gaussian(reference.vectors)
    rows: list[NDArray[np.float64]] = [generated.rows(place) for place in range(generated.n_clusters)]
    return [frechet_between(fit_gaussian(own), fixed) if len(own) > 1 else None for own in rows]
