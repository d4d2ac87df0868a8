"""A score with its error: bias removed, standard error, 95 % interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lora_bench.errors import UnscoredError
from lora_bench.metrics.clusters import Clusters
from lora_bench.metrics.distance_plugin import PluginDistance
from lora_bench.metrics.frechet import fit_gaussian, frechet_between
from lora_bench.metrics.jackknife import make_interval
from lora_bench.metrics.replicates import (
    Replicates,
    replicate_frechet,
    replicate_kernel,
    replicate_mean,
    replicate_text,
)
from lora_bench.metrics.verdicts import FEW

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRECHET = {"estimator": "plug-in squared Frechet distance, covariances with ddof=1, float64"}
KERNEL = {
    "estimator": "100 x squared MMD without pairs of the same clip, Gaussian kernel, median bandwidth of the "
    "reference, float64"
}
TEXT = {"estimator": "mean cosine of clips and texts, float64"}
MEAN = {"estimator": "mean of clips"}
# Above it, too few intervals of simulated sets held the truth (benchmarks/results/heavy_tails.md).
MAX_DIM_PER_CLUSTER = 2

About = Mapping[str, str | int | float]


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
    provenance: About = field(default_factory=dict)


def estimate_distance(distance: str | PluginDistance, generated: Clusters, reference: Clusters) -> Estimate:
    """Estimate the distance between two sets of the same dimension, with its interval.

    Args:
        distance: `frechet`, `mmd`, or a plug-in.
        generated: clusters are the clips.
        reference: clusters are the tracks.

    Raises:
        UnscoredError: the kernel distance of fewer than two clips, or of equal reference vectors; or a plug-in fails.
    """
    notes = describe_limits(distance, generated, reference)
    found, about = replicate_distance(distance, generated, reference)
    if distance == "frechet" and not found.lacking:
        n, dim = min(generated.n_clusters, reference.n_clusters), generated.vectors.shape[1]
        if dim > MAX_DIM_PER_CLUSTER * n:
            unit = "generated clips" if generated.n_clusters == n else name_clusters(reference)
            why = f"D = {dim} is more than twice the {n} {unit}, so the bias of the Frechet distance is not known"
            return Estimate(
                found.value,
                notes=(*notes, f"no interval: {why}"),
                provenance={**about, "interval": f"none: {why}"},
            )
    return _finish(found, notes, about, "95 % delete-one-cluster jackknife, both sides")


def replicate_distance(
    distance: str | PluginDistance, generated: Clusters, reference: Clusters
) -> tuple[Replicates, About]:
    """Return a distance with its leave-one-out values, and how it was computed; arguments as of `estimate_distance`.

    Raises:
        UnscoredError: as `estimate_distance`.
    """
    if isinstance(distance, PluginDistance):
        return distance.replicate(generated, reference), distance.provenance
    if distance == "mmd":
        found, bandwidth, n_used = replicate_kernel(generated, reference)
        return found, {**KERNEL, "bandwidth": bandwidth, "vectors_used": n_used}
    value = frechet_between(fit_gaussian(generated.vectors), fit_gaussian(reference.vectors))
    bias = {"bias": "delete-one-cluster jackknife, both sides"}
    return replicate_frechet(generated, reference, value), {**FRECHET, **bias}


def estimate_text_match(generated: Clusters, texts: NDArray[np.float64]) -> Estimate:
    """Estimate the mean cosine similarity of clips and their prompts' texts; higher is better.

    Raises:
        ScoreError: as `match_texts`.
        UnscoredError: there is no clip.
    """
    if generated.n_clusters == 0:
        raise UnscoredError("generated embeddings: no clip to compare with its text")
    return _finish(replicate_text(generated, texts), (), TEXT, "95 % delete-one-clip jackknife")


def estimate_mean(generated: Clusters) -> Estimate:
    """Estimate the mean of a rating of clips, [M, 1].

    Raises:
        UnscoredError: there is more than one value per clip.
    """
    return _finish(replicate_mean(generated), (), MEAN, "95 % delete-one-clip jackknife")


def _finish(found: Replicates, notes: tuple[str, ...], about: About, method: str) -> Estimate:
    """Put the interval around the corrected value, and note its method."""
    if found.lacking:
        corrected = None if found.is_biased else found.value
        about = {**about, "interval": f"none: {found.lacking}"}
        return Estimate(
            found.value, corrected, notes=(*notes, f"no interval: {found.lacking}"), provenance=about
        )
    interval = make_interval(found.corrected, list(found.jackknife().values()))
    about = {"interval": method, "n_replicates": found.n_values, **about}
    return Estimate(found.value, found.corrected, interval.se, interval.low, interval.high, notes, about)


def describe_limits(
    distance: str | PluginDistance, generated: Clusters, reference: Clusters
) -> tuple[str, ...]:
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
        if 1 < clusters.n_clusters < FEW:
            notes.append(f"only {clusters.n_clusters} {side}: the interval is rough")
    return tuple(notes)


def name_clusters(reference: Clusters) -> str:
    """Name the unit that is left out on the reference side."""
    return "reference tracks" if reference.by == "group" else "reference clips"
