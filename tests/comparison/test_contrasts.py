"""Contrasts from embeddings on disk: verdicts, families, clips without partners, and what cannot be compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.embedded_trials import make_group, write_trial

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.contrasts import contrast_groups
from lora_bench.errors import ScoreError
from lora_bench.metrics import parse_metric
from lora_bench.metrics.frechet import frechet_distance
from lora_bench.metrics.verdicts import Verdict, judge

FRECHET, KERNEL, TEXT = parse_metric("mfcc20"), parse_metric("mmd/mfcc20"), parse_metric("clap_score")
DIM, WINDOWS = 4, 3
ALL = frozenset({None})


def wrap(values, names=None, **about):
    n_clips = len(values) // WINDOWS
    names = names or tuple(f"{clip:03d}" for clip in range(n_clips))
    index = np.repeat(np.arange(n_clips), WINDOWS)
    return Embeddings(np.asarray(values), index, names, names, {"encoder": "mfcc20", **about})


REFERENCE = wrap(np.random.default_rng(99).normal(size=(40 * WINDOWS, DIM)))


def make_base(n_clips=24, seed=0):
    """Clips off the reference by 1."""
    return wrap(1.0 + np.random.default_rng(seed).normal(size=(n_clips * WINDOWS, DIM)))


def move(base, towards, *, seed=1, noise=0.3):
    """The same clips moved towards (or away from) the reference."""
    rng = np.random.default_rng(seed)
    return replace(base, values=base.values - towards + noise * rng.normal(size=base.values.shape))


def contrast(tmp_path, base, *tuned, metric=FRECHET, prompts=("p",), margins=None, primary=ALL, **options):
    """Write trials with these sets (one per prompt) and compare them; the tuned ones are training seeds."""
    reference, texts = options.pop("reference", REFERENCE), options.pop("texts", None)
    encoder = metric.encoder
    made = [
        write_trial(
            tmp_path, f"t{place}", dict(zip(prompts, sets, strict=True)), reference, texts, encoder=encoder
        )
        for place, sets in enumerate((base, *tuned))
    ]
    group = make_group("r16", made[1:], made[0], margins)
    labels = {**{prompt: (prompt,) for prompt in prompts}, None: prompts}
    found = contrast_groups([group], [metric], labels, (metric.name, primary), **options)
    return {item.prompt: item for item in found}


@pytest.mark.parametrize("metric", [FRECHET, KERNEL])
@pytest.mark.parametrize(("towards", "verdict"), [(0.8, Verdict.BETTER), (-0.8, Verdict.WORSE)])
def test_generator_that_moved_to_the_reference_is_better_and_one_that_moved_away_worse(
    metric, towards, verdict, tmp_path
):
    base = make_base()
    found = contrast(tmp_path, [base], [move(base, towards)], metric=metric)[None]
    assert found.verdict == verdict
    assert (found.delta < 0.0) == (verdict == Verdict.BETTER)
    assert found.ci_low < found.delta < found.ci_high
    assert (found.n_pairs, found.n_tracks, found.n_seeds) == (24, 40, 1)
    assert found.detectable > 2.0 * found.se


def test_plugin_difference_is_that_of_the_table(tmp_path):
    base = make_base()
    tuned = move(base, 0.5)
    found = contrast(tmp_path, [base], [tuned])[None]
    one, other = (
        frechet_distance(np.float32(item.values), np.float32(REFERENCE.values)) for item in (base, tuned)
    )
    assert found.delta_plugin == pytest.approx(other - one, rel=1e-6)


def test_text_score_is_better_when_it_rises(tmp_path):
    base = make_base()
    texts = Embeddings(np.ones((1, DIM)), np.zeros(1, dtype=int), ("p",), ("p",), {"encoder": "mfcc20"})
    found = contrast(tmp_path, [base], [move(base, -2.0)], metric=TEXT, texts=texts)[None]
    assert found.delta > 0.0
    assert found.verdict == Verdict.BETTER
    assert found.n_tracks is None


def test_training_seeds_are_one_contrast_with_each_seeds_difference(tmp_path):
    base = make_base()
    tuned = [[move(base, towards, seed=seed)] for seed, towards in enumerate((0.4, 0.5, 0.9))]
    found = contrast(tmp_path, [base], *tuned)[None]
    assert found.n_seeds == 3
    assert [item.train_seed for item in found.seeds] == [0, 1, 2]
    deltas = [item.delta for item in found.seeds]
    assert found.delta == pytest.approx(np.mean(deltas), rel=1e-9)
    assert found.variance.seeds == pytest.approx(np.var(deltas, ddof=1) / 3, rel=1e-9)
    parts = (found.variance.clips, found.variance.tracks, found.variance.seeds)
    assert found.se**2 == pytest.approx(sum(parts), rel=1e-9)


def test_only_the_primary_family_has_verdicts_and_its_intervals_are_wider(tmp_path):
    base = [make_base(seed=seed) for seed in range(3)]
    tuned = [move(item, 0.8, seed=seed) for seed, item in enumerate(base)]
    prompts = ("own a", "own b", "off")
    narrow = contrast(tmp_path / "a", base, tuned, prompts=prompts, primary=frozenset())
    wide = contrast(tmp_path / "b", base, tuned, prompts=prompts, primary=frozenset({"own a", "own b"}))
    assert {name: item.verdict for name, item in narrow.items()} == dict.fromkeys((*prompts, None))
    assert [item.primary for item in wide.values()] == [True, True, False, False]
    assert wide["own a"].verdict == Verdict.BETTER
    assert wide["off"] == narrow["off"]
    width = {name: item.ci_high - item.ci_low for name, item in narrow.items()}
    assert wide["own a"].ci_high - wide["own a"].ci_low > 1.05 * width["own a"]
    assert wide["own a"].provenance["family_size"] == 2
    assert wide["own a"].p_value > narrow["own a"].p_value


def test_a_difference_within_the_margin_is_equivalent_and_one_beyond_inconclusive(tmp_path):
    base = make_base(80)
    tuned = move(base, 0.0, noise=0.05)
    small, large = (
        contrast(tmp_path / str(margin), [base], [tuned], margins={FRECHET.name: margin})[None]
        for margin in (1e-4, 5.0)
    )
    assert (small.verdict, large.verdict) == (Verdict.INCONCLUSIVE, Verdict.EQUIVALENT)
    assert large.margin == 5.0


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (-2.0, -1.0, 5.0, "better"),
        (1.0, 2.0, 5.0, "worse"),
        (-1.0, 1.0, 1.5, "equivalent"),
        (-1.0, 1.0, 1.0, "inconclusive"),
        (-1.0, 1.0, None, "inconclusive"),
        (0.0, 1.0, None, "inconclusive"),
        (0.0, 0.0, None, "equivalent"),
    ],
)
def test_verdict_follows_from_interval_and_margin(low, high, margin, verdict):
    assert judge(low, high, margin, lower_is_better=True) == verdict
    mirrored = {"better": "worse", "worse": "better"}.get(verdict, verdict)
    assert judge(low, high, margin, lower_is_better=False) == mirrored


def test_generator_that_only_lost_diversity_does_not_win_by_the_bias_of_its_distance(tmp_path):
    # Few clips in many dimensions: the plug-in distance of a collapsed generator has less bias.
    rng = np.random.default_rng(3)
    base = rng.normal(size=(40 * WINDOWS, 20))
    reference = wrap(rng.normal(size=(400 * WINDOWS, 20)))
    found = contrast(tmp_path, [wrap(base)], [wrap(0.9 * base)], reference=reference)[None]
    truth = 20 * 0.1**2
    assert found.delta_plugin < truth
    assert abs(found.delta - truth) < abs(found.delta_plugin - truth)
    assert found.verdict != Verdict.BETTER


def test_clips_are_paired_by_name_in_any_order(tmp_path):
    base = make_base()
    tuned = move(base, 0.5)
    order = np.random.default_rng(0).permutation(24)
    rows = (order[:, None] * WINDOWS + np.arange(WINDOWS)).ravel()
    shuffled = wrap(tuned.values[rows], tuple(tuned.clip_names[place] for place in order))
    straight, mixed = (
        contrast(tmp_path / name, [base], [item])[None] for name, item in (("a", tuned), ("b", shuffled))
    )
    assert (mixed.delta, mixed.se) == pytest.approx((straight.delta, straight.se), rel=1e-9)


def test_clips_without_a_partner_are_left_out_and_counted(tmp_path):
    base = make_base()
    tuned = move(base, 0.5)
    fewer = wrap(tuned.values[: 20 * WINDOWS], tuned.clip_names[:20])
    found = contrast(tmp_path, [base], [tuned], [fewer])[None]
    assert found.n_pairs == 20
    assert "8 clip(s) without a partner" in found.note


def test_what_cannot_be_compared_is_told_with_the_reason(tmp_path):
    base = make_base()
    strangers = wrap(base.values, tuple(f"x{clip}" for clip in range(24)))
    told = []
    found = contrast(tmp_path, [base], [strangers], told=lambda *item: told.append(item))
    assert found == {}
    assert [(metric.name, group.configuration, label) for metric, group, label, _ in told] == [
        ("mfcc20", "r16", "p"), ("mfcc20", "r16", None),
    ]  # fmt: skip
    assert "0 clip(s) are in all sets (24 and 24 clips)" in str(told[0][-1])


def test_trials_with_other_references_are_not_compared(tmp_path):
    base = make_base()
    one = write_trial(tmp_path, "a", {"p": base}, REFERENCE)
    other = write_trial(tmp_path, "b", {"p": base}, wrap(REFERENCE.values + 1.0))
    told = []
    group = make_group("r16", [other], one)
    contrast_groups(
        [group], [FRECHET], {None: ("p",)}, ("mfcc20", ALL), told=lambda *item: told.append(item[-1])
    )
    assert "different references" in str(told[0])


def test_repeated_clip_names_cannot_be_paired(tmp_path):
    base = make_base()
    doubled = wrap(base.values, ("000", *base.clip_names[:-1]))
    with pytest.raises(ScoreError, match="clip names repeat"):
        contrast(tmp_path, [base], [doubled])


def test_embeddings_of_different_weights_are_refused(tmp_path):
    base = make_base()
    one, other = (replace(base, provenance={"encoder": "mfcc20", "weights": name}) for name in "ab")
    with pytest.raises(ScoreError, match="different `weights`"):
        contrast(tmp_path, [one], [other])


def test_too_few_tracks_leave_the_difference_without_interval_and_verdict(tmp_path):
    base = make_base()
    lone = wrap(REFERENCE.values[:WINDOWS])
    found = contrast(tmp_path, [base], [move(base, 0.8)], reference=lone)[None]
    assert (found.se, found.ci_low, found.verdict, found.primary) == (None, None, None, True)
    assert "no interval: too few reference clips to leave one out" in found.note


def test_configurations_with_other_training_seeds_are_not_pooled(tmp_path):
    base = make_base()
    sides = [write_trial(tmp_path, "base", {"p": base}, REFERENCE)]
    sides += [
        write_trial(tmp_path, f"t{place}", {"p": move(base, towards, seed=place)}, REFERENCE)
        for place, towards in enumerate((0.3, 0.9, 0.4, 0.5))
    ]
    one, other = (make_group(name, pair, sides[0]) for name, pair in (("a", sides[1:3]), ("b", sides[3:])))
    later = replace(
        other, trainings=tuple(replace(item, train_seed=item.train_seed + 5) for item in other.trainings)
    )

    def seeds(*groups):
        found = contrast_groups(groups, [FRECHET], {None: ("p",)}, (FRECHET.name, ALL))
        return [item.variance.seeds for item in found]

    assert seeds(one, later) == [*seeds(one), *seeds(later)]
    assert seeds(one, other) != seeds(one, later)
