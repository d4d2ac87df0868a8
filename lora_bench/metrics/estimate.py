"""A distance with its error: bias removed, standard error, 95 % interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.clusters import Clusters
from lora_bench.metrics.frechet import fit_gaussian, frechet_between
from lora_bench.metrics.frechet_bias import MAX_DIM, MIN_CLUSTERS, estimate_frechet_bias
from lora_bench.metrics.frechet_replicates import FrechetReplicator, Replicator
from lora_bench.metrics.jackknife import Jackknife, leave_one_out, make_interval, summarize_replicates
from lora_bench.metrics.kernel import prepare_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRECHET = {"estimator": "plug-in squared Frechet distance, covariances with ddof=1, float64"}
KERNEL = {
    "estimator": "100 x squared MMD without pairs of the same clip, Gaussian kernel, median bandwidth of the "
    "reference, float64"
}
TEXT = {"estimator": "mean cosine of clips and texts, float64"}
FEW_CLUSTERS = 10
# Above it, too few intervals of simulated sets held the truth (benchmarks/results/heavy_tails.md).
MAX_DIM_PER_CLUSTER = 2
# A replicate is an eigenvalue problem, whose cost grows with the cube of its size: this pays for MAX_REPLICATES of
# size 100, and for fewer than MIN_REPLICATES of size 512.
REPLICATE_BUDGET = 5e9
MIN_REPLICATES, MAX_REPLICATES = 100, 1000


@dataclass(frozen=True)
class Estimate:
    """A statistic, plug-in and corrected, with its interval.

    Attributes:
        value: plug-in estimate (the unbiased one for kernel distance and text score).
        corrected: estimate without the bias of a finite sample, the interval's centre; None if there are too few
            clips for it.
        se: standard error of `corrected`.
        notes: limits that a reader must know.
        provenance: how it was computed.
    """

    value: float
    corrected: float | None = None
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)


def estimate_distance(
    distance: Literal["frechet", "mmd"], generated: Clusters, reference: Clusters
) -> Estimate:
    """Estimate the distance between two sets of the same dimension, with its interval.

    Raises:
        UnscoredError: the kernel distance of fewer than two clips, or of equal reference vectors.
    """
    notes = describe_limits(distance, generated, reference)
    if distance == "mmd":
        return _estimate_kernel(generated, reference, notes)
    return _estimate_frechet(generated, reference, notes)


def _estimate_frechet(generated: Clusters, reference: Clusters, notes: tuple[str, ...]) -> Estimate:
    ours, theirs = fit_gaussian(generated.vectors), fit_gaussian(reference.vectors)
    value = frechet_between(ours, theirs)
    sides: list[Jackknife] = []
    n_replicates = 0
    for clusters, fixed, side in ((generated, theirs, "generated"), (reference, ours, "reference")):
        merged = clusters.merge_to(count_replicates(clusters))
        spread = jackknife_side(FrechetReplicator(merged, fixed)) if can_leave_one_out(merged) else None
        if spread is None:
            few = f"too few {side} clips to leave one out"
            about = {**FRECHET, "interval": f"none: {few}"}
            return Estimate(value, notes=(*notes, f"no interval: {few}"), provenance=about)
        sides.append(spread)
        n_replicates += merged.n_clusters
    imitates = can_imitate(generated, reference)
    n, dim = min(generated.n_clusters, reference.n_clusters), generated.vectors.shape[1]
    if dim > MAX_DIM_PER_CLUSTER * n and not imitates:
        unit = "generated clips" if generated.n_clusters == n else name_clusters(reference)
        why = f"D = {dim} is more than twice the {n} {unit}, so the bias of the Frechet distance is not known"
        return Estimate(
            value, notes=(*notes, f"no interval: {why}"), provenance={**FRECHET, "interval": f"none: {why}"}
        )
    bias, about = sum(side.bias for side in sides), {"bias": "delete-one-cluster jackknife, both sides"}
    if imitates:
        halved = estimate_frechet_bias(generated, reference)
        bias, about = halved.bias, {"bias": f"change on halving x {halved.ratio:.3f} (imitated populations)"}
        sides.append(Jackknife(0.0, halved.doubt**2, np.inf))
    return finish_estimate(value, value - bias, sides, notes, n_replicates, {**FRECHET, **about})


def can_imitate(generated: Clusters, reference: Clusters) -> bool:
    """Return whether the jackknife would underestimate the bias (D above half of a side) and can be replaced."""
    n, dim = min(generated.n_clusters, reference.n_clusters), generated.vectors.shape[1]
    return n / 2 < dim <= MAX_DIM and n >= MIN_CLUSTERS and len(np.unique(generated.strata)) == 1


def _estimate_kernel(generated: Clusters, reference: Clusters, notes: tuple[str, ...]) -> Estimate:
    blocks = prepare_blocks(generated, reference)
    replicators = (blocks.of_generated(), blocks.of_reference())
    value = float(replicators[0].distances(np.ones((1, len(replicators[0].sizes))))[0])
    about = {**KERNEL, "bandwidth": blocks.bandwidth, "vectors_used": int(blocks.generated.sizes.sum())}
    if min(generated.n_clusters, reference.n_clusters) < 3:
        few = "the kernel distance needs at least 3 clips on either side to leave one out"
        about["interval"] = f"none: {few}"
        return Estimate(value, value, notes=(*notes, f"no interval: {few}"), provenance=about)
    sides = [side for side in (jackknife_side(item) for item in replicators) if side is not None]
    # The estimator is unbiased: the jackknife's estimate of its bias is noise and is not subtracted.
    return finish_estimate(value, value, sides, notes, sum(len(item.sizes) for item in replicators), about)


def finish_estimate(
    value: float,
    corrected: float,
    sides: Sequence[Jackknife],
    notes: tuple[str, ...],
    n_replicates: int,
    about: Mapping[str, str | int | float] | None = None,
) -> Estimate:
    """Put the interval around the corrected value, and note its method."""
    interval = make_interval(corrected, sides)
    method = {"interval": "95 % delete-one-cluster jackknife, both sides", "n_replicates": n_replicates}
    return Estimate(
        value, corrected, interval.se, interval.low, interval.high, notes, {**method, **(about or {})}
    )


def jackknife_side(replicator: Replicator) -> Jackknife | None:
    """Estimate bias and variance from one side; None if nothing can be left out."""
    full, replicates = leave_one_out(replicator)
    return summarize_replicates(full, replicates, replicator.sizes, replicator.strata)


def can_leave_one_out(clusters: Clusters) -> bool:
    """Return whether at least two vectors remain when the largest of several clusters is left out."""
    return clusters.n_clusters > 1 and len(clusters.vectors) - int(clusters.sizes.max()) >= 2


def count_replicates(clusters: Clusters) -> int:
    """Return how many clusters to leave out one by one; fewer (merged) ones where a replicate is expensive."""
    size = min(clusters.vectors.shape)
    return int(np.clip(REPLICATE_BUDGET / size**3, MIN_REPLICATES, MAX_REPLICATES))


def describe_limits(distance: str, generated: Clusters, reference: Clusters) -> tuple[str, ...]:
    """Describe the limits of these sets that a reader must know."""
    notes: list[str] = []
    dim = generated.vectors.shape[1]
    n = min(generated.n_clusters, reference.n_clusters)
    if distance == "frechet" and dim > n / 2:
        unit = "generated clips" if generated.n_clusters == n else name_clusters(reference)
        notes.append(
            f"D = {dim} is more than half of the {n} {unit}: the Frechet distance is strongly biased and its "
            f"correction incomplete; prefer the kernel distance (mmd/...), or add {unit}"
        )
    if reference.by == "clip" and reference.n_clusters > 1:
        notes.append("the reference is one track: the interval says nothing about other tracks")
    for clusters, side in ((generated, "generated clips"), (reference, f"{name_clusters(reference)}")):
        if 1 < clusters.n_clusters < FEW_CLUSTERS:
            notes.append(f"only {clusters.n_clusters} {side}: the interval is rough")
    return tuple(notes)


def name_clusters(reference: Clusters) -> str:
    """Name the unit that is left out on the reference side."""
    return "reference tracks" if reference.by == "group" else "reference clips"


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


def estimate_text_match(generated: Clusters, texts: NDArray[np.float64]) -> Estimate:
    """Estimate the mean cosine similarity of clips and their prompts' texts; higher is better.

    Raises:
        ScoreError: as `match_texts`.
        UnscoredError: there is no clip.
    """
    if generated.n_clusters == 0:
        raise UnscoredError("generated embeddings: no clip to compare with its text")
    replicator = match_texts(generated, texts)
    full, replicates = leave_one_out(replicator)
    spread = summarize_replicates(full, replicates, replicator.sizes, replicator.strata)
    if spread is None:
        about = {**TEXT, "interval": "none: one clip only"}
        return Estimate(full, full, notes=("no interval: one clip only",), provenance=about)
    about = {**TEXT, "interval": "95 % delete-one-clip jackknife"}
    return finish_estimate(full, full, [spread], (), generated.n_clusters, about)
