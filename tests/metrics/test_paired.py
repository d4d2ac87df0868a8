from __future__ import annotations

import numpy as np
import pytest
from support.embedding_sets import kernel_distance, make_clusters, wrap

from lora_bench.metrics.clusters import cluster_embeddings, stack_strata
from lora_bench.metrics.frechet import frechet_distance
from lora_bench.metrics.paired import (
    estimate_difference,
    pair_frechet,
    pair_kernel,
    pair_texts,
    swap_labels,
)
from lora_bench.metrics.verdicts import N_PERMUTATIONS, smallest_p_value


def noisy_copy(clusters, *, seed, amount=0.3, shift=0.0):
    rng = np.random.default_rng(seed)
    values = clusters.vectors + shift + amount * rng.normal(size=clusters.vectors.shape)
    return cluster_embeddings(wrap(values, int(clusters.sizes[0])), "generated")


BASE = make_clusters(16, 3, 4, seed=1)
TUNED = noisy_copy(BASE, seed=2, shift=0.2)
REFERENCE = make_clusters(20, 3, 4, seed=3, shift=0.4)


@pytest.mark.parametrize("n_pairs", [3, 5, 8])
def test_few_pairs_cannot_have_a_smaller_p_value_than_is_said(n_pairs):
    base, far = make_clusters(n_pairs, 2, 2, seed=1), make_clusters(n_pairs, 2, 2, seed=1, shift=50.0)
    p_value, _, _ = swap_labels(
        pair_frechet(base, far, make_clusters(20, 2, 2, seed=2)).stacked, N_PERMUTATIONS, 0
    )
    assert p_value == smallest_p_value(n_pairs)


def test_frechet_difference_is_that_of_the_two_distances():
    found = estimate_difference(pair_frechet(BASE, TUNED, REFERENCE), 9, 0)
    one, other = (frechet_distance(item.vectors, REFERENCE.vectors) for item in (BASE, TUNED))
    assert found.plugin == pytest.approx(other - one, rel=1e-8)


def test_kernel_difference_is_that_of_the_two_distances_and_is_not_corrected_much():
    found = estimate_difference(pair_kernel(BASE, TUNED, REFERENCE), 9, 0)
    assert found.plugin == pytest.approx(
        kernel_distance(TUNED, REFERENCE) - kernel_distance(BASE, REFERENCE), rel=1e-8
    )
    assert abs(found.delta - found.plugin) < 0.2 * found.se


def test_interval_is_the_jackknife_of_pairs_and_of_references():
    found = estimate_difference(pair_frechet(BASE, TUNED, REFERENCE), 9, 0)

    def delta(kept, tracks):
        reference = REFERENCE.take(tracks)
        return frechet_distance(TUNED.take(kept), reference) - frechet_distance(BASE.take(kept), reference)

    clips, tracks = list(range(16)), list(range(20))
    full, bias, variance = delta(clips, tracks), 0.0, 0.0
    for values in (
        [delta([k for k in clips if k != gone], tracks) for gone in clips],
        [delta(clips, [k for k in tracks if k != gone]) for gone in tracks],
    ):
        n = len(values)
        bias += (n - 1) * (np.mean(values) - full)
        variance += (n - 1) / n * ((np.asarray(values) - np.mean(values)) ** 2).sum()
    assert found.delta == pytest.approx(full - bias, rel=1e-6)
    assert found.se == pytest.approx(np.sqrt(variance), rel=1e-6)


def test_pairing_makes_the_interval_narrower_than_that_of_strangers():
    stranger = make_clusters(16, 3, 4, seed=77, shift=0.2)
    paired = estimate_difference(pair_frechet(BASE, TUNED, REFERENCE), 9, 0)
    unpaired = estimate_difference(pair_frechet(BASE, stranger, REFERENCE), 9, 0)
    assert paired.se < 0.7 * unpaired.se


@pytest.mark.parametrize("pair", [pair_frechet, pair_kernel])
def test_swapping_a_pair_exchanges_its_clips(pair):
    sets = pair(BASE, TUNED, REFERENCE)
    distance = (
        (lambda x: frechet_distance(x.vectors, REFERENCE.vectors))
        if pair is pair_frechet
        else (lambda x: kernel_distance(x, REFERENCE))
    )
    swapped = np.zeros(16)
    swapped[[0, 5, 6]] = 1.0
    rows = [(BASE if flag else TUNED).rows(place) for place, flag in enumerate(swapped)]
    mixed = cluster_embeddings(wrap(np.concatenate(rows), 3), "generated")
    value = sets.stacked.distances(np.concatenate([swapped, 1.0 - swapped])[None])[0]
    assert value == pytest.approx(distance(mixed), rel=1e-8)


@pytest.mark.parametrize("pair", [pair_frechet, pair_kernel])
def test_adapter_that_changes_nothing_has_p_value_one_and_delta_zero(pair):
    found = estimate_difference(pair(BASE, BASE, REFERENCE), 99, 0)
    assert found.p_value == 1.0
    assert found.delta == pytest.approx(0.0, abs=1e-9)


def test_large_difference_has_the_smallest_possible_p_value():
    far = noisy_copy(BASE, seed=4, shift=3.0)
    found = estimate_difference(pair_frechet(BASE, far, REFERENCE), 199, 0)
    assert found.p_value == pytest.approx(1 / 200)
    assert found.n_swaps == 200
    assert found.ci_low > 0.0


def test_few_pairs_try_every_assignment_of_labels():
    base, far = make_clusters(5, 3, 2, seed=1), make_clusters(5, 3, 2, seed=2, shift=9.0)
    p_value, n_swaps, observed = swap_labels(pair_frechet(base, far, REFERENCE_2D).stacked, 999, 0)
    assert n_swaps == 32
    assert p_value == pytest.approx(2 / 32)  # as it is, and with all labels exchanged
    assert observed > 0.0


REFERENCE_2D = make_clusters(10, 3, 2, seed=3)


def test_p_value_depends_on_the_seed_only():
    sets = pair_frechet(BASE, TUNED, REFERENCE)
    assert swap_labels(sets.stacked, 50, 1) == swap_labels(sets.stacked, 50, 1)


def test_exchanging_the_two_sets_changes_the_sign_and_not_the_p_value():
    one = estimate_difference(pair_frechet(BASE, TUNED, REFERENCE), 300, 0)
    other = estimate_difference(pair_frechet(TUNED, BASE, REFERENCE), 300, 0)
    assert one.delta == pytest.approx(-other.delta, rel=1e-8)
    assert one.p_value == other.p_value


def test_swap_test_of_equal_generators_rejects_at_its_level():
    rng = np.random.default_rng(0)
    reference = make_clusters(20, 1, 3, seed=500, shift=0.3)
    p_values = []
    for trial in range(120):
        common = rng.normal(size=(12, 3))
        base, tuned = (
            cluster_embeddings(wrap(common + 0.5 * rng.normal(size=(12, 3))), "generated") for _ in range(2)
        )
        p_values.append(swap_labels(pair_frechet(base, tuned, reference).stacked, 99, trial)[0])
    rejected = np.mean(np.asarray(p_values) <= 0.05)
    assert rejected <= 0.05 + 3.0 * np.sqrt(0.05 * 0.95 / 120)
    assert np.mean(np.asarray(p_values) <= 0.5) == pytest.approx(0.5, abs=0.15)


def test_text_difference_is_the_mean_of_the_paired_differences():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(1, 6))
    vectors = rng.normal(size=(25, 6))
    other = vectors + 0.3 * text
    base, tuned = (cluster_embeddings(wrap(item), "generated") for item in (vectors, other))

    def cosine(x):
        return (x @ text[0]) / np.linalg.norm(x, axis=1) / np.linalg.norm(text)

    differences = cosine(other) - cosine(vectors)
    found = estimate_difference(pair_texts(base, tuned, text), 499, 0)
    assert found.delta == pytest.approx(differences.mean(), rel=1e-9)
    assert found.se == pytest.approx(differences.std(ddof=1) / 5, rel=1e-9)
    assert found.p_value == pytest.approx(1 / 500)


def test_pooled_prompts_are_strata_of_the_difference():
    def pooled(pair_of):
        return stack_strata([pair_of[0], pair_of[1]])

    base = pooled([make_clusters(12, 2, 3, seed=1, shift=-5.0), make_clusters(12, 2, 3, seed=2, shift=5.0)])
    tuned = pooled([make_clusters(12, 2, 3, seed=3, shift=-5.0), make_clusters(12, 2, 3, seed=4, shift=5.0)])
    reference = make_clusters(20, 2, 3, seed=5)
    found = estimate_difference(pair_frechet(base, tuned, reference), 19, 0)
    assert found.plugin == pytest.approx(
        frechet_distance(tuned.vectors, reference.vectors)
        - frechet_distance(base.vectors, reference.vectors),
        rel=1e-7,
    )
    assert np.isfinite(found.se)


def test_single_reference_clip_leaves_the_difference_without_interval():
    lone = make_clusters(1, 6, 4, seed=3)
    found = estimate_difference(pair_frechet(BASE, TUNED, lone), 19, 0)
    assert (found.se, found.ci_low, found.ci_high) == (None, None, None)
    assert 0.0 < found.p_value <= 1.0
