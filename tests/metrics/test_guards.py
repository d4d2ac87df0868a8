from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from support.embedding_sets import make_clusters, wrap

from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.clusters import average_clips, cluster_embeddings
from lora_bench.metrics.guards import (
    CodeIndex,
    compare_nearness,
    diversity_ratio,
    find_nearest,
    mean_pairwise_distance,
    measure_silence,
    repetition,
)


def test_mean_distance_is_between_clips_only():
    clusters = make_clusters(6, 3, 4)
    labels = clusters.labels()
    distances = cdist(clusters.vectors, clusters.vectors)
    expected = distances[labels[:, None] < labels[None, :]].mean()
    assert mean_pairwise_distance(clusters) == pytest.approx(expected, rel=1e-9)
    single = make_clusters(8, 1, 4)
    assert mean_pairwise_distance(single) == pytest.approx(pdist(single.vectors).mean(), rel=1e-9)


def test_half_the_spread_is_half_the_diversity():
    reference = make_clusters(30, 2, 4)
    halved = cluster_embeddings(wrap(reference.vectors / 2.0 + 7.0, 2), "generated")
    assert diversity_ratio(halved, reference) == pytest.approx(0.5, rel=1e-9)


def test_collapsed_set_has_no_diversity():
    constant = cluster_embeddings(wrap(np.ones((8, 4)), 2), "generated")
    assert diversity_ratio(constant, make_clusters(10, 2, 4)) == 0.0


def test_diversity_against_a_constant_reference_is_undefined():
    constant = cluster_embeddings(wrap(np.ones((8, 4)), 2), "reference")
    with pytest.raises(UnscoredError, match="all reference vectors are equal"):
        diversity_ratio(make_clusters(10, 2, 4), constant)


def test_one_clip_has_no_diversity():
    with pytest.raises(UnscoredError, match="one clip only"):
        diversity_ratio(make_clusters(1, 5, 4), make_clusters(10, 2, 4))


def test_silence_counts_clips_and_blocks_below_the_threshold():
    loud, quiet = np.full(1000, 0.5), np.full(1000, 1e-4)
    half = np.concatenate([loud[:500], quiet[:500]])
    found = measure_silence([loud, quiet, half], 250)
    assert found.clip_frac == pytest.approx(1 / 3)
    assert found.block_frac == pytest.approx((0 + 4 + 2) / 12)
    assert found.n_clips == 3


def test_silence_averages_channels_and_takes_the_short_last_block():
    stereo = np.stack([np.full(130, 0.5), np.zeros(130)])
    found = measure_silence([stereo], 100)
    assert (found.clip_frac, found.block_frac) == (0.0, 0.0)
    assert measure_silence([np.concatenate([np.full(100, 0.5), np.zeros(30)])], 100).block_frac == 0.5


@pytest.mark.parametrize("clip", [np.zeros(0), np.array([0.0, np.nan])])
def test_empty_or_damaged_clip_has_no_silence_rate(clip):
    with pytest.raises(ScoreError, match="clip 1 is empty or holds values that are not finite"):
        measure_silence([np.ones(4), clip], 2)


def test_no_clips_are_not_zero_silence():
    with pytest.raises(ScoreError, match="no clip"):
        measure_silence([], 2)


def test_exact_loop_repeats_fully_and_noise_does_not():
    rng = np.random.default_rng(0)
    bar = rng.normal(size=(20, 8))
    assert repetition(np.tile(bar, (5, 1)), 10) == pytest.approx(1.0, abs=0.05)
    assert repetition(np.concatenate([bar, bar]), 20) == pytest.approx(1.0)
    assert repetition(rng.normal(size=(100, 8)), 10) < 0.3


def test_frozen_clip_counts_as_repeating():
    assert repetition(np.full((40, 3), 5.0), 5) == 1.0


@given(seed=st.integers(0, 500))
@settings(max_examples=20, deadline=None)
def test_repetition_does_not_depend_on_level_and_lies_within_one(seed):
    frames = np.random.default_rng(seed).normal(size=(30, 4))
    value = repetition(frames, 5)
    assert -1.0 <= value <= 1.0
    assert repetition(10.0 * frames - 3.0, 5) == pytest.approx(value, rel=1e-9)


def test_clip_shorter_than_two_lags_has_no_repetition():
    with pytest.raises(ScoreError, match=r"shape \(9, 2\), expected \[frames, D\] with at least 2 x 5"):
        repetition(np.zeros((9, 2)), 5)


def test_a_generator_of_one_clip_has_no_diversity_although_its_windows_differ():
    windows = np.random.default_rng(0).normal(size=(4, 3))
    same = average_clips(wrap(np.tile(windows, (10, 1)), 4))
    assert diversity_ratio(cluster_embeddings(same, "generated"), make_clusters(10, 2, 3)) == pytest.approx(
        0.0, abs=1e-9
    )


def test_average_of_clips_is_one_vector_each():
    values = np.arange(12.0).reshape(6, 2)
    averaged = average_clips(wrap(values, 3, names=("a", "b")))
    np.testing.assert_allclose(averaged.values, [values[:3].mean(axis=0), values[3:].mean(axis=0)])
    assert averaged.clip_names == ("a", "b")
    assert list(averaged.clip_index) == [0, 1]


def test_copies_of_training_windows_are_found_by_track_and_row():
    rng = np.random.default_rng(0)
    tracks = [rng.normal(size=(40, 30)), rng.normal(size=(25, 30))]
    copies = np.stack([3.0 * tracks[1][7], tracks[0][39] + 0.01 * rng.normal(size=30)])
    found = find_nearest(copies, tracks)
    assert list(found.sets) == [1, 0]
    assert list(found.rows) == [7, 39]
    assert (found.similarities > 0.99).all()


def test_nearest_is_that_of_scipy():
    rng = np.random.default_rng(3)
    queries, training = rng.normal(size=(9, 5)), rng.normal(size=(40, 5))
    distances = cdist(queries, training, "cosine")
    found = find_nearest(queries, [training[:13], training[13:]])
    np.testing.assert_allclose(found.similarities, 1.0 - distances.min(axis=1), atol=1e-6)
    np.testing.assert_array_equal(found.sets * 13 + found.rows, distances.argmin(axis=1))


def test_nearest_is_the_same_with_any_number_of_threads():
    rng = np.random.default_rng(4)
    queries, tracks = rng.normal(size=(50, 20)), [rng.normal(size=(n, 20)) for n in range(1, 30)]
    one, many = find_nearest(queries, tracks), find_nearest(queries, tracks, n_threads=8)
    assert one.similarities.tobytes() == many.similarities.tobytes()
    assert (one.sets == many.sets).all()
    assert (one.rows == many.rows).all()


def test_silent_windows_resemble_nothing():
    assert find_nearest(np.zeros((1, 3)), [np.ones((2, 3))]).similarities[0] == 0.0


def test_clips_nearer_than_held_out_ones_are_counted():
    found = compare_nearness([0.2, 0.3, 0.99, 0.98], np.linspace(0.0, 0.5, 101))
    assert found.above_frac == 0.5
    assert found.held_out_median == pytest.approx(0.25)
    assert found.generated_median == pytest.approx(0.64)


def test_memorisation_needs_features_of_one_length():
    with pytest.raises(ScoreError, match="features of 3 and 4 numbers"):
        find_nearest(np.ones((2, 3)), [np.ones((2, 4))])


@pytest.mark.parametrize("training", [[], [np.ones((0, 3))], [np.full((2, 3), np.nan)]])
def test_memorisation_against_nothing_or_damage_is_an_error(training):
    with pytest.raises(ScoreError, match=r"no training vector|training features of shape"):
        find_nearest(np.ones((2, 3)), training)


@pytest.mark.parametrize("sides", [([], [0.1]), ([0.1], []), ([np.nan], [0.1])])
def test_nearness_of_nothing_or_damage_is_an_error(sides):
    with pytest.raises(ScoreError, match=r"expected finite \[clips\]"):
        compare_nearness(*sides)


def slide(codes, track):
    best = 0
    for shift in range(-len(codes) + 1, len(track)):
        best = max(
            best,
            sum(
                1 for t, code in enumerate(codes) if 0 <= t + shift < len(track) and track[t + shift] == code
            ),
        )
    return best / len(codes)


@given(seed=st.integers(0, 500), n=st.integers(1, 12), m=st.integers(1, 20), k=st.integers(1, 15))
@settings(max_examples=40, deadline=None)
def test_best_code_match_is_that_of_sliding_one_over_every_track(seed, n, m, k):
    rng = np.random.default_rng(seed)
    codes, *tracks = (rng.integers(0, 4, size=size) for size in (n, m, k))
    assert CodeIndex(tracks).best_match(codes) == pytest.approx(max(slide(codes, track) for track in tracks))


def test_copied_codes_match_fully_and_unknown_ones_not_at_all():
    track = np.random.default_rng(0).integers(0, 2048, size=3000)
    assert CodeIndex([track]).best_match(track[700:1100]) == 1.0
    assert CodeIndex([track]).best_match(np.full(5, 4000)) == 0.0


def test_a_stretch_over_the_seam_of_two_tracks_is_no_copy():
    one, other = np.arange(10), np.arange(10, 20)
    assert CodeIndex([one, other]).best_match(np.arange(5, 15)) == 0.5


@pytest.mark.parametrize("tracks", [[], [[1, 2], []]])
def test_codes_of_nothing_cannot_be_indexed(tracks):
    with pytest.raises(ScoreError, match="at least one in each"):
        CodeIndex(tracks)


def test_empty_codes_cannot_be_matched():
    with pytest.raises(ScoreError, match="0 codes"):
        CodeIndex([[1, 2, 3]]).best_match([])
