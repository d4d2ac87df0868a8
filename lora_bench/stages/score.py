"""From embeddings to scores: a distance with its interval, and the provenance of both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lora_bench.artifacts import Embeddings, Score
from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.clusters import Clusters, cluster_embeddings, stack_strata
from lora_bench.metrics.distance_plugin import PluginDistance, load_distance
from lora_bench.metrics.estimate import (
    About,
    describe_limits,
    estimate_distance,
    estimate_mean,
    estimate_text_match,
    replicate_distance,
)
from lora_bench.metrics.frechet import check_same_dim
from lora_bench.metrics.names import BUILT_IN_DISTANCES, Metric
from lora_bench.metrics.provenance import merge_provenance
from lora_bench.metrics.replicates import Replicates, replicate_mean, replicate_text


def score_embeddings(
    metric: Metric, generated: Embeddings, reference: Embeddings, prompt: str | None = None
) -> Score:
    """Score one set of generated clips against the reference.

    Args:
        metric: what to compute; for `clap_score` the reference is the prompt's text, one vector; `mean/...` uses none.
        generated: clusters are its groups (the clips).
        reference: clusters are its groups (the tracks).
        prompt: label of the score; None stands for several prompts together.

    Returns:
        `value` is the plug-in estimate that other tools report; `corrected` is the estimate without the bias
        of a finite sample, and what `se` and the interval belong to.

    Raises:
        UnscoredError: too few vectors or clips.
        ScoreError: values that are not finite, different dimensions, encoders or weights.
    """
    return score_pooled(metric, [generated], reference, prompt)


def score_pooled(
    metric: Metric, generated: Sequence[Embeddings], reference: Embeddings, prompt: str | None = None
) -> Score:
    """Score the clips of several prompts together; prompts are strata, clips the sample within each.

    Args:
        metric: what to compute.
        generated: one set per prompt.
        reference: common to all.
        prompt: label of the score; None stands for several prompts together.

    Raises:
        UnscoredError, ScoreError: as `score_embeddings`.
    """
    if not generated:
        raise ScoreError("there are no generated embeddings to score; expected one set per prompt")
    provenance = merge_provenance([part.provenance for part in generated], reference.provenance)
    ours = stack_strata([cluster_embeddings(part, "generated") for part in generated])
    if metric.distance == "text":
        texts = np.asarray(reference.values, dtype=np.float64)
        estimate = estimate_text_match(ours, texts)
        n_reference = len(texts)
    elif metric.distance == "mean":
        _check_rating(metric, generated[0])
        estimate, n_reference = estimate_mean(ours), 0
    else:
        theirs = _cluster_reference(ours, reference)
        estimate = estimate_distance(find_distance(metric), ours, theirs)
        n_reference = theirs.n_clips
        provenance |= {
            "n_vectors_generated": len(ours.vectors),
            "n_vectors_reference": len(theirs.vectors),
            "n_clusters_generated": ours.n_clusters,
            "n_clusters_reference": theirs.n_clusters,
        }
        if ours.vectors.shape[1] == 1:  # a measure with a unit, whose means say more than their distance
            provenance |= {
                "mean_generated": float(ours.vectors.mean()),
                "mean_reference": float(theirs.vectors.mean()),
            }
    return Score(
        metric=metric.name,
        prompt=prompt,
        value=estimate.value,
        n_generated=ours.n_clips,
        n_reference=n_reference,
        dim=ours.vectors.shape[1],
        se=estimate.se,
        ci_low=estimate.ci_low,
        ci_high=estimate.ci_high,
        corrected=estimate.corrected,
        note="; ".join(estimate.notes) or None,
        provenance=provenance | {"distance": metric.distance, **estimate.provenance},
    )


def replicate_score(
    metric: Metric, generated: Sequence[Embeddings], reference: Embeddings
) -> tuple[Replicates, About, tuple[str, ...]]:
    """Return the score of `score_pooled` with its leave-one-out values, how it was computed, and its limits.

    Raises:
        UnscoredError, ScoreError: as `score_embeddings`.
    """
    ours = stack_strata([cluster_embeddings(part, "generated") for part in generated])
    if metric.distance == "text":
        return replicate_text(ours, np.asarray(reference.values, dtype=np.float64)), {}, ()
    if metric.distance == "mean":
        _check_rating(metric, generated[0])
        return replicate_mean(ours), {}, ()
    theirs = _cluster_reference(ours, reference)
    distance = find_distance(metric)
    limits = describe_limits(distance, ours, theirs)
    return *replicate_distance(distance, ours, theirs), limits


def find_distance(metric: Metric) -> str | PluginDistance:
    """Return a metric's distance: the name of one that is built in, or the plug-in.

    Raises:
        SpecError: the settings are not those of the plug-in.
        UnscoredError: the plug-in cannot be loaded.
    """
    return metric.distance if metric.distance in BUILT_IN_DISTANCES.values() else load_distance(metric)


def _check_rating(metric: Metric, generated: Embeddings) -> None:
    """Refuse the mean of values of which nobody says that more is better."""
    if not generated.provenance.get("higher_is_better"):
        raise UnscoredError(
            f"{metric.name}: `{metric.encoder}` does not say that higher is better (`higher_is_better` in its "
            f"provenance), so its mean is no score; use a distance, such as `{metric.encoder}`"
        )


def _cluster_reference(generated: Clusters, reference: Embeddings) -> Clusters:
    clusters = cluster_embeddings(reference, "reference")
    check_same_dim(generated.vectors, clusters.vectors)
    return clusters
