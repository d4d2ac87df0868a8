"""What every distance and comparison makes of damaged, constant, repeated, lone and mismatched inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.embedding_sets import make_embeddings, wrap
from support.provenance_gaps import find_gaps

from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics import parse_metric
from lora_bench.metrics.contrast import subtract
from lora_bench.metrics.diagnostics import describe_sets, halve_groups
from lora_bench.metrics.frechet import frechet_distance
from lora_bench.stages.score import replicate_score, score_embeddings
from lora_bench.store import to_jsonable

DIM = 4
FRECHET, KERNEL, TEXT = (parse_metric(name) for name in ("mfcc20", "mmd/mfcc20", "clap_score"))
ABOUT = {"weights": "none", "window_s": 1.0, "resampler": "soxr-hq 1"}
GENERATED = make_embeddings(16, 3, DIM, seed=1, shift=0.3, **ABOUT)
REFERENCE = make_embeddings(24, 3, DIM, seed=2, clips_per_group=2, **ABOUT)
TEXTS = wrap(np.ones((1, DIM)), **ABOUT)
CASES = [(FRECHET, REFERENCE), (KERNEL, REFERENCE), (TEXT, TEXTS)]
EACH = pytest.mark.parametrize(("metric", "other"), CASES, ids=[metric.name for metric, _ in CASES])


def spoil(embeddings, value):
    values = np.array(embeddings.values)
    values[7, 2] = value
    return replace(embeddings, values=values)


@EACH
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_an_error_that_names_the_clip(metric, other, value):
    for call in (
        lambda: score_embeddings(metric, spoil(GENERATED, value), other),
        lambda: replicate_score(metric, [spoil(GENERATED, value)], other),
    ):
        with pytest.raises(ScoreError, match="clip 002") as caught:
            call()
        assert not isinstance(caught.value, UnscoredError)


@pytest.mark.parametrize("metric", [FRECHET, KERNEL], ids=lambda metric: metric.name)
def test_a_reference_that_is_not_finite_is_an_error_that_names_the_clip(metric):
    with pytest.raises(ScoreError, match=r"reference embeddings: 1 of 72 .* clip 002"):
        score_embeddings(metric, GENERATED, spoil(REFERENCE, np.nan))


def test_a_text_that_is_not_finite_is_an_error():
    with pytest.raises(ScoreError, match="zero or not finite"):
        score_embeddings(TEXT, GENERATED, replace(TEXTS, values=np.full((1, DIM), np.nan)))


def test_constant_clips_are_at_the_mean_shift_and_the_others_variance():
    constant = replace(GENERATED, values=np.full((48, DIM), 0.5))
    score = score_embeddings(FRECHET, constant, REFERENCE)
    reference = REFERENCE.values
    shift = 0.5 - reference.mean(axis=0)
    assert score.value == pytest.approx(shift @ shift + np.trace(np.cov(reference, rowvar=False)))
    assert score.ci_low < score.corrected < score.ci_high
    kernel = score_embeddings(KERNEL, constant, REFERENCE)
    assert 0.0 < kernel.value < 200.0
    text = score_embeddings(TEXT, constant, TEXTS)
    assert (text.value, text.se) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_two_constant_sides_have_the_squared_shift_and_no_kernel_distance():
    sides = (
        replace(one, values=np.full(one.values.shape, v)) for one, v in ((GENERATED, 1.0), (REFERENCE, 3.0))
    )
    generated, reference = sides
    assert score_embeddings(FRECHET, generated, reference).value == pytest.approx(4.0 * DIM)
    with pytest.raises(UnscoredError, match="no bandwidth"):
        score_embeddings(KERNEL, generated, reference)


@EACH
def test_duplicated_clips_keep_the_value_but_for_degrees_of_freedom(metric, other):
    n = len(GENERATED.clip_names)
    names = tuple(f"{name}{copy}" for copy in "ab" for name in GENERATED.clip_names)
    twice = replace(
        GENERATED,
        values=np.tile(GENERATED.values, (2, 1)),
        clip_index=np.concatenate([GENERATED.clip_index, GENERATED.clip_index + n]),
        clip_names=names,
        groups=names,
    )
    one, other_score = score_embeddings(metric, GENERATED, other), score_embeddings(metric, twice, other)
    assert other_score.n_generated == 2 * n
    if metric is TEXT:
        assert other_score.value == pytest.approx(one.value)
    elif metric is FRECHET:
        assert other_score.value == pytest.approx(frechet_distance(twice.values, REFERENCE.values))
        assert other_score.value == pytest.approx(one.value, rel=0.05)
    else:  # copies are other clips, so their pairs count, as they must: the generator did make them twice
        assert other_score.value > one.value


@pytest.mark.parametrize("metric", [FRECHET, KERNEL], ids=lambda metric: metric.name)
def test_the_same_set_on_both_sides_is_at_zero_or_below(metric):
    same = score_embeddings(metric, REFERENCE, REFERENCE)
    assert same.value <= 1e-9


@EACH
def test_equal_generators_have_no_difference_at_all(metric, other):
    same = replicate_score(metric, [GENERATED], other)[0]
    found = subtract([(same, same)])
    assert (found.delta, found.se, found.p_value) == (0.0, 0.0, 1.0)


def test_a_single_clip_is_scored_without_interval_or_unscored_with_the_reason():
    single = make_embeddings(1, 6, DIM, seed=3, **ABOUT)
    frechet = score_embeddings(FRECHET, single, REFERENCE)
    assert (frechet.se, frechet.ci_low, frechet.corrected) == (None, None, None)
    assert "no interval: too few generated clips" in frechet.note
    with pytest.raises(UnscoredError, match="at least 2"):
        score_embeddings(KERNEL, single, REFERENCE)
    text = score_embeddings(TEXT, single, TEXTS)
    assert (text.se, text.note) == (None, "no interval: one clip only")
    for score in (frechet, text):
        assert find_gaps(to_jsonable(score)) == []
        assert score.provenance["interval"].startswith("none: ")


@pytest.mark.parametrize("metric", [FRECHET, KERNEL], ids=lambda metric: metric.name)
def test_a_single_track_is_scored_with_a_warning(metric):
    track = replace(REFERENCE, groups=("only",) * 24)
    score = score_embeddings(metric, GENERATED, track)
    assert "the reference is one track: the interval says nothing about other tracks" in score.note
    assert score.ci_low is not None


@EACH
def test_other_dimensions_and_other_encoders_are_refused(metric, other):
    wider = make_embeddings(16, 3, DIM + 1, seed=1, **ABOUT)
    with pytest.raises(ScoreError, match=f"{DIM + 1}"):
        score_embeddings(metric, wider, other)
    foreign = replace(GENERATED, provenance={**GENERATED.provenance, "weights_hash": "other"})
    known = replace(other, provenance={**other.provenance, "weights_hash": "mine"})
    with pytest.raises(ScoreError, match=r"different `weights_hash` \(other and mine\)"):
        score_embeddings(metric, foreign, known)


@EACH
def test_every_score_says_what_it_is(metric, other):
    assert find_gaps(to_jsonable(score_embeddings(metric, GENERATED, other))) == []


def test_a_score_that_lacks_provenance_is_found_out():
    score = to_jsonable(score_embeddings(FRECHET, GENERATED, REFERENCE))
    score["provenance"] = {k: v for k, v in score["provenance"].items() if k not in {"resampler", "window_s"}}
    score["dim"] = None
    assert find_gaps(score) == ["windowing", "resampler", "dim"]
    assert find_gaps({}) == [
        "encoder", "weights", "windowing", "resampler", "estimator", "interval method",
        "n_generated", "n_reference", "dim",
    ]  # fmt: skip


@pytest.mark.parametrize("side", [0, 1])
def test_beside_the_distance_a_value_that_is_not_finite_is_an_error_that_names_the_clip(side):
    sides = [GENERATED, REFERENCE]
    sides[side] = spoil(sides[side], np.nan)
    with pytest.raises(ScoreError, match="clip 002"):
        describe_sets(*sides)


def test_beside_the_distance_mismatched_sides_are_refused():
    with pytest.raises(ScoreError, match=f"{DIM + 1}"):
        describe_sets(make_embeddings(16, 3, DIM + 1, **ABOUT), REFERENCE)


def test_beside_the_distance_constant_clips_have_no_variety():
    found = describe_sets(replace(GENERATED, values=np.full((48, DIM), 0.1)), REFERENCE)
    assert found.manifold is not None
    assert (found.diversity, found.manifold.recall, found.manifold.precision) == (0.0, 0.0, 1.0)
    reference = replace(REFERENCE, values=np.ones(REFERENCE.values.shape))
    assert "all reference vectors are equal" in describe_sets(GENERATED, reference).unscored["diversity"]


def test_beside_the_distance_a_single_clip_leaves_out_what_needs_more():
    found = describe_sets(make_embeddings(1, 6, DIM, seed=3, **ABOUT), REFERENCE)
    assert set(found.unscored) == {
        "diversity", "precision, recall, density, coverage", "frechet_extrapolated",
    }  # fmt: skip
    assert len(found.group_distances) == 1


def test_beside_the_distance_the_same_set_covers_itself():
    found = describe_sets(REFERENCE, REFERENCE)
    assert found.manifold is not None
    manifold = found.manifold
    assert (found.diversity, manifold.precision, manifold.recall, manifold.coverage) == (1.0, 1.0, 1.0, 1.0)
    assert found.unscored == {}


def test_a_single_track_cannot_be_divided_and_several_are_divided_by_track():
    with pytest.raises(UnscoredError, match="one reference track only"):
        halve_groups(replace(REFERENCE, groups=("only",) * 24), 10)
    part, rest = halve_groups(REFERENCE, 5)
    assert set(part.groups).isdisjoint(rest.groups)
    assert (len(part.clip_names), len(rest.clip_names)) == (6, 18)
    for half in (part, rest):
        for place, name in enumerate(half.clip_names):
            whole = REFERENCE.clip_names.index(name)
            np.testing.assert_array_equal(
                half.values[half.clip_index == place], REFERENCE.values[REFERENCE.clip_index == whole]
            )
