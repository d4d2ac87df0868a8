from __future__ import annotations

import numpy as np
import pytest
from support.embedding_sets import make_clusters

from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.extrapolation import distances_per_cluster, extrapolate_frechet
from lora_bench.metrics.frechet import frechet_distance


def test_last_point_is_the_distance_of_all_clips():
    generated, reference = make_clusters(40, 4, 6, seed=1, shift=0.3), make_clusters(40, 4, 6, seed=2)
    found = extrapolate_frechet(generated, reference)
    assert found.n_clips[0] < 15
    assert found.n_clips[-1] == 40
    assert found.distances[-1] == pytest.approx(
        frechet_distance(generated.vectors, reference.vectors), rel=1e-9
    )


def test_extrapolation_removes_the_generated_sides_bias():
    # A reference of many clips has next to no bias; both populations are the same, so the truth is 0.
    reference = make_clusters(4000, 4, 6, seed=0)
    pairs = [extrapolate_frechet(make_clusters(60, 4, 6, seed=seed), reference) for seed in range(1, 13)]
    plugin = np.mean([pair.distances[-1] for pair in pairs])
    assert plugin > 0.05
    assert abs(np.mean([pair.value for pair in pairs])) < 0.3 * plugin
    assert all(pair.slope > 0.0 for pair in pairs)
    assert np.mean([pair.r_squared for pair in pairs]) > 0.8


def test_frames_drawn_with_replacement_would_keep_the_bias():
    reference = make_clusters(1000, 4, 6, seed=0).vectors
    rng = np.random.default_rng(0)
    intercepts = []
    for seed in range(1, 9):
        vectors = make_clusters(60, 4, 6, seed=seed).vectors
        counts = np.linspace(60, 240, 8).astype(int)
        distances = [frechet_distance(vectors[rng.choice(240, n)], reference) for n in counts]
        intercepts.append(np.polyfit(1.0 / counts, distances, 1)[1])
    honest = [
        extrapolate_frechet(make_clusters(60, 4, 6, seed=seed), make_clusters(1000, 4, 6)).value
        for seed in range(1, 9)
    ]
    assert np.mean(intercepts) > np.mean(honest) + 0.05


def test_too_few_clips_cannot_be_extrapolated():
    with pytest.raises(UnscoredError, match="5 clips, extrapolating over their number needs at least 6"):
        extrapolate_frechet(make_clusters(5, 2, 2), make_clusters(9, 2, 2))


def test_single_clips_are_compared_with_the_whole_reference():
    generated, reference = make_clusters(4, 5, 3, seed=1), make_clusters(20, 3, 3, seed=2)
    found = distances_per_cluster(generated, reference)
    expected = [frechet_distance(generated.rows(place), reference.vectors) for place in range(4)]
    assert found == pytest.approx(expected, rel=1e-9)


def test_clip_of_one_vector_has_no_distance_of_its_own():
    assert distances_per_cluster(make_clusters(3, 1, 2), make_clusters(9, 2, 2)) == [None, None, None]


def test_single_clip_distances_of_other_dimensions_are_refused():
    with pytest.raises(ScoreError, match="3 dimensions, the reference 2"):
        distances_per_cluster(make_clusters(3, 2, 3), make_clusters(9, 2, 2))
