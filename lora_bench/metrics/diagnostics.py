"""Figures of two sets in addition to a distance: variety, support, extrapolation, outliers, the reference level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from lora_bench.artifacts import Embeddings
from lora_bench.errors import UnscoredError
from lora_bench.metrics.clusters import average_clips, cluster_embeddings
from lora_bench.metrics.extrapolation import Extrapolation, distances_per_cluster, extrapolate_frechet
from lora_bench.metrics.guards import diversity_ratio
from lora_bench.metrics.manifold import Manifold, measure_manifold
from lora_bench.store import JsonObject

Figure = TypeVar("Figure")


@dataclass(frozen=True)
class Diagnostics:
    """Figures of a generated set against a reference, none of them a verdict; None where there is none.

    Attributes:
        diversity: mean distance between clips over that of the references; 1 is equal.
        manifold: precision, recall, density and coverage of the clips' means.
        extrapolation: the Frechet distance of the generated side at infinite size.
        group_distances: the Frechet distance of every group to the whole reference, farthest first.
        unscored: why a figure is absent.
    """

    diversity: float | None
    manifold: Manifold | None
    extrapolation: Extrapolation | None
    group_distances: tuple[tuple[str, float], ...]
    unscored: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """Return the figures as `lora-bench score --json` prints them; absent ones are left out."""
        line = self.extrapolation
        extrapolated: JsonObject = {}
        if line is not None:
            extrapolated = {
                "frechet_extrapolated": line.value,
                "extrapolation_r_squared": line.r_squared,
                "extrapolation_n_clips": list(line.n_clips),
            }
        return {
            "unscored": dict(self.unscored),
            **({} if self.diversity is None else {"diversity": self.diversity}),
            **({} if self.manifold is None else vars(self.manifold)),
            **extrapolated,
            "group_distances": [list(pair) for pair in self.group_distances],
        }


def describe_sets(generated: Embeddings, reference: Embeddings) -> Diagnostics:
    """Measure the generated set against the reference.

    Args:
        generated: clusters are its groups.
        reference: of the same encoder.

    Raises:
        ScoreError: not finite, or different dimensions.
    """
    ours, theirs = cluster_embeddings(generated, "generated"), cluster_embeddings(reference, "reference")
    means = average_clips(generated), average_clips(reference)
    unscored: dict[str, str] = {}

    def attempt(name: str, measure: Callable[[], Figure]) -> Figure | None:
        try:
            return measure()
        except UnscoredError as reason:
            unscored[name] = str(reason)
            return None

    def spread() -> float:
        return diversity_ratio(
            cluster_embeddings(means[0], "generated"), cluster_embeddings(means[1], "reference")
        )

    diversity = attempt("diversity", spread)
    manifold = attempt(
        "precision, recall, density, coverage", lambda: measure_manifold(means[0].values, means[1].values)
    )
    extrapolation = attempt("frechet_extrapolated", lambda: extrapolate_frechet(ours, theirs))
    names = list(dict.fromkeys(generated.groups if ours.by == "group" else generated.clip_names))
    distances = zip(names, distances_per_cluster(ours, theirs), strict=True)
    known = [(name, distance) for name, distance in distances if distance is not None]
    farthest_first = tuple(sorted(known, key=lambda pair: -pair[1]))
    return Diagnostics(diversity, manifold, extrapolation, farthest_first, unscored)


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
