from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from sklearn.preprocessing import StandardScaler

from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.frechet import factor_covariance, fit_gaussian, frechet_distance


def frechet_by_sqrtm(x, y):
    """The textbook computation, as in fadtk and the common FID code."""
    mean1, mean2 = x.mean(axis=0), y.mean(axis=0)
    cov1, cov2 = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = linalg.sqrtm(cov1 @ cov2)
        if not np.isfinite(root).all():
            offset = 1e-6 * np.eye(len(cov1))
            root = linalg.sqrtm((cov1 + offset) @ (cov2 + offset))
    shift = mean1 - mean2
    return float(shift @ shift + np.trace(cov1) + np.trace(cov2) - 2.0 * np.trace(root).real)


def frechet_by_eigenvalues(x, y):
    """fadtk's other way: square roots of the eigenvalues of the product."""
    cov1, cov2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values = np.linalg.eigvals(cov1 @ cov2)
    shift = x.mean(axis=0) - y.mean(axis=0)
    roots = np.sqrt(np.maximum(values.real, 0.0)).sum()
    return float(shift @ shift + np.trace(cov1) + np.trace(cov2) - 2.0 * roots)


def coloured(rng, n, dim, *, shift=0.0):
    scales = np.exp(rng.normal(size=dim))
    return shift + (rng.normal(size=(n, dim)) * scales) @ linalg.qr(rng.normal(size=(dim, dim)))[0]


@pytest.mark.parametrize(("n", "m", "dim"), [(300, 400, 20), (130, 700, 64), (50, 60, 1), (21, 500, 20)])
def test_full_rank_distance_agrees_with_matrix_square_root_to_ten_digits(n, m, dim):
    rng = np.random.default_rng(n)
    x, y = coloured(rng, n, dim, shift=0.3), coloured(rng, m, dim)
    expected = frechet_by_sqrtm(x, y)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "m", "dim"), [(300, 400, 20), (200, 220, 64)])
def test_distance_agrees_with_eigenvalues_of_the_product(n, m, dim):
    rng = np.random.default_rng(n)
    x, y = coloured(rng, n, dim, shift=0.3), coloured(rng, m, dim)
    assert frechet_distance(x, y) == pytest.approx(frechet_by_eigenvalues(x, y), rel=1e-8)


@pytest.mark.parametrize(("n", "m", "dim"), [(10, 12, 60), (10, 300, 60), (300, 10, 60), (61, 60, 60)])
def test_distance_with_fewer_vectors_than_dimensions_agrees_with_eigenvalues(n, m, dim):
    # sqrtm loses half its digits on singular products, so the reference is exact algebra in fewer dimensions:
    # tr (S1 S2)^1/2 is the sum of the roots of the eigenvalues of A B^T B A^T.
    rng = np.random.default_rng(n + m)
    x, y = coloured(rng, n, dim, shift=0.3), coloured(rng, m, dim)
    a, b = (x - x.mean(axis=0)) / np.sqrt(n - 1), (y - y.mean(axis=0)) / np.sqrt(m - 1)
    values = np.linalg.eigvalsh((a @ b.T) @ (a @ b.T).T)
    shift = x.mean(axis=0) - y.mean(axis=0)
    expected = shift @ shift + (a**2).sum() + (b**2).sum() - 2.0 * np.sqrt(np.maximum(values, 0.0)).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x, y) == pytest.approx(frechet_by_sqrtm(x, y), rel=1e-4)


def seed_frechet(first, second):
    """The published table's computation on MFCC matrices (20, frames), in the files' single precision."""
    stats = [(np.mean(mfcc, axis=1), np.cov(mfcc)) for mfcc in (first, second)]
    (mean1, cov1), (mean2, cov2) = stats
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = linalg.sqrtm(cov1 @ cov2)
        if not np.isfinite(root).all():
            offset = 1e-6 * np.eye(len(cov1))
            root = linalg.sqrtm((cov1 + offset) @ (cov2 + offset))
    shift = mean1 - mean2
    return float(shift @ shift + np.trace(cov1) + np.trace(cov2) - 2.0 * np.trace(root).real)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_frames", [12, 300, 20_000])
def test_frame_standardised_mfcc_agree_with_the_seeds_computation_to_four_decimals(dtype, n_frames):
    # Each frame is standardised across its 20 coefficients, so the covariance has rank 19.
    rng = np.random.default_rng(n_frames)

    def mfcc():
        raw = coloured(rng, n_frames, 20, shift=rng.normal(size=20) * 5)
        return StandardScaler().fit_transform(np.ascontiguousarray(raw.T, dtype=dtype))

    first, second = mfcc(), mfcc()
    assert np.linalg.matrix_rank(np.cov(first), tol=1e-4) <= 19
    assert frechet_distance(first.T, second.T) == pytest.approx(seed_frechet(first, second), abs=5e-5)


def test_frame_standardised_mfcc_distance_is_zero_for_the_same_frames():
    rng = np.random.default_rng(0)
    frames = StandardScaler().fit_transform(coloured(rng, 500, 20).T).T
    assert frechet_distance(frames, frames) == 0.0


@pytest.mark.parametrize(("n", "dim"), [(100, 20), (15, 40), (2, 3), (500, 128)])
def test_distance_of_identical_sets_is_zero(n, dim):
    x = coloured(np.random.default_rng(1), n, dim, shift=100.0)
    assert frechet_distance(x, x.copy()) == 0.0


@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), m=st.integers(2, 40), dim=st.integers(1, 24))
@settings(max_examples=40, deadline=None)
def test_distance_is_symmetric_and_not_negative(seed, n, m, dim):
    rng = np.random.default_rng(seed)
    x, y = coloured(rng, n, dim), coloured(rng, m, dim)
    one, other = frechet_distance(x, y), frechet_distance(y, x)
    assert one >= 0.0
    assert one == pytest.approx(other, rel=1e-7, abs=1e-9)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), dim=st.integers(1, 24))
@settings(max_examples=40, deadline=None)
def test_shifting_a_set_costs_the_squared_length_of_the_shift(seed, n, dim):
    rng = np.random.default_rng(seed)
    x, shift = coloured(rng, n, dim), rng.normal(size=dim) * 3.0
    assert frechet_distance(x + shift, x) == pytest.approx(float(shift @ shift), rel=1e-7, abs=1e-9)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), dim=st.integers(2, 24))
@settings(max_examples=40, deadline=None)
def test_rotating_and_moving_both_sets_changes_nothing(seed, n, dim):
    rng = np.random.default_rng(seed)
    x, y = coloured(rng, n, dim), coloured(rng, 30, dim)
    turn, move = linalg.qr(rng.normal(size=(dim, dim)))[0], rng.normal(size=dim)
    turned = frechet_distance(x @ turn + move, y @ turn + move)
    assert turned == pytest.approx(frechet_distance(x, y), rel=1e-6, abs=1e-9)


def test_scaling_one_of_two_equal_sets_costs_the_square_of_the_excess_per_dimension():
    x = coloured(np.random.default_rng(5), 400, 6)
    x -= x.mean(axis=0)
    expected = 0.5**2 * np.trace(np.cov(x, rowvar=False))
    assert frechet_distance(1.5 * x, x) == pytest.approx(expected, rel=1e-9)


def test_distance_grows_as_a_set_is_damaged_more():
    rng = np.random.default_rng(6)
    reference, clean = rng.normal(size=(500, 16)), rng.normal(size=(300, 16))
    noise = rng.normal(size=clean.shape)
    distances = [frechet_distance(clean + amount * noise, reference) for amount in (0.0, 0.5, 1.0, 2.0)]
    assert distances == sorted(distances)
    assert distances[-1] > 5.0 * distances[0]


def test_constant_set_is_at_the_mean_shift_plus_the_others_variance():
    y = np.random.default_rng(7).normal(size=(200, 5))
    constant = np.full((50, 5), 2.0)
    expected = float(((2.0 - y.mean(axis=0)) ** 2).sum()) + np.trace(np.cov(y, rowvar=False))
    assert frechet_distance(constant, y) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(constant, np.full((9, 5), 3.0)) == pytest.approx(5.0, rel=1e-12)


def test_repeating_every_vector_changes_only_the_degrees_of_freedom():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(40, 4)), rng.normal(size=(60, 4))
    twice = np.concatenate([x, x])
    shrunk = x.mean(axis=0) + (x - x.mean(axis=0)) * np.sqrt(2 * 39 / 79)
    assert frechet_distance(twice, y) == pytest.approx(frechet_distance(shrunk, y), rel=1e-9)


def test_single_precision_input_is_computed_in_double_precision():
    rng = np.random.default_rng(9)
    x, y = (1000.0 + rng.normal(size=(300, 8))).astype(np.float32), rng.normal(size=(300, 8)) + 1000.0
    assert frechet_distance(x, y) == pytest.approx(frechet_by_sqrtm(x.astype(np.float64), y), rel=1e-9)


def test_singular_covariance_with_many_vectors_takes_the_eigenvalue_path():
    rng = np.random.default_rng(10)
    x = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 8))
    root = factor_covariance(np.cov(x, rowvar=False))
    assert root.shape == (8, 3)
    np.testing.assert_allclose(root @ root.T, np.cov(x, rowvar=False), atol=1e-10)


@pytest.mark.parametrize(("n", "dim"), [(5, 9), (9, 5), (30, 5)])
def test_fitted_gaussian_has_mean_trace_and_covariance_of_the_sample(n, dim):
    x = coloured(np.random.default_rng(11), n, dim)
    fitted = fit_gaussian(x)
    np.testing.assert_allclose(fitted.mean, x.mean(axis=0))
    np.testing.assert_allclose(fitted.root @ fitted.root.T, np.cov(x, rowvar=False), atol=1e-10)
    assert fitted.trace == pytest.approx(np.trace(np.cov(x, rowvar=False)))


def test_vectors_that_are_not_finite_are_refused_with_side_count_and_place():
    x = np.zeros((5, 3))
    x[3, 1], x[4, 0] = np.nan, np.inf
    with pytest.raises(
        ScoreError, match=r"generated embeddings: 2 of 5 vectors hold NaN .* the first is vector 3"
    ):
        frechet_distance(x, np.eye(3))


def test_sets_of_different_dimensions_are_refused_with_both():
    with pytest.raises(ScoreError, match="generated embeddings have 3 dimensions, the reference 4"):
        frechet_distance(np.eye(3), np.eye(4))


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_vectors_have_no_distance(n):
    with pytest.raises(
        UnscoredError, match=rf"reference embeddings: {n} vector\(s\), a distance needs at least 2"
    ):
        frechet_distance(np.eye(3), np.zeros((n, 3)))


def test_three_dimensional_input_is_refused_with_its_shape():
    with pytest.raises(ScoreError, match=r"shape \(2, 3, 4\), expected \[vectors, dimensions\]"):
        frechet_distance(np.zeros((2, 3, 4)), np.eye(4))
