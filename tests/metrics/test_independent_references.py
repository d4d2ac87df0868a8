"""Metrics against statsmodels, prdc and torchmetrics, which compute the same from other formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from sklearn.metrics.pairwise import rbf_kernel
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW
from support.embedding_sets import kernel_distance, make_clusters
from torchmetrics.image.kid import maximum_mean_discrepancy

from lora_bench.metrics.estimate import estimate_text_match
from lora_bench.metrics.jackknife import join_freedom, make_interval, summarize_replicates
from lora_bench.metrics.kernel import median_distance
from lora_bench.metrics.manifold import measure_manifold
from lora_bench.metrics.t_distribution import t_probability


def leave_one_out_of_mean(values):
    """The jackknife of a mean, each value a cluster of its own."""
    n = len(values)
    replicates = (values.sum() - values) / (n - 1)
    return summarize_replicates(float(values.mean()), replicates, np.ones(n), np.zeros(n, dtype=np.int64))


def test_the_jackknife_of_two_means_gives_welchs_interval_and_p_value():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.4, 1.0, 9), rng.normal(0.0, 3.0, 17)
    sides = [leave_one_out_of_mean(values) for values in (one, other)]
    difference = float(one.mean() - other.mean())
    compared = CompareMeans(DescrStatsW(one), DescrStatsW(other))
    _, p_value, freedom = compared.ttest_ind(usevar="unequal")
    interval = make_interval(difference, sides)
    assert join_freedom(sides) == pytest.approx(freedom, rel=1e-12)
    assert (interval.low, interval.high) == pytest.approx(compared.tconfint_diff(usevar="unequal"), rel=1e-12)
    assert t_probability(difference / interval.se, join_freedom(sides)) == pytest.approx(p_value, rel=1e-10)


def test_the_interval_of_the_text_score_is_clustered_by_clip():
    clips, text = make_clusters(12, 5, 8, seed=1, shift=0.3, clip_share=0.8), np.ones((1, 8))
    cosines = clips.vectors @ text[0] / np.linalg.norm(clips.vectors, axis=1) / np.sqrt(8.0)
    fit = OLS(cosines, np.ones(len(cosines))).fit(
        cov_type="cluster", cov_kwds={"groups": clips.labels()}, use_t=True
    )
    found = estimate_text_match(clips, text)
    assert found.value == pytest.approx(fit.params[0], rel=1e-12)
    assert found.se == pytest.approx(fit.bse[0], rel=1e-10)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(fit.conf_int()[0]), rel=1e-10)
    naive = OLS(cosines, np.ones(len(cosines))).fit().bse[0]
    assert found.se > 1.5 * naive


@pytest.mark.parametrize("shift", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("k", [1, 5])
def test_precision_recall_density_and_coverage_are_those_of_prdc(shift, k):
    rng = np.random.default_rng(int(10 * shift) + k)
    reference, generated = rng.normal(size=(60, 7)), rng.normal(size=(45, 7)) + shift
    expected = compute_prdc(real_features=reference, fake_features=generated, nearest_k=k)
    found = measure_manifold(generated, reference, k)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=1e-12), name


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_kernel_distance_of_single_vectors_is_torchmetrics_unbiased_discrepancy(shift):
    # torchmetrics takes sets of one size
    generated, reference = make_clusters(20, 1, 6, seed=1, shift=shift), make_clusters(20, 1, 6, seed=2)
    gamma = 0.5 / median_distance(reference) ** 2
    sides = (generated.vectors, reference.vectors)
    kernels = [
        torch.from_numpy(rbf_kernel(*pair, gamma=gamma))
        for pair in ((sides[0], sides[0]), sides, (sides[1], sides[1]))
    ]
    expected = 100.0 * float(maximum_mean_discrepancy(*kernels))
    assert kernel_distance(generated, reference) == pytest.approx(expected, rel=1e-9, abs=1e-12)
