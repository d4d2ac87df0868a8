"""Precision, recall, density and coverage by nearest neighbours.

Definitions of Kynkaanniemi et al. (2019) and Naeem et al. (2020): the support of a set is the union of balls around
its points, each with its k-th neighbour on the surface.  Use one vector per clip (`average_clips`): the nearest
neighbour of a window is another window of its own clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.errors import UnscoredError
from lora_bench.metrics.frechet import check_same_dim, check_vectors
from lora_bench.metrics.kernel import squared_distances

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Manifold:
    """Precision, recall, density and coverage of two sets of points.

    Attributes:
        precision: share of generated points within the reference's support.
        recall: share of reference points within the generated support.
        density: mean number of reference balls that contain a generated point, over k; may exceed 1.
        coverage: share of reference balls that contain a generated point.
        k: neighbours.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


N_NEIGHBOURS = 5


def measure_manifold(generated: ArrayLike, reference: ArrayLike, k: int = N_NEIGHBOURS) -> Manifold:
    """Measure precision, recall, density and coverage.

    Args:
        generated: [N, D], one vector per clip.
        reference: [M, D].
        k: number of the neighbour on a ball's surface.

    Raises:
        UnscoredError: a set has no more than k points.
        ScoreError: not finite, or different dimensions.
    """
    ours, theirs = check_vectors(generated, "generated"), check_vectors(reference, "reference")
    check_same_dim(ours, theirs)
    if min(len(ours), len(theirs)) <= k:
        raise UnscoredError(
            f"{len(ours)} generated and {len(theirs)} reference points, the {k}-th neighbour needs more than "
            f"{k} in each"
        )
    origin = theirs.mean(axis=0)
    ours, theirs = ours - origin, theirs - origin
    between = squared_distances(theirs, ours)
    reach, own_reach = _reach_of(theirs, k), _reach_of(ours, k)
    inside = between < reach[:, None]
    return Manifold(
        precision=float(inside.any(axis=0).mean()),
        recall=float((between < own_reach[None, :]).any(axis=1).mean()),
        density=float(inside.sum(axis=0).mean()) / k,
        coverage=float(inside.any(axis=1).mean()),
        k=k,
    )


def _reach_of(points: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return the squared distance [N] of each point to its k-th neighbour in the same set."""
    squares = squared_distances(points, points)
    np.fill_diagonal(squares, 0.0)
    return np.partition(squares, k, axis=1)[:, k]
