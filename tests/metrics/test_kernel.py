from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from support.embedding_sets import kernel_distance, make_clusters, wrap

from lora_bench.errors import UnscoredError
from lora_bench.metrics.clusters import cluster_embeddings, stack_strata
from lora_bench.metrics.jackknife import leave_one_out
from lora_bench.metrics.kernel import (
    change_median_distance,
    median_distance,
    prepare_blocks,
    sum_kernel_blocks,
    thin_clusters,
)


def plain_kad(x, y):
    """KAD as published: one vector per clip, all pairs but a vector with itself."""
    bandwidth = np.median(pdist(y))
    kernel = lambda a, b: np.exp(-cdist(a, b, "sqeuclidean") / (2.0 * bandwidth**2))  # noqa: E731
    n, m = len(x), len(y)
    within = (kernel(x, x).sum() - n) / (n * (n - 1)) + (kernel(y, y).sum() - m) / (m * (m - 1))
    return 100.0 * (within - 2.0 * kernel(x, y).mean())


@given(seed=st.integers(0, 1000), n=st.integers(2, 12), m=st.integers(3, 12), dim=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_with_one_vector_per_clip_it_is_the_published_kernel_audio_distance(seed, n, m, dim):
    x, y = make_clusters(n, 1, dim, seed=seed), make_clusters(m, 1, dim, seed=seed + 1, shift=0.5)
    assert kernel_distance(x, y) == pytest.approx(plain_kad(x.vectors, y.vectors), rel=1e-9, abs=1e-9)


def test_pairs_within_a_clip_are_left_out():
    x, y = make_clusters(7, 3, 4, seed=1), make_clusters(6, 2, 4, seed=2, shift=0.5)
    bandwidth = median_distance(y)
    total = 0.0
    for clusters, sign in ((x, 1.0), (y, 1.0)):
        labels = clusters.labels()
        kernel = np.exp(-cdist(clusters.vectors, clusters.vectors, "sqeuclidean") / (2 * bandwidth**2))
        total += sign * kernel[labels[:, None] != labels[None, :]].mean()
    total -= 2.0 * np.exp(-cdist(x.vectors, y.vectors, "sqeuclidean") / (2 * bandwidth**2)).mean()
    assert kernel_distance(x, y) == pytest.approx(100.0 * total, rel=1e-10)


def test_bandwidth_is_the_median_distance_between_different_tracks():
    y = make_clusters(9, 4, 3, seed=5)
    labels = y.labels()
    distances = cdist(y.vectors, y.vectors)[labels[:, None] < labels[None, :]]
    assert median_distance(y) == pytest.approx(np.median(distances), rel=1e-12)


def test_kernel_distance_of_two_samples_of_one_population_is_zero_on_average():
    values = [
        kernel_distance(make_clusters(30, 4, 8, seed=2 * k), make_clusters(30, 4, 8, seed=2 * k + 1))
        for k in range(60)
    ]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3.0 * error
    assert error < 0.1


def test_counting_pairs_within_a_clip_would_bias_it_upwards():
    def loosened(clusters):
        return cluster_embeddings(wrap(clusters.vectors), "generated")

    pairs = [
        (make_clusters(30, 4, 8, seed=2 * k), make_clusters(30, 4, 8, seed=2 * k + 1)) for k in range(30)
    ]
    honest = np.mean([kernel_distance(x, y) for x, y in pairs])
    naive = np.mean([kernel_distance(loosened(x), loosened(y)) for x, y in pairs])
    assert naive > honest + 0.3


def test_kernel_distance_grows_with_the_shift():
    y = make_clusters(40, 2, 6, seed=1)
    distances = [
        kernel_distance(make_clusters(40, 2, 6, seed=2, shift=shift), y) for shift in (0.0, 0.3, 0.6, 1.2)
    ]
    assert distances == sorted(distances)


def leave_out(clusters, cluster):
    kept = [place for place in range(clusters.n_clusters) if place != cluster]
    return cluster_embeddings(wrap(clusters.take(kept), clusters.sizes[0]), "rest")


def test_replicates_are_the_distances_of_the_subsets():
    x, y = make_clusters(9, 3, 4, seed=1), make_clusters(8, 2, 4, seed=2)
    blocks = prepare_blocks(x, y)
    weights = np.ones((1, x.n_clusters))
    weights[0, 2] = 0.0
    smaller = sum_kernel_blocks(leave_out(x, 2), y, blocks.bandwidth).of_generated()
    expected = smaller.distances(np.ones((1, x.n_clusters - 1)))[0]
    assert blocks.of_generated().distances(weights)[0] == pytest.approx(expected, rel=1e-10)


def test_the_change_of_the_bandwidth_is_that_of_the_median_without_a_cluster():
    y = make_clusters(7, 3, 4, seed=2)
    expected = [median_distance(leave_out(y, cluster)) - median_distance(y) for cluster in range(7)]
    np.testing.assert_allclose(change_median_distance(y), expected, rtol=0, atol=1e-12)


def test_a_reference_track_that_is_left_out_changes_the_bandwidth_as_well():
    x, y = make_clusters(9, 3, 4, seed=1), make_clusters(8, 2, 4, seed=2)
    replicator = prepare_blocks(x, y).of_reference()
    full, found = leave_one_out(replicator)
    expected = [kernel_distance(x, leave_out(y, cluster)) for cluster in range(8)]
    fixed = [
        float(blocks.of_generated().distances(np.ones((1, 9)))[0])
        for blocks in (
            sum_kernel_blocks(x, leave_out(y, cluster), median_distance(y)) for cluster in range(8)
        )
    ]
    # to first order in the change of the bandwidth, which is up to a tenth here
    assert np.abs(found - expected).max() < 0.15 * np.abs(np.subtract(fixed, expected)).max()
    assert full == pytest.approx(kernel_distance(x, y), rel=1e-10)


def test_pooled_prompts_count_by_their_share_of_the_clips():
    # Strata far apart: leaving out same-clip pairs must not make pairs of different prompts more frequent.
    rng = np.random.default_rng(0)
    parts = [
        cluster_embeddings(wrap(rng.normal(size=(3, 2)) + shift), "generated") for shift in (-50.0, 50.0)
    ]
    reference = make_clusters(20, 1, 2, seed=3, scale=50.0)
    blocks = prepare_blocks(stack_strata(parts), reference)
    side = blocks.generated
    kernel = np.exp(-cdist(*[stack_strata(parts).vectors] * 2, "sqeuclidean") / (2 * blocks.bandwidth**2))
    off = ~np.eye(3, dtype=bool)
    means = [kernel[:3, :3][off].mean(), kernel[3:, 3:][off].mean(), kernel[:3, 3:].mean()]
    expected = 0.25 * means[0] + 0.25 * means[1] + 0.5 * means[2]
    assert side.means(np.ones((1, 6)))[0] == pytest.approx(expected, rel=1e-10)


def test_thinned_clusters_keep_every_cluster_and_spread_over_it():
    clusters = cluster_embeddings(wrap(np.arange(60.0)[:, None], 20), "generated")
    thin = thin_clusters(clusters, 12)
    np.testing.assert_array_equal(thin.sizes, [4, 4, 4])
    np.testing.assert_array_equal(thin.rows(1).ravel(), [22, 27, 32, 37])
    assert thin_clusters(clusters, 60) is clusters


def test_one_clip_has_no_kernel_distance():
    with pytest.raises(UnscoredError, match=r"generated embeddings: one clip only; .* needs at least 2"):
        kernel_distance(make_clusters(1, 5, 3), make_clusters(5, 2, 3))


def test_reference_of_equal_vectors_has_no_bandwidth():
    constant = cluster_embeddings(wrap(np.full((6, 3), 7.0)), "reference")
    with pytest.raises(UnscoredError, match="median pairwise distance is 0"):
        kernel_distance(make_clusters(5, 2, 3), constant)


def test_constant_generated_set_is_far_from_a_varied_reference():
    constant = cluster_embeddings(wrap(np.full((6, 3), 3.0)), "generated")
    reference = make_clusters(30, 1, 3)
    assert (
        kernel_distance(constant, reference)
        > kernel_distance(make_clusters(6, 1, 3, seed=4), reference) + 10.0
    )
