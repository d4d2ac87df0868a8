"""Differences over clips, tracks and training seeds against brute force and statsmodels; simultaneous intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from support.embedding_sets import kernel_distance, make_clusters, wrap

from lora_bench.errors import ScoreError
from lora_bench.metrics.clusters import cluster_embeddings, stack_strata
from lora_bench.metrics.contrast import (
    Difference,
    add_seed_errors,
    join_family,
    subtract,
    subtract_independent,
)
from lora_bench.metrics.estimate import replicate_distance
from lora_bench.metrics.frechet import frechet_distance
from lora_bench.metrics.jackknife import Jackknife
from lora_bench.metrics.replicates import combine, replicate_mean, replicate_text


def noisy_copy(clusters, *, seed, amount=0.3, shift=0.0):
    rng = np.random.default_rng(seed)
    values = clusters.vectors + shift + amount * rng.normal(size=clusters.vectors.shape)
    return cluster_embeddings(wrap(values, int(clusters.sizes[0])), "generated")


def replicate(distance, generated, reference):
    return replicate_distance(distance, generated, reference)[0]


def compare(distance, base, tuned, reference):
    """Base against each of the tuned sets, one per training seed."""
    theirs = replicate(distance, base, reference)
    return subtract([(replicate(distance, one, reference), theirs) for one in tuned])


BASE = make_clusters(16, 3, 4, seed=1)
TUNED = noisy_copy(BASE, seed=2, shift=0.2)
AGAIN = noisy_copy(BASE, seed=22, shift=0.25)
REFERENCE = make_clusters(20, 3, 4, seed=3, shift=0.4)
PLACES = {"clips": [("clips",)], "tracks": [("tracks",)], "seeds": [("seeds",)]}


@pytest.mark.parametrize(("name", "distance"), [("frechet", frechet_distance), ("mmd", None)])
def test_plugin_difference_is_that_of_the_two_distances(name, distance):
    found = compare(name, BASE, [TUNED], REFERENCE)
    measure = kernel_distance if distance is None else lambda a, b: distance(a.vectors, b.vectors)
    assert found.plugin == pytest.approx(measure(TUNED, REFERENCE) - measure(BASE, REFERENCE), rel=1e-8)


@pytest.mark.parametrize("tuned", [[TUNED], [TUNED, AGAIN]], ids=["one seed", "two seeds"])
def test_clips_and_tracks_are_left_out_of_all_trials_at_once(tuned):
    found = compare("frechet", BASE, tuned, REFERENCE)

    def delta(kept, tracks):
        reference = REFERENCE.take(tracks)
        ours = np.mean([frechet_distance(one.take(kept), reference) for one in tuned])
        return ours - frechet_distance(BASE.take(kept), reference)

    clips, tracks = list(range(16)), list(range(20))
    full, bias, variance = delta(clips, tracks), 0.0, {}
    for name, values in (
        ("clips", [delta([k for k in clips if k != gone], tracks) for gone in clips]),
        ("tracks", [delta(clips, [k for k in tracks if k != gone]) for gone in tracks]),
    ):
        n = len(values)
        bias += (n - 1) * (np.mean(values) - full)
        variance[name] = (n - 1) / n * ((np.asarray(values) - np.mean(values)) ** 2).sum()
    assert found.delta == pytest.approx(full - bias, rel=1e-6)
    assert found.delta == pytest.approx(np.mean(found.by_seed), rel=1e-9)
    assert {name: part.variance for name, part in found.errors.items()} == pytest.approx(variance, rel=1e-6)
    assert {name: part.freedom for name, part in found.errors.items()} == {"clips": 15, "tracks": 19}


def test_shared_clips_make_the_interval_narrower_than_those_of_strangers():
    stranger = make_clusters(16, 3, 4, seed=77, shift=0.2)
    shared, other = (compare("frechet", BASE, [one], REFERENCE) for one in (TUNED, stranger))
    assert shared.se < 0.7 * other.se


@pytest.mark.parametrize("distance", ["frechet", "mmd"])
def test_an_adapter_that_changes_nothing_has_no_difference_and_no_error(distance):
    found = compare(distance, BASE, [BASE], REFERENCE)
    assert abs(found.delta) < 1e-9
    assert found.se < 1e-9


@pytest.mark.parametrize("distance", ["frechet", "mmd"])
def test_exchanging_the_two_changes_the_sign_alone(distance):
    one = compare(distance, BASE, [TUNED], REFERENCE)
    other = compare(distance, TUNED, [BASE], REFERENCE)
    assert one.delta == pytest.approx(-other.delta, rel=1e-8)
    assert (one.se, one.p_value) == pytest.approx((other.se, other.p_value), rel=1e-8)


def test_p_value_is_below_five_percent_when_the_interval_excludes_zero():
    for shift in (0.0, 0.1, 0.2, 0.5):
        found = compare("frechet", BASE, [noisy_copy(BASE, seed=4, shift=shift)], REFERENCE)
        interval = found.interval()
        assert (found.p_value < 0.05) == (interval.low > 0.0 or interval.high < 0.0)


def test_text_difference_is_the_mean_of_the_paired_differences():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(1, 6))
    vectors = rng.normal(size=(25, 6))
    other = vectors + 0.3 * text
    base, tuned = (
        replicate_text(cluster_embeddings(wrap(item), "generated"), text) for item in (vectors, other)
    )

    def cosine(x):
        return (x @ text[0]) / np.linalg.norm(x, axis=1) / np.linalg.norm(text)

    found = subtract([(tuned, base)])
    expected = stats.ttest_1samp(cosine(other) - cosine(vectors), 0.0)
    assert found.delta == pytest.approx((cosine(other) - cosine(vectors)).mean(), rel=1e-9)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    interval, theirs = found.interval(), expected.confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_prompts_are_strata_that_keep_their_shares():
    def pool(*seeds):
        return stack_strata(
            [
                make_clusters(12, 2, 3, seed=seed, shift=shift)
                for seed, shift in zip(seeds, (-5.0, 5.0), strict=True)
            ]
        )

    found = compare("frechet", pool(1, 2), [pool(3, 4)], make_clusters(20, 2, 3, seed=5))
    assert found.errors["clips"].freedom == 22
    assert {key: len(values) for key, values in found.deviations.items()} == {
        ("clips", 0): 12, ("clips", 1): 12, ("tracks", 0): 20,
    }  # fmt: skip


def test_a_single_reference_clip_leaves_the_difference_without_interval():
    found = compare("frechet", BASE, [TUNED], make_clusters(1, 6, 4, seed=3))
    assert found.lacking == "too few reference clips to leave one out"
    assert found.errors == {}


def test_sets_of_other_clips_cannot_be_combined():
    parts = [replicate("frechet", make_clusters(n, 3, 4, seed=n), REFERENCE) for n in (10, 12)]
    with pytest.raises(ScoreError, match="different clips cannot be combined"):
        combine(parts, (1.0, -1.0))


def test_deviations_square_to_the_variance():
    found = compare("mmd", BASE, [TUNED, AGAIN], REFERENCE)
    for (cause, _), values in found.deviations.items():
        assert (values**2).sum() == pytest.approx(found.errors[cause].variance, rel=1e-9)


def make_difference(by_seed):
    errors = {"clips": Jackknife(0.0, 1e-4, 9.0)}
    return Difference(np.mean(by_seed), np.mean(by_seed), tuple(by_seed), errors, {})


def test_the_variance_over_seeds_is_that_of_a_two_way_layout():
    rng = np.random.default_rng(5)
    deltas = rng.normal(size=(4, 1)) + rng.normal(size=(1, 3)) + 0.4 * rng.normal(size=(4, 3))
    table = pd.DataFrame(
        {"value": deltas.ravel(), "c": np.repeat(np.arange(4), 3), "s": np.tile(np.arange(3), 4)}
    )
    squares = anova_lm(ols("value ~ C(c) + C(s)", table).fit())
    shifts, rest = squares["mean_sq"]["C(s)"], squares["mean_sq"]["Residual"]
    expected = (shifts / 4 + rest * 3 / 4) / 3  # (variance of shifts and of the interaction) over 3 seeds
    for item in add_seed_errors([make_difference(row) for row in deltas]):
        assert item.errors["seeds"].variance == pytest.approx(expected, rel=1e-9)
        assert 2.0 < item.errors["seeds"].freedom < 8.0


def test_one_configuration_has_the_variance_of_its_own_seeds_and_one_seed_has_none():
    (found,) = add_seed_errors([make_difference((1.0, 2.0, 4.0))])
    assert found.errors["seeds"] == Jackknife(0.0, pytest.approx(np.var([1, 2, 4], ddof=1) / 3), 2)
    (single,) = add_seed_errors([make_difference((1.0,))])
    assert "seeds" not in single.errors


def test_an_unstable_configuration_is_not_judged_by_the_stability_of_others():
    calm = [
        make_difference(1.0 + 0.01 * np.array(row)) for row in ((0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1))
    ]
    *_, wild = add_seed_errors([*calm, make_difference((0.0, 5.0, -5.0))])
    assert wild.errors["seeds"].variance == pytest.approx(np.var([0, 5, -5], ddof=1) / 3)
    assert wild.errors["seeds"].freedom == 2


def family_of(correlation, n, n_units=400):
    """Contrasts whose errors have a given correlation."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=n_units)
    made = []
    for _ in range(n):
        values = np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * rng.normal(size=n_units)
        errors = {"tracks": Jackknife(0.0, float((values**2).sum()), 50.0)}
        made.append((Difference(0.0, 0.0, (0.0,), errors, {("tracks", 0): values}), PLACES))
    return join_family(made)


@pytest.mark.parametrize("n", [2, 6, 20])
def test_independent_contrasts_need_sidaks_level_and_equal_ones_no_correction(n):
    assert family_of(0.0, n).alpha == pytest.approx(1.0 - 0.95 ** (1.0 / n), rel=0.12)
    assert family_of(1.0, n).alpha == pytest.approx(0.05, rel=0.05)
    assert 0.05 / n <= family_of(0.8, n).alpha <= 0.05


def test_adjusted_p_values_agree_with_the_simultaneous_intervals():
    family = family_of(0.5, 5)
    assert family.adjust(0.9 * family.alpha) < 0.05 < family.adjust(1.1 * family.alpha)
    assert family.adjust(1.0) == 1.0
    assert family.adjust(1e-12) >= 1e-12


def test_a_family_of_one_is_the_contrast_alone():
    found = compare("frechet", BASE, [TUNED], REFERENCE)
    family = join_family([(found, PLACES)])
    assert family.alpha == pytest.approx(0.05)
    assert family.adjust(found.p_value) == pytest.approx(found.p_value, rel=0.2)


def test_any_false_verdict_of_a_family_comes_as_rarely_as_stated():
    rng = np.random.default_rng(1)
    n_sets, n_tracks, false = 150, 12, 0
    for _ in range(n_sets):
        reference = cluster_embeddings(wrap(rng.normal(size=(n_tracks, 3)) + 0.5), "reference")
        members = []
        for prompt in range(4):
            base, tuned = (cluster_embeddings(wrap(rng.normal(size=(20, 3))), "generated") for _ in range(2))
            places = {"clips": [(str(prompt),)], "tracks": [("tracks",)]}
            members.append((compare("frechet", base, [tuned], reference), places))
        family = join_family(members)
        intervals = [found.interval(family.alpha) for found, _ in members]
        false += any(interval.low > 0.0 or interval.high < 0.0 for interval in intervals)
    assert false / n_sets <= 0.05 + 3.0 * np.sqrt(0.05 * 0.95 / n_sets)


def rate(values, n_prompts=1):
    parts = np.split(np.asarray(values, dtype=np.float64)[:, None], n_prompts)
    return replicate_mean(stack_strata([cluster_embeddings(wrap(part), "generated") for part in parts]))


@pytest.mark.parametrize("value", [0.1, 4.3, 1e6 / 3, -7.7])
@pytest.mark.parametrize(("n", "n_prompts"), [(7, 1), (60, 3), (999, 1)])
def test_equal_ratings_differ_by_nothing_with_no_error(value, n, n_prompts):
    rng = np.random.default_rng(0)
    base = rate(np.repeat(value + rng.normal(size=n_prompts), n // n_prompts), n_prompts)
    assert all(part.variance == 0.0 for part in base.jackknife().values())
    for found in (subtract([(base, base)]), subtract_independent([(base, base)])):
        assert (found.delta, found.se, found.p_value) == (0.0, 0.0, 1.0)
        assert (found.interval().low, found.interval().high) == (0.0, 0.0)


def test_clips_that_swap_their_ratings_have_a_difference_of_exactly_zero():
    values = np.random.default_rng(0).normal(4.0, 1.0, 501)
    (found,) = add_seed_errors([subtract([(rate(values), rate(values[::-1]))] * 2)])
    assert (found.plugin, found.delta, found.by_seed) == (0.0, 0.0, (0.0, 0.0))
    assert found.se > 0.0
    assert found.p_value == 1.0


def test_ratings_that_all_rise_alike_have_a_difference_without_error():
    values = np.random.default_rng(1).normal(4.0, 1.0, 50)
    found = subtract([(rate(values + 0.1), rate(values))])
    assert found.delta == pytest.approx(0.1)
    assert found.se == 0.0


def test_one_rating_that_differs_in_its_last_digit_is_no_rounding():
    values = np.full(1_000, np.float32(4.3))
    values[17] = np.nextafter(values[17], np.float32(5.0))
    found = subtract([(rate(values), rate(np.full(1_000, np.float32(4.3))))])
    assert found.delta == pytest.approx((float(values[17]) - float(values[0])) / 1_000, rel=1e-3)
    assert found.se > 0.0
