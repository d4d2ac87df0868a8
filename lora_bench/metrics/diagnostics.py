"""Figures of two sets in addition to a distance: variety, support, extrapolation, outliers, the reference level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_bench.artifacts import Embeddings
from lora_bench.errors import UnscoredError
from lora_bench.metrics.clusters import average_clips, cluster_embeddings
from lora_bench.metrics.extrapolation import distances_per_cluster, extrapolate_frechet
from lora_bench.metrics.guards import diversity_ratio
from lora_bench.metrics.manifold import measure_manifold


def describe_sets(generated: Embeddings, reference: Embeddings) -> dict[str, Any]:
    """Describe the generated set against the reference; no figure is a verdict.

    Args:
        generated: clusters are its groups.
        reference: of the same encoder.

    Returns:
        `diversity` (mean distance between clips over that of the references, 1 is equal); `precision`,
        `recall`, `density`, `coverage` of clip means with `k` neighbours; `frechet_extrapolated` (the
        generated side at infinite size) with `extrapolation_r_squared` and `extrapolation_n_clips`;
        `group_distances`, the Frechet distance of every group to the whole reference, farthest first;
        `unscored`, the reasons of missing figures.

    Raises:
        ScoreError: not finite, or different dimensions.
    """
    ours, theirs = cluster_embeddings(generated, "generated"), cluster_embeddings(reference, "reference")
    means = average_clips(generated), average_clips(reference)
    found: dict[str, Any] = {"unscored": {}}

    def add(name: str, measure: Callable[[], dict[str, Any]]) -> None:
        try:
            found.update(measure())
        except UnscoredError as reason:
            found["unscored"][name] = str(reason)

    def spread() -> dict[str, Any]:
        sides = zip(means, ("generated", "reference"), strict=True)
        return {"diversity": diversity_ratio(*(cluster_embeddings(one, name) for one, name in sides))}

    def support() -> dict[str, Any]:
        return vars(measure_manifold(means[0].values, means[1].values))

    def extrapolate() -> dict[str, Any]:
        line = extrapolate_frechet(ours, theirs)
        return {
            "frechet_extrapolated": line.value,
            "extrapolation_r_squared": line.r_squared,
            "extrapolation_n_clips": list(line.n_clips),
        }

    add("diversity", spread)
    add("precision, recall, density, coverage", support)
    add("frechet_extrapolated", extrapolate)
    names = list(dict.fromkeys(generated.groups if ours.by == "group" else generated.clip_names))
    distances = zip(names, distances_per_cluster(ours, theirs), strict=True)
    known = [(name, distance) for name, distance in distances if distance is not None]
    found["group_distances"] = [list(pair) for pair in sorted(known, key=lambda pair: -pair[1])]
    return found


def halve_groups(reference: Embeddings, n_clips: int, seed: int = 0) -> tuple[Embeddings, Embeddings]:
    """Divide the reference's groups at random, for the distance between real music and real music.

    Args:
        reference: recordings.
        n_clips: the first part gets groups until it has as many clips, and never more than half of the groups.
        seed: of the division.

    Returns:
        Two sets; together all clips.

    Raises:
        UnscoredError: there is only one group.
    """
    groups = list(dict.fromkeys(reference.groups))
    if len(groups) < 2:
        raise UnscoredError("real against real: one reference track only, which cannot be divided")
    order = [groups[int(place)] for place in np.random.default_rng(seed).permutation(len(groups))]
    taken: set[str] = set()
    n_taken = 0
    for name in order[: len(groups) // 2]:
        if n_taken >= n_clips:
            break
        taken.add(name)
        n_taken += reference.groups.count(name)
    inside = np.asarray([group in taken for group in reference.groups])
    return _take(reference, inside), _take(reference, ~inside)


def _take(embeddings: Embeddings, kept: np.ndarray) -> Embeddings:
    """Return the marked clips with their groups."""
    index = np.asarray(embeddings.clip_index)
    rows = kept[index]
    places = np.flatnonzero(kept)
    return Embeddings(
        values=np.asarray(embeddings.values)[rows],
        clip_index=(np.cumsum(kept) - 1)[index[rows]],
        clip_names=tuple(embeddings.clip_names[place] for place in places),
        groups=tuple(embeddings.groups[place] for place in places),
        provenance=embeddings.provenance,
    )
