from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.embedding_sets import make_clusters

from lora_bench.metrics import frechet_replicates as moments
from lora_bench.metrics.clusters import stack_strata
from lora_bench.metrics.frechet import fit_gaussian, frechet_distance
from lora_bench.metrics.frechet_replicates import FrechetReplicator
from lora_bench.metrics.jackknife import (
    Jackknife,
    leave_one_out,
    leave_one_out_weights,
    leave_out_means,
    make_interval,
    summarize_replicates,
)
from lora_bench.metrics.replicates import MeanReplicator


def subset(clusters, kept):
    return np.concatenate([clusters.rows(place) for place in np.flatnonzero(kept)])


@pytest.mark.parametrize(("n", "windows", "dim"), [(12, 5, 4), (10, 1, 30), (9, 3, 40), (30, 2, 8)])
def test_replicates_of_subsets_are_their_distances(n, windows, dim):
    clusters, reference = (
        make_clusters(n, windows, dim, seed=1),
        make_clusters(20, 3, dim, seed=2, shift=0.4).vectors,
    )
    replicator = FrechetReplicator(clusters, fit_gaussian(reference))
    kept = np.random.default_rng(0).integers(0, 2, size=(6, n)).astype(bool)
    kept[:, :3] = True
    expected = [frechet_distance(subset(clusters, row), reference) for row in kept]
    np.testing.assert_allclose(replicator.distances(kept.astype(float)), expected, rtol=1e-7)


def test_replicates_are_the_same_when_second_moments_are_too_large_to_keep(monkeypatch):
    clusters, fixed = make_clusters(12, 5, 4), fit_gaussian(make_clusters(20, 3, 4, seed=2).vectors)
    weights = np.random.default_rng(0).random((7, 12))
    kept = FrechetReplicator(clusters, fixed).distances(weights)
    monkeypatch.setattr(moments, "MAX_STORED_VALUES", 0)
    np.testing.assert_allclose(FrechetReplicator(clusters, fixed).distances(weights), kept, rtol=1e-12)


@given(seed=st.integers(0, 1000), dim=st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_whole_weights_count_a_cluster_as_often_as_they_say(seed, dim):
    clusters, reference = (
        make_clusters(8, 2, dim, seed=seed),
        make_clusters(15, 2, dim, seed=seed + 1).vectors,
    )
    weights = np.random.default_rng(seed).integers(0, 3, size=8)
    weights[0] = 2
    repeated = np.concatenate(
        [np.tile(clusters.rows(place), (count, 1)) for place, count in enumerate(weights)]
    )
    value = FrechetReplicator(clusters, fit_gaussian(reference)).distances(weights[None].astype(float))[0]
    assert value == pytest.approx(frechet_distance(repeated, reference), rel=1e-6, abs=1e-8)


def test_replicates_far_from_the_origin_keep_their_digits():
    clusters = make_clusters(20, 4, 6, seed=3, shift=1e5)
    reference = make_clusters(20, 4, 6, seed=4, shift=1e5).vectors
    weights = np.ones((1, 20))
    value = FrechetReplicator(clusters, fit_gaussian(reference)).distances(weights)[0]
    assert value == pytest.approx(frechet_distance(clusters.vectors, reference), rel=1e-8)


def test_leaving_a_cluster_out_keeps_every_stratums_share():
    sizes, strata = np.array([2.0, 3.0, 1.0, 4.0]), np.array([0, 0, 1, 1])
    weights = leave_one_out_weights(sizes, strata)
    counted = weights * sizes
    np.testing.assert_allclose(np.diag(weights), 0.0)
    np.testing.assert_allclose(counted.sum(axis=1), sizes.sum() - sizes)
    np.testing.assert_allclose(counted[:, :2].sum(axis=1) / counted.sum(axis=1), 0.5)


def test_leaving_out_of_one_stratum_counts_every_other_cluster_once():
    weights = leave_one_out_weights(np.array([2.0, 3.0, 1.0]), np.zeros(3, dtype=int))
    np.testing.assert_allclose(weights, 1.0 - np.eye(3))


class SquaredMean:
    """(mean)^2: its plug-in bias is the variance of the mean, and the jackknife removes it exactly."""

    def __init__(self, values):
        self.values = values
        self.sizes = np.ones(len(values))
        self.strata = np.zeros(len(values), dtype=np.int64)

    def distances(self, weights):
        return ((weights @ self.values) / weights.sum(axis=1)) ** 2


def test_jackknife_removes_the_bias_of_a_squared_mean_exactly():
    values = np.random.default_rng(0).normal(size=25) + 1.0
    replicator = SquaredMean(values)
    full, replicates = leave_one_out(replicator)
    found = summarize_replicates(full, replicates, replicator.sizes, replicator.strata)
    assert found.bias == pytest.approx(values.var(ddof=1) / 25, rel=1e-9)
    assert found.freedom == 24


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_jackknife_of_a_mean_has_no_bias_and_the_textbook_variance(seed):
    values = np.random.default_rng(seed).normal(size=13)
    replicator = MeanReplicator(values, np.ones(13), np.zeros(13, dtype=np.int64))
    full, replicates = leave_one_out(replicator)
    found = summarize_replicates(full, replicates, replicator.sizes, replicator.strata)
    assert found.bias == pytest.approx(0.0, abs=1e-12)
    assert found.variance == pytest.approx(values.var(ddof=1) / 13, rel=1e-9)


def test_variance_of_clusters_of_unequal_size_follows_the_larger_ones():
    # Cluster means of equal spread: the variance of the pooled mean is sum (m_j / n)^2, not 1 / g.
    rng = np.random.default_rng(0)
    sizes = np.array([30.0] + [1.0] * 60)
    strata = np.zeros(61, dtype=np.int64)
    variances = []
    for _ in range(120):
        means = rng.normal(size=61)
        replicator = MeanReplicator(means * sizes, sizes, strata)
        variances.append(summarize_replicates(*leave_one_out(replicator), sizes, strata).variance)
    expected = ((sizes / sizes.sum()) ** 2).sum()
    assert np.mean(variances) > 0.6 * expected
    assert 0.2 * expected > 1.0 / 61


def test_strata_add_up_and_differences_between_them_are_no_error():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=20), 100.0 + rng.normal(size=20)])
    strata = np.repeat([0, 1], 20)
    replicator = MeanReplicator(values, np.ones(40), strata)
    found = summarize_replicates(*leave_one_out(replicator), np.ones(40), strata)
    expected = (values[:20].var(ddof=1) + values[20:].var(ddof=1)) / 20 / 4
    assert found.variance == pytest.approx(expected, rel=0.1)
    assert found.freedom == 38


def test_frechet_of_pooled_prompts_ignores_how_far_the_prompts_are_apart():
    reference = fit_gaussian(make_clusters(60, 1, 3, seed=9).vectors)
    parts = [make_clusters(30, 2, 3, seed=seed, shift=shift) for seed, shift in ((1, 0.0), (2, 8.0))]
    stratified = stack_strata(parts)
    replicator = FrechetReplicator(stratified, reference)
    full, replicates = leave_one_out(replicator)
    by_prompt = summarize_replicates(full, replicates, replicator.sizes, replicator.strata)
    replicator.strata = np.zeros(60, dtype=np.int64)
    as_one = summarize_replicates(*leave_one_out(replicator), replicator.sizes, replicator.strata)
    assert by_prompt.variance < 0.5 * as_one.variance


def test_lone_cluster_gives_no_variance():
    assert summarize_replicates(1.0, np.array([1.0]), np.array([3.0]), np.array([0])) is None


def test_interval_has_students_width_for_one_side_and_adds_variances_of_two():
    one = make_interval(2.0, [Jackknife(0.0, 4.0, 9.0)])
    assert one.se == 2.0
    assert (one.low, one.high) == pytest.approx((2.0 - 2 * 2.262157, 2.0 + 2 * 2.262157), rel=1e-6)
    both = make_interval(0.0, [Jackknife(0.0, 4.0, 9.0), Jackknife(0.0, 4.0, 9.0)])
    assert both.se == pytest.approx(np.sqrt(8.0))
    assert both.high == pytest.approx(2.100922 * np.sqrt(8.0), rel=1e-6)


def test_interval_without_variance_is_the_point():
    interval = make_interval(1.5, [Jackknife(0.0, 0.0, 3.0)])
    assert (interval.se, interval.low, interval.high) == (0.0, 1.5, 1.5)


def test_means_without_a_cluster_are_those_of_the_other_vectors():
    vectors = np.random.default_rng(5).normal(size=(9, 4))
    sizes = np.array([2, 1, 4, 2])
    groups = np.repeat(np.arange(4), sizes)
    sums = np.stack([vectors[groups == group].sum(axis=0) for group in range(4)])
    expected = [vectors[groups != group].mean(axis=0) for group in range(4)]
    assert leave_out_means(sums, sizes) == pytest.approx(np.stack(expected))
    single = [np.delete(vectors, place, axis=0).mean(axis=0) for place in range(9)]
    assert leave_out_means(vectors) == pytest.approx(np.stack(single))
