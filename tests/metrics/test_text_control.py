"""Whether prompts can still be distinguished, and how far they moved towards the genre."""

from __future__ import annotations

import numpy as np
import pytest
from support.embedding_sets import wrap

from lora_bench.errors import UnscoredError
from lora_bench.metrics.text_control import (
    compare_separation,
    measure_pull,
    measure_retention,
    measure_separation,
    pair_prompts,
    tell_prompts,
)

DIM, N = 6, 30


def make_sets(*shifts, n=N, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(n, DIM)) + np.eye(DIM)[place] * shift for place, shift in enumerate(shifts))


def wrap_means(vectors):
    return wrap(vectors, 1)


def test_separation_is_the_squared_distance_over_the_variance_within():
    values = [measure_separation(make_sets(3.0, 0.0, n=400, seed=s))[0] for s in range(5)]
    # |mu1 - mu2|^2 = 9, variance within = trace of the identity = 6
    assert np.mean(values) == pytest.approx(9.0 / 6.0, rel=0.05)


def test_separation_of_equal_prompts_is_zero_on_average():
    values = [measure_separation(make_sets(0.0, 0.0, 0.0, n=10, seed=s))[0].mean() for s in range(400)]
    assert abs(np.mean(values)) < 3.0 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0.0  # unbiased, so not bounded by zero


def test_replicates_without_a_clip_are_those_computed_from_scratch():
    sets = make_sets(1.0, 0.0, 2.0, n=5)
    _, replicates = measure_separation(sets)
    for place, values in enumerate(replicates):
        for clip in range(5):
            left = list(sets)
            left[place] = np.delete(sets[place], clip, axis=0)
            np.testing.assert_allclose(values[clip], measure_separation(left)[0], rtol=1e-9)


def test_told_apart_is_that_of_leaving_every_clip_out():
    sets = make_sets(1.0, 0.5, n=8)
    expected = []
    for place, vectors in enumerate(sets):
        right = 0
        for clip, vector in enumerate(vectors):
            means = [one.mean(axis=0) for one in sets]
            means[place] = np.delete(vectors, clip, axis=0).mean(axis=0)
            right += int(np.argmin([np.linalg.norm(vector - mean) for mean in means]) == place)
        expected.append(right / len(vectors))
    np.testing.assert_allclose(tell_prompts(sets), expected)


def make_control(*, tuned_shifts, base_shifts=(3.0, 3.0), towards=0.0, seed=0, n=N):
    """Base clips, tuned clips with other distances between prompts, moved towards a genre far away."""
    rng = np.random.default_rng(10_000 + seed)  # not the draws of the base's clips
    genre = np.full(DIM, 5.0)
    base = make_sets(*base_shifts, n=n, seed=seed)
    tuned = []
    for place, vectors in enumerate(base):
        centre = vectors.mean(axis=0)
        # the variance within the prompt stays 1 = 0.96 + 0.2 squared
        moved = centre + np.sqrt(0.96) * (vectors - centre)
        moved = moved + np.eye(DIM)[place] * (tuned_shifts[place] - base_shifts[place])
        target = genre - centre
        share = towards[place] if isinstance(towards, tuple) else towards
        tuned.append(moved + share * target + 0.2 * rng.normal(size=vectors.shape))
    reference = rng.normal(size=(60, DIM)) + genre
    return pair_prompts([wrap_means(v) for v in base], [wrap_means(v) for v in tuned], wrap(reference, 3))


def test_prompts_that_fell_together_have_lost_separation_and_others_have_not():
    *_, lost = compare_separation(make_control(tuned_shifts=(0.0, 0.0)))
    assert all(change.ci_high < 0.0 for change in lost)
    *_, kept = compare_separation(make_control(tuned_shifts=(3.0, 3.0)))
    assert all(change.ci_low < 0.0 < change.ci_high for change in kept)


def test_interval_of_the_change_of_separation_covers_no_change_about_as_often_as_it_says():
    inside = 0
    n_trials = 200
    for seed in range(n_trials):
        rng = np.random.default_rng(1000 + seed)
        base = make_sets(1.0, 0.0, n=20, seed=seed)
        # the same generator with partly shared noise
        tuned = tuple(
            vectors.mean(axis=0) * 0.0
            + np.eye(DIM)[place] * (1.0 - place)
            + 0.6 * (vectors - np.eye(DIM)[place] * (1.0 - place))
            + 0.8 * rng.normal(size=vectors.shape)
            for place, vectors in enumerate(base)
        )
        sets = pair_prompts(
            [wrap_means(v) for v in base], [wrap_means(v) for v in tuned], wrap(rng.normal(size=(20, DIM)), 2)
        )
        change = compare_separation(sets)[2][-1]
        inside += change.ci_low <= 0.0 <= change.ci_high
    assert 0.89 <= inside / n_trials <= 0.99


def test_pull_is_the_share_of_the_way_to_the_recordings():
    pulls = measure_pull(make_control(tuned_shifts=(3.0, 3.0), towards=(0.5, 0.1)), np.array([-1.0, 1.0]))
    assert [pull.value for pull in pulls] == pytest.approx([0.5, 0.1, 0.3, -0.4], abs=0.03)
    assert all(pull.ci_low < pull.value < pull.ci_high for pull in pulls)
    assert pulls[-1].ci_high < 0.0


def test_pull_without_a_move_is_zero_on_average_although_base_and_way_share_their_clips():
    values = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        base, tuned = rng.normal(size=(2, 6, DIM))  # independent noise, so that a naive ratio is biased
        reference = rng.normal(size=(12, DIM)) + 2.0
        sets = pair_prompts([wrap_means(base)], [wrap_means(tuned)], wrap(reference, 1))
        values.append(measure_pull(sets)[0].value)
    assert abs(np.mean(values)) < 3.5 * np.std(values) / np.sqrt(len(values))


def test_one_prompt_has_nothing_to_be_told_from():
    with pytest.raises(UnscoredError, match="one prompt only"):
        measure_separation(make_sets(1.0))


def test_equal_clips_have_no_spread_to_relate_to():
    with pytest.raises(UnscoredError, match="all clips of every prompt are equal"):
        measure_separation((np.ones((4, DIM)), np.zeros((4, DIM))))


def test_too_few_pairs_are_said():
    with pytest.raises(UnscoredError, match=r"2 clip\(s\) are in both sets"):
        pair_prompts([wrap_means(np.eye(2))], [wrap_means(np.eye(2))], wrap_means(np.eye(2)))


def test_retention_is_one_less_the_length_of_the_move_over_the_way():
    rng = np.random.default_rng(0)
    base = 4.0 * np.array([1.0, 0.0, 0.0]) + rng.normal(size=(200, 3))
    reference = wrap(rng.normal(size=(300, 3)))
    aside = base + np.array([0.0, 1.0, 0.0])
    sets = pair_prompts([wrap(base), wrap(base)], [wrap(base), wrap(aside)], reference)
    same, moved, mean, weighted = measure_retention(sets, np.array([0.0, 1.0]))
    assert same.value == same.ci_low == same.ci_high == 1.0
    assert moved.value == pytest.approx(0.75, abs=0.01)
    assert moved.ci_low < moved.value < moved.ci_high < 1.0
    assert weighted.value == moved.value
    assert moved.value < mean.value < 1.0


def test_retention_is_nearly_whole_where_only_noise_moved():
    rng = np.random.default_rng(1)
    base = 4.0 + rng.normal(size=(60, 3))
    found = measure_retention(
        pair_prompts(
            [wrap(base)], [wrap(base + 0.5 * rng.normal(size=base.shape))], wrap(rng.normal(size=(40, 3)))
        )
    )[0]
    assert found.ci_high == 1.0
