from __future__ import annotations

import numpy as np
import pytest
from support.embedding_sets import make_clusters, make_embeddings, wrap

from lora_bench.errors import ScoreError
from lora_bench.metrics import replicates
from lora_bench.metrics.clusters import cluster_embeddings, stack_strata
from lora_bench.metrics.estimate import estimate_distance, estimate_text_match
from lora_bench.metrics.frechet import frechet_distance


def brute_force(generated, reference):
    """Delete-one jackknife of both sides by computing every distance anew."""
    full = frechet_distance(generated.vectors, reference.vectors)
    bias = variance = 0.0
    for clusters, other, flip in ((generated, reference, False), (reference, generated, True)):
        n = clusters.n_clusters
        values = []
        for gone in range(n):
            rest = clusters.take([place for place in range(n) if place != gone])
            pair = (other.vectors, rest) if flip else (rest, other.vectors)
            values.append(frechet_distance(*pair))
        bias += (n - 1) * (np.mean(values) - full)
        variance += (n - 1) / n * ((np.asarray(values) - np.mean(values)) ** 2).sum()
    return full, full - bias, np.sqrt(variance)


@pytest.mark.parametrize(("n", "windows", "dim"), [(12, 6, 5), (14, 1, 28), (10, 3, 20)])
def test_frechet_estimate_is_the_jackknife_of_both_sides(n, windows, dim):
    generated, reference = (
        make_clusters(n, windows, dim, seed=1, shift=0.3),
        make_clusters(n + 3, windows, dim, seed=2),
    )
    found = estimate_distance("frechet", generated, reference)
    value, corrected, se = brute_force(generated, reference)
    assert found.value == pytest.approx(value, rel=1e-9)
    assert found.corrected == pytest.approx(corrected, rel=1e-6)
    assert found.se == pytest.approx(se, rel=1e-6)
    assert found.ci_low < found.corrected < found.ci_high


def test_correction_removes_most_of_the_bias_of_two_equal_populations():
    plugin, corrected = [], []
    for trial in range(15):
        generated, reference = (
            make_clusters(60, 4, 8, seed=2 * trial),
            make_clusters(60, 4, 8, seed=2 * trial + 1),
        )
        found = estimate_distance("frechet", generated, reference)
        plugin.append(found.value)
        corrected.append(found.corrected)
    assert np.mean(plugin) > 0.2
    assert abs(np.mean(corrected)) < 0.15 * np.mean(plugin)


def test_interval_of_the_kernel_distance_is_around_the_unbiased_value_itself():
    found = estimate_distance(
        "mmd", make_clusters(30, 3, 4, seed=1), make_clusters(25, 3, 4, seed=2, shift=0.5)
    )
    assert found.corrected == found.value
    assert (found.ci_low + found.ci_high) / 2 == pytest.approx(found.value)
    assert found.provenance["bandwidth"] > 0.0


def test_standard_error_of_the_kernel_distance_matches_its_spread_over_samples():
    values, errors = [], []
    for trial in range(60):
        found = estimate_distance(
            "mmd",
            make_clusters(30, 2, 4, seed=2 * trial, shift=0.6),
            make_clusters(30, 2, 4, seed=2 * trial + 1),
        )
        values.append(found.value)
        errors.append(found.se)
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.3)


def test_dimension_above_half_of_the_clips_is_flagged_with_both_numbers():
    found = estimate_distance("frechet", make_clusters(20, 2, 11), make_clusters(30, 2, 11, seed=1))
    assert any("D = 11 is more than half of the 20 generated clips" in note for note in found.notes)
    assert any("mmd/" in note for note in found.notes)
    few = estimate_distance("frechet", make_clusters(20, 2, 10), make_clusters(30, 2, 10, seed=1))
    assert not any("D = 10" in note for note in few.notes)


def test_few_reference_tracks_are_what_limits_the_dimension():
    reference = cluster_embeddings(make_embeddings(40, 2, 6, clips_per_group=4), "reference")
    found = estimate_distance("frechet", make_clusters(20, 2, 6), reference)
    assert any("D = 6 is more than half of the 10 reference tracks" in note for note in found.notes)


def test_single_track_reference_gets_a_value_and_a_warning():
    reference = cluster_embeddings(make_embeddings(12, 2, 4, clips_per_group=12), "reference")
    generated = make_clusters(20, 2, 4, seed=1)
    found = estimate_distance("frechet", generated, reference)
    assert found.value == pytest.approx(frechet_distance(generated.vectors, reference.vectors), rel=1e-9)
    assert any("the reference is one track" in note for note in found.notes)


@pytest.mark.parametrize("sizes", [(1, 20), (20, 1), (2, 20)])
def test_too_few_clips_get_a_value_without_interval_and_the_reason(sizes):
    generated, reference = (make_clusters(n, 1 if n == 2 else 5, 3, seed=n) for n in sizes)
    found = estimate_distance("frechet", generated, reference)
    assert found.value > 0.0
    assert (found.corrected, found.se, found.ci_low, found.ci_high) == (None, None, None, None)
    assert any("no interval: too few" in note for note in found.notes)


def test_many_dimensions_of_few_tracks_get_a_value_without_interval_and_the_reason():
    found = estimate_distance("frechet", make_clusters(40, 2, 21), make_clusters(10, 2, 21, seed=1))
    assert found.value > 0.0
    assert (found.corrected, found.se, found.ci_low, found.ci_high) == (None, None, None, None)
    assert any(
        "no interval: D = 21 is more than twice the 10 reference tracks" in note for note in found.notes
    )


def test_two_clips_get_a_kernel_distance_without_interval():
    found = estimate_distance("mmd", make_clusters(2, 4, 3), make_clusters(20, 4, 3, seed=1))
    assert np.isfinite(found.value)
    assert found.se is None
    assert any("needs at least 3 clips" in note for note in found.notes)


def test_few_tracks_are_mentioned():
    found = estimate_distance("mmd", make_clusters(20, 2, 3), make_clusters(5, 2, 3, seed=1))
    assert any("only 5 reference tracks: the interval is rough" in note for note in found.notes)


def test_constant_sets_get_the_squared_shift_without_spread():
    generated, reference = (cluster_embeddings(wrap(np.full((12, 4), level), 2), "x") for level in (1.0, 3.0))
    found = estimate_distance("frechet", generated, reference)
    assert found.value == pytest.approx(16.0)
    assert found.corrected == pytest.approx(16.0)
    assert found.se == pytest.approx(0.0, abs=1e-6)


def test_identical_sets_have_plugin_zero():
    clusters = make_clusters(20, 3, 4)
    found = estimate_distance("frechet", clusters, clusters)
    assert found.value == 0.0
    assert np.isfinite(found.se)


def test_merging_clusters_where_replicates_are_costly_keeps_the_estimate(monkeypatch):
    generated, reference = make_clusters(60, 2, 6, seed=1, shift=0.4), make_clusters(60, 2, 6, seed=2)
    every = estimate_distance("frechet", generated, reference)
    monkeypatch.setattr(replicates, "count_replicates", lambda clusters: 20)
    merged = estimate_distance("frechet", generated, reference)
    assert merged.provenance["n_replicates"] == 40
    assert merged.value == every.value
    assert merged.corrected == pytest.approx(every.corrected, abs=0.3 * every.se)
    assert merged.se == pytest.approx(every.se, rel=0.4)


def test_replicates_become_fewer_as_they_become_costlier():
    counts = [replicates.count_replicates(make_clusters(dim, 3, dim)) for dim in (20, 200, 512)]
    assert counts == [1000, 625, 100]


def test_text_match_is_the_mean_cosine_with_the_standard_error_of_a_mean():
    rng = np.random.default_rng(0)
    vectors, text = rng.normal(size=(30, 8)) + 1.0, rng.normal(size=(1, 8)) + 1.0
    cosines = (vectors @ text[0]) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(text)
    found = estimate_text_match(cluster_embeddings(wrap(vectors), "generated"), text)
    assert found.value == found.corrected == pytest.approx(cosines.mean())
    assert found.se == pytest.approx(cosines.std(ddof=1) / np.sqrt(30), rel=1e-9)


def test_pooled_text_match_compares_every_prompt_with_its_own_text():
    parts = [cluster_embeddings(wrap(np.tile(row, (4, 1))), "generated") for row in np.eye(3)[:2]]
    assert estimate_text_match(stack_strata(parts), np.eye(3)[:2]).value == pytest.approx(1.0)
    assert estimate_text_match(stack_strata(parts), np.eye(3)[1::-1]).value == pytest.approx(0.0)


def test_single_clip_has_a_text_score_without_interval():
    found = estimate_text_match(make_clusters(1, 2, 4), np.ones((1, 4)))
    assert found.se is None
    assert any("one clip only" in note for note in found.notes)


@pytest.mark.parametrize("texts", [np.ones((3, 4)), np.ones((1, 5)), np.ones(4)])
def test_texts_that_do_not_fit_the_clips_are_refused_with_their_shape(texts):
    with pytest.raises(ScoreError, match="text embeddings: shape"):
        estimate_text_match(make_clusters(5, 2, 4), texts)


def test_zero_vector_has_no_direction():
    with pytest.raises(ScoreError, match="zero or not finite"):
        estimate_text_match(make_clusters(5, 2, 4), np.zeros((1, 4)))
