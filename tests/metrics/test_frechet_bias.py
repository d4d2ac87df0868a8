from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg
from sklearn.covariance import ledoit_wolf
from support.embedding_sets import make_clusters

from lora_bench.metrics.estimate import can_imitate, estimate_distance
from lora_bench.metrics.frechet import frechet_distance
from lora_bench.metrics.frechet_bias import ImitatedPair, _imitate, estimate_frechet_bias
from lora_bench.metrics.shrinkage import shrink_covariance, shrink_eigenvalues


def sample_covariance(n, spectrum, *, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, len(spectrum))) * np.sqrt(spectrum)
    return x.T @ x / n


@pytest.mark.parametrize(("n", "dim"), [(400, 100), (150, 100), (60, 100)])
def test_shrunk_covariance_is_nearer_the_population_than_the_sample(n, dim):
    spectrum = np.linspace(0.2, 3.0, dim)
    sample = sample_covariance(n, spectrum)
    shrunk = shrink_covariance(sample, n)
    assert np.linalg.norm(shrunk - np.diag(spectrum)) < np.linalg.norm(sample - np.diag(spectrum))
    assert np.trace(shrunk) == pytest.approx(np.trace(sample))
    assert np.linalg.eigvalsh(shrunk).min() > 0.0


@pytest.mark.parametrize(("n", "dim"), [(400, 100), (60, 100)])
def test_shrunk_eigenvalues_of_equal_population_values_are_nearly_equal_like_linear_shrinkage(n, dim):
    x = np.random.default_rng(1).normal(size=(n, dim))
    sample = x.T @ x / n
    linear = np.linalg.eigvalsh(ledoit_wolf(x, assume_centered=True)[0])
    found = shrink_eigenvalues(np.linalg.eigvalsh(sample), n)
    assert found.std() < 0.25 * np.linalg.eigvalsh(sample).std()
    assert np.abs(found - linear).mean() < 0.25


def test_with_many_observations_nothing_is_shrunk():
    spectrum = np.linspace(0.5, 2.0, 10)
    sample = sample_covariance(200_000, spectrum)
    np.testing.assert_allclose(np.linalg.eigvalsh(shrink_covariance(sample, 200_000)), spectrum, rtol=0.03)


def test_spread_of_shrunk_eigenvalues_is_that_of_the_population():
    spectrum = 1.0 / np.arange(1, 101) ** 0.7
    found = np.mean(
        [(shrink_covariance(sample_covariance(120, spectrum, seed=s), 120) ** 2).sum() for s in range(8)]
    )
    assert found == pytest.approx((spectrum**2).sum(), rel=0.15)


def test_imitation_draws_samples_like_the_one_it_imitates():
    clusters = make_clusters(40, 5, 6, seed=1, shift=2.0)
    imitation = _imitate(clusters)
    rng = np.random.default_rng(0)
    draws = [imitation.draw(rng, 1.0) for _ in range(300)]
    mean, covariance = np.mean([m for m, _ in draws], axis=0), np.mean([c for _, c in draws], axis=0)
    np.testing.assert_allclose(mean, clusters.vectors.mean(axis=0), atol=0.1)
    assert np.trace(covariance) == pytest.approx(np.trace(np.cov(clusters.vectors, rowvar=False)), rel=0.05)
    # Whole clusters vary: the variance of the mean is that of cluster means, not of single vectors.
    spread = np.mean([((m - mean) ** 2).sum() for m, _ in draws])
    means = clusters.vectors.reshape(40, 5, 6).mean(axis=1)
    assert spread == pytest.approx(means.var(axis=0, ddof=1).sum() / 40, rel=0.25)


def test_imitated_distance_is_that_of_its_two_gaussians():
    pair_of = [_imitate(make_clusters(40, 3, 5, seed=seed, shift=0.3 * seed)) for seed in (1, 2)]
    one, other = (item.covariance for item in pair_of)
    shift = pair_of[0].mean - pair_of[1].mean
    expected = (
        shift @ shift + np.trace(one) + np.trace(other) - 2.0 * np.trace(linalg.sqrtm(one @ other)).real
    )
    assert ImitatedPair(*pair_of).distance == pytest.approx(expected, rel=1e-8)


def test_first_order_part_that_is_subtracted_is_the_derivative_of_the_distance():
    pair = ImitatedPair(*(_imitate(make_clusters(40, 3, 5, seed=seed)) for seed in (1, 2)))
    ours, theirs = pair._ours, pair._theirs
    rng = np.random.default_rng(0)
    for step in (1e-4, 1e-5):
        nudge = rng.normal(size=(5, 5))
        moved = ours.covariance + step * (nudge + nudge.T)
        excess = pair._excess(ours.mean + step, moved, theirs.mean, theirs.covariance)
        assert abs(excess) < 2e3 * step**2  # what is left is of second order


def test_bias_of_equal_populations_is_found_where_dimension_is_near_the_number_of_clips():
    # Equal populations: the plug-in distance is all bias.
    plugin, found = [], []
    for trial in range(4):
        generated, reference = (make_clusters(60, 4, 48, seed=2 * trial + side) for side in (0, 1))
        plugin.append(frechet_distance(generated.vectors, reference.vectors))
        found.append(estimate_frechet_bias(generated, reference).bias)
    assert np.mean(found) == pytest.approx(np.mean(plugin), rel=0.12)


def test_ratio_is_one_where_the_bias_goes_with_one_over_n():
    found = estimate_frechet_bias(
        make_clusters(300, 2, 3, seed=1), make_clusters(300, 2, 3, seed=2, scale=1.3)
    )
    assert found.ratio == pytest.approx(1.0, abs=0.1)


def test_estimate_uses_imitations_only_above_half_of_the_clusters_and_says_so():
    near = estimate_distance("frechet", make_clusters(40, 2, 30, seed=1), make_clusters(40, 2, 30, seed=2))
    far = estimate_distance("frechet", make_clusters(40, 2, 10, seed=1), make_clusters(40, 2, 10, seed=2))
    assert "imitated" in near.provenance["bias"]
    assert "jackknife" in far.provenance["bias"]
    assert not can_imitate(make_clusters(12, 2, 30), make_clusters(40, 2, 30))


def test_single_vectors_per_clip_and_rank_deficient_data_can_be_imitated():
    rng = np.random.default_rng(0)
    flat = make_clusters(40, 1, 30, seed=1)
    low_rank = make_clusters(40, 1, 30, seed=2)
    low_rank.vectors[:] = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 30))
    found = estimate_frechet_bias(flat, low_rank)
    assert np.isfinite([found.bias, found.doubt, found.ratio]).all()
    assert found.ratio >= 1.0
