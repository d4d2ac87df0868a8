"""Strengths against an independent fit, and the coverage of their intervals with raters who differ."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy.special import expit

from lora_bench.errors import ScoreError
from lora_bench.listening.bradley_terry import estimate_strengths, find_connected, fit_strengths, to_share

TRUE = np.array([0.0, 0.4, 1.0, -0.5])
K = len(TRUE)
PAIRS = [(i, j) for i in range(K) for j in range(i)]


def draw_answers(
    chance: np.random.Generator, n_raters: int, spread: float, n_each: int = 3
) -> NDArray[np.float64]:
    """Preferences [R, K, K] of raters with strengths of their own around the true ones; some see no difference."""
    wins = np.zeros((n_raters, K, K))
    own = TRUE + chance.normal(0.0, spread, (n_raters, K))
    for i, j in PAIRS:
        is_tie = chance.random((n_raters, n_each)) < 0.2
        won = chance.random((n_raters, n_each)) < expit(own[:, i] - own[:, j])[:, None]
        shares = np.where(is_tie, 0.5, won).sum(axis=1)
        wins[:, i, j], wins[:, j, i] = shares, n_each - shares
    return wins


def test_strengths_and_their_naive_errors_equal_a_logistic_regression() -> None:
    wins = draw_answers(np.random.default_rng(0), 25, 0.5).sum(axis=0)
    rows, counts = [], []
    for i, j in PAIRS:
        row = np.zeros(K)
        row[i], row[j] = 1.0, -1.0
        rows.append(row[1:])
        counts.append((wins[i, j], wins[j, i]))
    reference = sm.GLM(np.array(counts), np.array(rows), family=sm.families.Binomial()).fit()
    values, covariance = fit_strengths(wins[None], prior=0.0)
    np.testing.assert_allclose(values[0], reference.params, rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance[0])), reference.bse, rtol=1e-5)


def test_the_error_over_many_raters_is_that_of_a_clustered_regression() -> None:
    wins = draw_answers(np.random.default_rng(1), 60, 1.5)
    rows, shares, groups = [], [], []
    for rater, own in enumerate(wins):
        for i, j in PAIRS:
            row = np.zeros(K)
            row[i], row[j] = 1.0, -1.0
            n = round(own[i, j] + own[j, i])
            rows += [row[1:]] * n
            shares += [own[i, j] / n] * n  # one row for each answer, and the same score of each rater
            groups += [rater] * n
    model = sm.GLM(np.array(shares), np.array(rows), family=sm.families.Binomial())
    reference = model.fit(cov_type="cluster", cov_kwds={"groups": np.array(groups)})
    found = estimate_strengths(wins, prior=0.0)
    np.testing.assert_allclose([item.value for item in found], reference.params, rtol=1e-6)
    # the jackknife is a little larger than the sandwich, by an amount that falls with the number of raters
    ratio = np.array([item.se for item in found]) / reference.bse
    assert np.all((ratio > 0.98) & (ratio < 1.1)), ratio


@pytest.mark.parametrize(("n_raters", "spread", "at_most"), [(6, 0.8, 1.0), (15, 1.2, 0.985)])
def test_intervals_cover_the_strengths_of_all_people(n_raters: int, spread: float, at_most: float) -> None:
    chance = np.random.default_rng(n_raters)
    of_all_people = fit_strengths(draw_answers(chance, 40_000, spread).sum(axis=0)[None])[0][0]
    n_runs, covered, naive = 400, np.zeros(K - 1), np.zeros(K - 1)
    for _ in range(n_runs):
        wins = draw_answers(chance, n_raters, spread)
        for place, item in enumerate(estimate_strengths(wins)):
            assert item.interval is not None
            low, high = item.interval
            covered[place] += low <= of_all_people[place] <= high
        values, covariance = fit_strengths(wins.sum(axis=0)[None])
        naive += np.abs(values[0] - of_all_people) <= 1.96 * np.sqrt(np.diag(covariance[0]))
    assert np.all(covered / n_runs >= 0.93), covered / n_runs
    assert np.all(covered / n_runs <= at_most), covered / n_runs
    assert np.all(naive < covered)  # the simulation can tell: independent answers would be too sure


def test_raters_who_all_agree_give_a_finite_strength_and_no_certainty() -> None:
    wins = np.zeros((3, 2, 2))
    wins[:, 1, 0] = 10.0
    (item,) = estimate_strengths(wins)
    assert item.interval is not None
    low, high = map(to_share, item.interval)
    assert 0.9 < to_share(item.value) < 1.0
    assert low < 0.9
    assert high > 0.99
    with pytest.raises(ScoreError, match="preferred always or never"):
        estimate_strengths(wins, prior=0.0)


def test_one_rater_gives_no_interval() -> None:
    (item,) = estimate_strengths(np.array([[[0.0, 2.0], [5.0, 0.0]]]))
    assert item.interval is None
    assert item.value == pytest.approx(np.log(5.5 / 2.5))


def test_a_configuration_that_no_comparison_leads_to_is_known() -> None:
    compared = np.zeros((4, 4))
    compared[0, 1] = compared[1, 0] = compared[2, 3] = compared[3, 2] = 1
    assert find_connected(compared) == [True, True, False, False]
    compared[1, 2] = compared[2, 1] = 1
    assert find_connected(compared) == [True] * 4
