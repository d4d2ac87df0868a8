from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.paired_test import adjust_holm, compare_paired, compare_pooled, judge
from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics import parse_metric
from lora_bench.metrics.frechet import frechet_distance
from lora_bench.metrics.verdicts import Verdict
from lora_bench.store import to_jsonable

FRECHET, KERNEL, TEXT = parse_metric("mfcc20"), parse_metric("mmd/mfcc20"), parse_metric("clap_score")
DIM, WINDOWS = 4, 3


def wrap(values, names=None, **about):
    n_clips = len(values) // WINDOWS
    names = names or tuple(f"{clip:03d}" for clip in range(n_clips))
    index = np.repeat(np.arange(n_clips), WINDOWS)
    return Embeddings(values, index, names, names, {"encoder": "mfcc20", **about})


def make_triple(n_clips=24, *, seed=0, towards=0.0, noise=0.3):
    """Base clips off the reference by 1, and the same clips moved towards (or away from) it."""
    rng = np.random.default_rng(seed)
    base = 1.0 + rng.normal(size=(n_clips * WINDOWS, DIM))
    tuned = base - towards + noise * rng.normal(size=base.shape)
    reference = wrap(rng.normal(size=(40 * WINDOWS, DIM)))
    return wrap(base), wrap(tuned), reference


@pytest.mark.parametrize("metric", [FRECHET, KERNEL])
@pytest.mark.parametrize(("towards", "verdict"), [(0.8, Verdict.BETTER), (-0.8, Verdict.WORSE)])
def test_generator_that_moved_to_the_reference_is_better_and_one_that_moved_away_worse(
    metric, towards, verdict
):
    base, tuned, reference = make_triple(towards=towards)
    found = compare_paired(metric, base, tuned, reference, prompt="p", n_permutations=199)
    assert found.verdict == verdict
    assert found.p_value == found.p_holm == pytest.approx(1 / 200)
    assert (found.delta < 0.0) == (verdict == Verdict.BETTER)
    assert found.ci_low < found.delta < found.ci_high
    assert (found.n_pairs, found.n_reference) == (24, 40)


@pytest.mark.parametrize("metric", [FRECHET, KERNEL])
def test_equal_generators_have_no_detectable_difference(metric):
    base, _, reference = make_triple()
    rng = np.random.default_rng(9)
    one, other = (
        replace(base, values=base.values + 0.3 * rng.normal(size=base.values.shape)) for _ in range(2)
    )
    found = compare_paired(metric, one, other, reference, n_permutations=199)
    assert found.verdict == Verdict.NO_DIFFERENCE
    assert found.p_value > 0.05


def test_difference_of_plugin_values_is_that_of_the_table():
    base, tuned, reference = make_triple(towards=0.5)
    found = compare_paired(FRECHET, base, tuned, reference, n_permutations=19)
    one, other = (frechet_distance(item.values, reference.values) for item in (base, tuned))
    assert found.delta_plugin == pytest.approx(other - one, rel=1e-8)


def test_text_score_is_better_when_it_rises():
    base, tuned, _ = make_triple(towards=-2.0)
    text = Embeddings(np.ones((1, DIM)), np.zeros(1, dtype=int), ("p",), ("p",), {"encoder": "mfcc20"})
    found = compare_paired(TEXT, base, tuned, text, prompt="p", n_permutations=199)
    assert found.delta > 0.0
    assert found.verdict == Verdict.BETTER


def test_clips_are_paired_by_name_whatever_their_order():
    base, tuned, reference = make_triple(towards=0.5)
    order = np.random.default_rng(0).permutation(24)
    rows = (order[:, None] * WINDOWS + np.arange(WINDOWS)).ravel()
    shuffled = wrap(tuned.values[rows], tuple(tuned.clip_names[place] for place in order))
    straight, mixed = (
        compare_paired(FRECHET, base, item, reference, n_permutations=49) for item in (tuned, shuffled)
    )
    assert mixed.delta == pytest.approx(straight.delta, rel=1e-9)
    assert mixed.se == pytest.approx(straight.se, rel=1e-9)
    assert mixed.p_value == straight.p_value


def test_clips_without_a_partner_are_left_out_and_counted():
    base, tuned, reference = make_triple()
    fewer = wrap(tuned.values[: 20 * WINDOWS], tuned.clip_names[:20])
    found = compare_paired(FRECHET, base, fewer, reference, n_permutations=19)
    assert found.n_pairs == 20
    assert "4 clip(s) without a partner" in found.note


def test_sets_without_common_clips_cannot_be_compared():
    base, tuned, reference = make_triple()
    strangers = replace(tuned, clip_names=tuple(f"x{clip}" for clip in range(24)))
    with pytest.raises(UnscoredError, match=r"0 clip\(s\) are in both sets \(24 and 24 clips\)"):
        compare_paired(FRECHET, base, strangers, reference)


def test_repeated_clip_names_cannot_be_paired():
    base, tuned, reference = make_triple()
    doubled = replace(tuned, clip_names=("000", *tuned.clip_names[:-1]))
    with pytest.raises(ScoreError, match="clip names repeat"):
        compare_paired(FRECHET, base, doubled, reference)


def test_embeddings_of_different_weights_are_refused():
    base, tuned, reference = make_triple()
    other = replace(tuned, provenance={"encoder": "mfcc20", "weights": "b"})
    base = replace(base, provenance={"encoder": "mfcc20", "weights": "a"})
    with pytest.raises(ScoreError, match="different `weights`"):
        compare_paired(FRECHET, base, other, reference)


def test_prompts_are_compared_together_as_strata():
    first, second = make_triple(seed=1, towards=0.8), make_triple(seed=2, towards=0.8)
    found = compare_pooled(FRECHET, [first[0], second[0]], [first[1], second[1]], first[2], n_permutations=99)
    assert found.n_pairs == 48
    assert found.prompt is None
    assert found.verdict == Verdict.BETTER


def test_different_numbers_of_prompts_cannot_be_pooled():
    base, tuned, reference = make_triple()
    with pytest.raises(ScoreError, match="2 and 1 sets to compare"):
        compare_pooled(FRECHET, [base, base], [tuned], reference)


def made(p_value, *, prompt, trial="r16", low=-2.0, high=-1.0):
    base, tuned, reference = make_triple(6)
    found = compare_paired(
        FRECHET, base, tuned, reference, prompt=prompt, names=(trial, "zero-shot"), n_permutations=1
    )
    verdict = judge(p_value, low, high, FRECHET.distance)
    changed = {"p_value": p_value, "p_holm": p_value, "ci_low": low, "ci_high": high, "verdict": verdict}
    return found.model_copy(update=changed)


def test_holm_corrects_within_a_trial_and_metric_across_prompts_only():
    family = [made(0.02, prompt="a"), made(0.04, prompt="b"), made(0.01, prompt="c")]
    other_trial, pooled = made(0.04, prompt="a", trial="r4"), made(0.04, prompt=None)
    adjusted = adjust_holm([*family, other_trial, pooled])
    assert [item.p_holm for item in adjusted] == pytest.approx([0.04, 0.04, 0.03, 0.04, 0.04])
    assert [item.p_value for item in adjusted] == [0.02, 0.04, 0.01, 0.04, 0.04]


def test_verdict_follows_the_corrected_p_value():
    family = [made(0.04, prompt="a"), made(0.03, prompt="b")]
    assert [item.verdict for item in family] == [Verdict.BETTER, Verdict.BETTER]
    assert [item.verdict for item in adjust_holm(family)] == [Verdict.NO_DIFFERENCE, Verdict.NO_DIFFERENCE]


def test_small_p_value_alone_is_no_verdict_when_the_corrected_interval_holds_zero():
    assert made(0.001, prompt="a", low=-1.0, high=0.2).verdict == Verdict.NO_DIFFERENCE
    assert made(0.001, prompt="a", low=None, high=None).verdict == Verdict.NO_DIFFERENCE
    assert made(0.001, prompt="a", low=0.1, high=0.2).verdict == Verdict.WORSE


def test_generator_that_only_lost_diversity_does_not_win_by_the_bias_of_its_distance():
    # Few clips in many dimensions: the plug-in distance of a collapsed generator has less bias.
    rng = np.random.default_rng(3)
    base = rng.normal(size=(40 * WINDOWS, 20))
    collapsed = 0.9 * base
    reference = wrap(rng.normal(size=(400 * WINDOWS, 20)))
    found = compare_paired(FRECHET, wrap(base), wrap(collapsed), reference, n_permutations=99)
    truth = 20 * 0.1**2
    assert found.delta_plugin < truth
    assert abs(found.delta - truth) < abs(found.delta_plugin - truth)
    assert found.verdict != Verdict.BETTER


def test_comparison_travels_as_json():
    base, tuned, reference = make_triple()
    record = to_jsonable(compare_paired(FRECHET, base, tuned, reference, prompt="p", n_permutations=19))
    assert {
        "trial",
        "against",
        "metric",
        "prompt",
        "delta",
        "ci_low",
        "ci_high",
        "p_value",
        "p_holm",
        "verdict",
    } <= set(record)
    assert record["provenance"]["test"].startswith("paired label swaps, 20 assignments")
