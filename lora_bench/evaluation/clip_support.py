"""Recall and coverage of the held-out recordings by the clips of a trial, by encoder.

All clips of the genre's prompts make one set, since no prompt alone has to cover the genre.  The recordings cover
themselves by definition, so their own figures are those of one half of their tracks against the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import Embeddings
from lora_bench.errors import UnscoredError
from lora_bench.metrics.manifold import N_NEIGHBOURS, measure_manifold
from lora_bench.results.records import SUPPORT

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ClipSupport:
    """Recall and coverage, as `Manifold` defines them, by encoder; an absent one has its reason in `unscored`."""

    recall: dict[str, float] = field(default_factory=dict)
    coverage: dict[str, float] = field(default_factory=dict)
    unscored: dict[str, str] = field(default_factory=dict)


def measure_support(
    sets: Sequence[Mapping[str, Embeddings]], references: Mapping[str, Embeddings]
) -> ClipSupport:
    """Measure how much of the references all clips of `sets` together cover.

    Args:
        sets: by prompt, then by encoder, one vector per clip.
        references: by encoder, one vector per held-out clip.

    Raises:
        ScoreError: not finite, or different dimensions.
    """

    def measure(encoder: str) -> tuple[float, float]:
        clips = [_vectors(one[encoder]) for one in sets if encoder in one]
        found = measure_manifold(np.concatenate(clips), _vectors(references[encoder]))
        return found.recall, found.coverage

    return _by_encoder(references, measure)


def measure_own_support(references: Mapping[str, Embeddings]) -> ClipSupport:
    """Measure every second track of the references against the others, and the reverse; the figures are means.

    Args:
        references: by encoder, one vector per held-out clip; groups are tracks.
    """

    def measure(encoder: str) -> tuple[float, float]:
        vectors, tracks = _vectors(references[encoder]), references[encoder].groups
        number = {track: place for place, track in enumerate(dict.fromkeys(tracks))}
        if len(number) < 2:
            raise UnscoredError("one held-out track only, its level compares halves of the tracks")
        is_second = np.array([number[track] % 2 == 1 for track in tracks])
        first, second = vectors[~is_second], vectors[is_second]
        if min(len(first), len(second)) <= N_NEIGHBOURS:
            raise UnscoredError(
                f"the halves of the held-out tracks have {len(first)} and {len(second)} excerpts; their own level "
                f"needs more than {N_NEIGHBOURS} in each"
            )
        pairs = measure_manifold(first, second), measure_manifold(second, first)
        return sum(one.recall for one in pairs) / 2, sum(one.coverage for one in pairs) / 2

    return _by_encoder(references, measure)


def _by_encoder(
    references: Mapping[str, Embeddings], measure: Callable[[str], tuple[float, float]]
) -> ClipSupport:
    found = ClipSupport()
    for encoder in references:
        try:
            found.recall[encoder], found.coverage[encoder] = measure(encoder)
        except UnscoredError as reason:
            found.unscored[f"{SUPPORT} ({encoder})"] = str(reason)
    return found


def _vectors(means: Embeddings) -> NDArray[np.float64]:
    return np.asarray(means.values, dtype=np.float64)
