from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from support.embedding_sets import make_embeddings

from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.clusters import average_clips
from lora_bench.metrics.manifold import measure_manifold


def by_neighbours(generated, reference, k):
    """The definitions with scikit-learn's neighbours."""
    reach = NearestNeighbors(n_neighbors=k + 1).fit(reference).kneighbors(reference)[0][:, -1]
    own = NearestNeighbors(n_neighbors=k + 1).fit(generated).kneighbors(generated)[0][:, -1]
    between = np.linalg.norm(reference[:, None] - generated[None, :], axis=2)
    inside = between < reach[:, None]
    return (
        inside.any(axis=0).mean(),
        (between < own[None, :]).any(axis=1).mean(),
        inside.sum(axis=0).mean() / k,
        (between.min(axis=1) < reach).mean(),
    )


@pytest.mark.parametrize(("n", "m", "k", "shift"), [(30, 40, 5, 0.3), (25, 12, 3, 1.5), (50, 50, 1, 0.0)])
def test_figures_agree_with_their_definitions_by_scikit_learn(n, m, k, shift):
    rng = np.random.default_rng(n)
    generated, reference = rng.normal(size=(n, 4)) + shift, rng.normal(size=(m, 4))
    found = measure_manifold(generated, reference, k)
    expected = by_neighbours(generated, reference, k)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(expected)


def test_far_away_set_has_no_precision_and_no_coverage():
    rng = np.random.default_rng(0)
    found = measure_manifold(rng.normal(size=(30, 3)) + 100.0, rng.normal(size=(30, 3)))
    assert (found.precision, found.recall, found.density, found.coverage) == (0.0, 0.0, 0.0, 0.0)


def test_collapsed_set_keeps_its_precision_and_loses_recall_and_coverage():
    rng = np.random.default_rng(1)
    reference = rng.normal(size=(100, 3))
    found = measure_manifold(0.05 * rng.normal(size=(100, 3)), reference)
    assert found.precision > 0.9
    assert found.recall < 0.2
    assert found.coverage < 0.5


def test_fewer_points_than_neighbours_are_refused_with_the_counts():
    with pytest.raises(UnscoredError, match="5 generated and 9 reference points, the 5-th neighbour"):
        measure_manifold(
            np.random.default_rng(0).normal(size=(5, 2)), np.random.default_rng(1).normal(size=(9, 2))
        )


def test_points_of_different_dimensions_are_refused():
    with pytest.raises(ScoreError, match="2 dimensions, the reference 3"):
        measure_manifold(np.ones((9, 2)), np.ones((9, 3)))


def test_clip_averages_are_the_means_of_their_windows():
    embeddings = make_embeddings(5, 4, 3)
    np.testing.assert_allclose(
        average_clips(embeddings).values, embeddings.values.reshape(5, 4, 3).mean(axis=1)
    )
