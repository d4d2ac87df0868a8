"""A score with each clip, and each reference track, left out in turn.

Every standard error, interval and contrast follows from these values: those of several trials that share clips' noise
and tracks are combined with weights, so that what the trials have in common cancels where it should.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.clusters import Clusters
from lora_bench.metrics.frechet import fit_gaussian
from lora_bench.metrics.frechet_replicates import FrechetReplicator, Replicator
from lora_bench.metrics.jackknife import (
    Jackknife,
    centre_replicates,
    is_rounding,
    leave_one_out,
    summarize_replicates,
)
from lora_bench.metrics.kernel import prepare_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

Part = Literal["clips", "tracks"]
PARTS: tuple[Part, ...] = ("clips", "tracks")
# A replicate is an eigenvalue problem, whose cost grows with the cube of its size: this pays for MAX_REPLICATES of
# size 100, and for fewer than MIN_REPLICATES of size 512.
REPLICATE_BUDGET = 5e9
MIN_REPLICATES, MAX_REPLICATES = 100, 1000
MIN_KERNEL_CLUSTERS = 3


@dataclass(frozen=True)
class LeftOut:
    """A statistic without each cluster of one part.

    Attributes:
        full: the statistic of the whole set, computed like the values.
        values: [G] statistic without each cluster.
        sizes: [G] vectors per cluster.
        strata: [G] stratum of each cluster.
    """

    full: float
    values: NDArray[np.float64]
    sizes: NDArray[np.float64]
    strata: NDArray[np.int64]

    def without_rounding(self, scale: float) -> LeftOut:
        """Return this with equal values if they differ by rounding alone; `scale` is the size of what was summed."""
        if not is_rounding(self.values - self.full, scale):
            return self
        return replace(self, values=np.full_like(self.values, self.full))

    def deviations(self) -> dict[int, NDArray[np.float64]]:
        """Return by stratum [G] the clusters' parts of the error: their squares sum to the variance."""
        found: dict[int, NDArray[np.float64]] = {}
        for stratum in np.unique(self.strata):
            values = self.values[self.strata == stratum]
            n = len(values)
            found[int(stratum)] = np.sqrt((n - 1) / n) * centre_replicates(values)
        return found


@dataclass(frozen=True)
class Replicates:
    """The statistic of one set, with its leave-one-out values.

    Attributes:
        value: the plug-in statistic (the unbiased one for kernel distance and text score).
        parts: by part of the error; empty if nothing can be left out.
        is_biased: whether the statistic has a bias of finite samples that the jackknife estimates.
        lacking: why nothing can be left out; empty if it can.
    """

    value: float
    parts: dict[Part, LeftOut]
    is_biased: bool
    lacking: str = ""

    def jackknife(self) -> dict[Part, Jackknife]:
        """Return bias, variance and degrees of freedom by part."""
        found: dict[Part, Jackknife] = {}
        for name, part in self.parts.items():
            side = summarize_replicates(part.full, part.values, part.sizes, part.strata)
            if side is not None:
                found[name] = side
        return found

    @property
    def corrected(self) -> float:
        """The statistic without its bias, as far as the jackknife knows it."""
        return (
            self.value - sum(side.bias for side in self.jackknife().values())
            if self.is_biased
            else self.value
        )

    @property
    def n_values(self) -> int:
        """Number of leave-one-out values."""
        return sum(len(part.values) for part in self.parts.values())


def replicate_frechet(generated: Clusters, reference: Clusters, value: float) -> Replicates:
    """Leave out clips and tracks of the Frechet distance.

    Args:
        generated: clusters are the clips.
        reference: clusters are the tracks.
        value: the plug-in distance.
    """
    parts: dict[Part, LeftOut] = {}
    sides = (generated, reference), (reference, generated)
    for name, (clusters, other) in zip(PARTS, sides, strict=True):
        merged = clusters.merge_to(count_replicates(clusters))
        if not can_leave_one_out(merged):
            side = "generated" if name == "clips" else "reference"
            return Replicates(value, {}, is_biased=True, lacking=f"too few {side} clips to leave one out")
        parts[name] = _leave_out(FrechetReplicator(merged, fit_gaussian(other.vectors)))
    return Replicates(value, parts, is_biased=True)


def replicate_kernel(generated: Clusters, reference: Clusters) -> tuple[Replicates, float, int]:
    """Leave out clips and tracks of the kernel distance; also return the bandwidth, and the vectors used.

    Raises:
        UnscoredError: fewer than two clips, or equal reference vectors.
    """
    blocks = prepare_blocks(generated, reference)
    sides = blocks.of_generated(), blocks.of_reference()
    value = float(sides[0].distances(np.ones((1, len(sides[0].sizes))))[0])
    about = blocks.bandwidth, int(blocks.generated.sizes.sum())
    if min(generated.n_clusters, reference.n_clusters) < MIN_KERNEL_CLUSTERS:
        few = (
            f"the kernel distance needs at least {MIN_KERNEL_CLUSTERS} clips on either side to leave one out"
        )
        return Replicates(value, {}, is_biased=False, lacking=few), *about
    parts: dict[Part, LeftOut] = {name: _leave_out(side) for name, side in zip(PARTS, sides, strict=True)}
    # The estimator is unbiased: the jackknife's estimate of its bias would be noise.
    return Replicates(value, parts, is_biased=False), *about


def replicate_text(generated: Clusters, texts: NDArray[np.float64]) -> Replicates:
    """Leave out clips of the text score.

    Raises:
        ScoreError: as `match_texts`.
    """
    found = _leave_out_of_mean(match_texts(generated, texts))
    if generated.n_clusters < 2:
        return Replicates(found.full, {}, is_biased=False, lacking="one clip only")
    return Replicates(found.full, {"clips": found}, is_biased=False)


def replicate_mean(generated: Clusters) -> Replicates:
    """Leave out clips of the mean of one value per clip.

    Raises:
        UnscoredError: vectors have more than one dimension.
    """
    if generated.vectors.shape[1] != 1:
        raise UnscoredError(
            f"mean: the encoder gives {generated.vectors.shape[1]} values per clip; expected one, a rating"
        )
    sums = np.add.reduceat(generated.vectors[:, 0], generated.starts[:-1])
    found = _leave_out_of_mean(MeanReplicator(sums, generated.sizes.astype(np.float64), generated.strata))
    if generated.n_clusters < 2:
        return Replicates(found.full, {}, is_biased=False, lacking="one clip only")
    return Replicates(found.full, {"clips": found}, is_biased=False)


def _leave_out(replicator: Replicator) -> LeftOut:
    return LeftOut(*leave_one_out(replicator), replicator.sizes, replicator.strata)


def _leave_out_of_mean(replicator: MeanReplicator) -> LeftOut:
    """Leave out each cluster of a mean; values that differ by rounding alone are equal, so that their error is zero."""
    found = _leave_out(replicator)
    size = float(np.abs(replicator.sums).sum() / replicator.sizes.sum())
    return found.without_rounding(size)


def combine(parts: Sequence[Replicates], weights: Sequence[float]) -> Replicates:
    """Return the weighted sum of statistics whose clips and tracks are the same, left out together.

    Sums that are zero, and values that are equal, but for rounding are so exactly: a verdict must not follow from it.

    Raises:
        ScoreError: the numbers of clips or tracks differ.
    """
    lacking = next((part.lacking for part in parts if part.lacking), "")
    value = sum_exactly([part.value for part in parts], weights)
    if lacking:
        return Replicates(value, {}, parts[0].is_biased, lacking)
    joined: dict[Part, LeftOut] = {}
    for name, first in parts[0].parts.items():
        sides = [part.parts[name] for part in parts]
        if len({len(side.values) for side in sides}) > 1:
            raise ScoreError(
                f"sets with different {name} cannot be combined: left out together, they must be the same"
            )
        values = np.stack([side.values for side in sides])
        together = LeftOut(
            sum_exactly([side.full for side in sides], weights),
            np.asarray(weights) @ values,
            first.sizes,
            first.strata,
        )
        joined[name] = together.without_rounding(float((np.abs(weights) @ np.abs(values)).max()))
    return Replicates(value, joined, parts[0].is_biased)


def sum_exactly(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the weighted sum, zero if it is rounding alone."""
    terms = [weight * value for weight, value in zip(weights, values, strict=True)]
    total = float(sum(terms))
    return 0.0 if is_rounding(total, sum(map(abs, terms))) else total


def can_leave_one_out(clusters: Clusters) -> bool:
    """Return whether at least two vectors remain when the largest of several clusters is left out."""
    return clusters.n_clusters > 1 and len(clusters.vectors) - int(clusters.sizes.max()) >= 2


def count_replicates(clusters: Clusters) -> int:
    """Return how many clusters to leave out one by one; fewer (merged) ones where a replicate is expensive."""
    size = min(clusters.vectors.shape)
    return int(np.clip(REPLICATE_BUDGET / size**3, MIN_REPLICATES, MAX_REPLICATES))


@dataclass(frozen=True)
class MeanReplicator:
    """Replicates of the text score: the weighted mean of a number per vector."""

    sums: NDArray[np.float64]
    sizes: NDArray[np.float64]
    strata: NDArray[np.int64]

    def distances(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weighted means [B] for weights [B, G]."""
        return (weights @ self.sums) / (weights @ self.sizes)


def match_texts(generated: Clusters, texts: NDArray[np.float64]) -> MeanReplicator:
    """Compute the cosine similarities of clips and texts: one text for all, or one per stratum.

    Args:
        generated: [M, D] vectors in clusters.
        texts: [1, D] or [strata, D].

    Raises:
        ScoreError: the number or the length of the texts does not fit, or a vector is zero.
    """
    n_strata = int(generated.strata.max()) + 1
    if texts.ndim != 2 or len(texts) not in {1, n_strata} or texts.shape[1] != generated.vectors.shape[1]:
        raise ScoreError(
            f"text embeddings: shape {texts.shape} does not fit {n_strata} prompt(s) of "
            f"{generated.vectors.shape[1]} dimensions; give one vector per prompt from the same encoder"
        )
    lengths = np.linalg.norm(generated.vectors, axis=1)
    text_lengths = np.linalg.norm(texts, axis=1)
    if not (np.isfinite(texts).all() and text_lengths.min() > 0.0 and lengths.min() > 0.0):
        raise ScoreError("text score: a vector is zero or not finite, so it has no direction to compare")
    of_cluster = generated.strata if len(texts) > 1 else np.zeros_like(generated.strata)
    units = (texts / text_lengths[:, None])[of_cluster[generated.labels()]]
    cosines = np.einsum("md,md->m", generated.vectors, units) / lengths
    return MeanReplicator(
        np.add.reduceat(cosines, generated.starts[:-1]), generated.sizes.astype(np.float64), generated.strata
    )
