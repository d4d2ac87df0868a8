from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_bench.artifacts import Embeddings
from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics import parse_metric
from lora_bench.metrics.frechet import frechet_distance
from lora_bench.stages.score import score_embeddings, score_pooled

FRECHET, KERNEL, TEXT = parse_metric("mfcc20"), parse_metric("mmd/mfcc20"), parse_metric("clap_score")


def make_set(n_clips, *, seed, dim=4, windows=3, shift=0.0, per_track=1, **about):
    rng = np.random.default_rng(seed)
    values = shift + rng.normal(size=(n_clips * windows, dim))
    names = tuple(f"{clip:03d}" for clip in range(n_clips))
    groups = tuple(f"t{clip // per_track}" for clip in range(n_clips))
    provenance = {"encoder": "mfcc20", "resampler": "soxr-hq 1.0", **about}
    index = np.repeat(np.arange(n_clips), windows)
    return Embeddings(values.astype(np.float32), index, names, groups, provenance)


GENERATED, REFERENCE = make_set(30, seed=1, shift=0.2), make_set(40, seed=2, per_track=2)


def test_score_carries_value_interval_counts_and_label():
    score = score_embeddings(FRECHET, GENERATED, REFERENCE, "a prompt")
    assert (score.metric, score.prompt) == ("mfcc20", "a prompt")
    assert (score.n_generated, score.n_reference, score.dim) == (30, 40, 4)
    assert score.value == pytest.approx(frechet_distance(GENERATED.values, REFERENCE.values), rel=1e-9)
    assert score.ci_low < score.corrected < score.ci_high
    assert score.corrected < score.value


def test_provenance_has_what_both_sides_share_and_how_many_there_were():
    score = score_embeddings(FRECHET, GENERATED, REFERENCE)
    assert score.provenance["encoder"] == "mfcc20"
    assert score.provenance["resampler"] == "soxr-hq 1.0"
    assert score.provenance["distance"] == "frechet"
    assert score.provenance["n_vectors_generated"] == 90
    assert score.provenance["n_clusters_reference"] == 20
    assert "jackknife" in score.provenance["interval"]


def test_what_differs_between_the_sides_is_kept_for_each():
    generated = replace(GENERATED, provenance={**GENERATED.provenance, "window_s": 1.0, "librosa": "0.11"})
    reference = replace(REFERENCE, provenance={**REFERENCE.provenance, "window_s": 2.0})
    provenance = score_embeddings(FRECHET, generated, reference).provenance
    assert (provenance["generated_window_s"], provenance["reference_window_s"]) == (1.0, 2.0)
    assert provenance["librosa"] == "0.11"
    assert "window_s" not in provenance


@pytest.mark.parametrize("key", ["encoder", "weights", "weights_hash"])
def test_sides_from_different_encoders_or_weights_are_refused(key):
    generated = replace(GENERATED, provenance={key: "one"})
    reference = replace(REFERENCE, provenance={key: "other"})
    with pytest.raises(ScoreError, match=rf"different `{key}` \(one and other\) cannot be compared"):
        score_embeddings(FRECHET, generated, reference)


def test_kernel_score_is_its_own_corrected_value():
    score = score_embeddings(KERNEL, GENERATED, REFERENCE)
    assert score.metric == "mmd/mfcc20"
    assert score.corrected == score.value
    assert score.se > 0.0


def test_text_score_takes_the_prompts_vector_as_reference():
    text = Embeddings(
        np.ones((1, 4)), np.zeros(1, dtype=int), ("a prompt",), ("a prompt",), {"encoder": "mfcc20"}
    )
    score = score_embeddings(TEXT, GENERATED, text, "a prompt")
    vectors = GENERATED.values.astype(np.float64)
    cosines = vectors.sum(axis=1) / np.linalg.norm(vectors, axis=1) / 2.0
    assert score.value == pytest.approx(cosines.mean())
    assert score.n_reference == 1


def test_pooled_score_is_that_of_all_clips_together():
    other = make_set(20, seed=3, shift=-0.2)
    score = score_pooled(FRECHET, [GENERATED, other], REFERENCE)
    both = np.concatenate([GENERATED.values, other.values])
    assert score.prompt is None
    assert score.n_generated == 50
    assert score.value == pytest.approx(frechet_distance(both, REFERENCE.values), rel=1e-9)


def test_pooled_score_of_prompts_far_apart_has_no_error_from_the_prompts():
    parts = [make_set(20, seed=3), make_set(20, seed=4, shift=8.0)]
    pooled = score_pooled(FRECHET, parts, REFERENCE)
    merged = Embeddings(
        np.concatenate([part.values for part in parts]),
        np.repeat(np.arange(40), 3),
        tuple(str(clip) for clip in range(40)),
        tuple(str(clip) for clip in range(40)),
        parts[0].provenance,
    )
    assert pooled.se < 0.5 * score_embeddings(FRECHET, merged, REFERENCE).se


def test_duplicated_clips_change_little_but_the_count():
    twice = Embeddings(
        np.concatenate([GENERATED.values, GENERATED.values]),
        np.repeat(np.arange(60), 3),
        tuple(str(clip) for clip in range(60)),
        GENERATED.groups * 2,
        GENERATED.provenance,
    )
    once, doubled = (score_embeddings(FRECHET, item, REFERENCE) for item in (GENERATED, twice))
    assert doubled.n_generated == 60
    assert doubled.value == pytest.approx(once.value, rel=0.05)
    assert doubled.se == pytest.approx(once.se, rel=0.05)  # copies of a group are no new evidence


def test_worse_clips_score_worse_by_every_distance():
    noisy = replace(GENERATED, values=GENERATED.values * 3.0)
    for metric in (FRECHET, KERNEL):
        assert (
            score_embeddings(metric, noisy, REFERENCE).ci_low
            > score_embeddings(metric, GENERATED, REFERENCE).ci_high
        )


def test_nan_is_an_error_that_names_side_and_clip():
    values = REFERENCE.values.copy()
    values[7, 2] = np.nan
    with pytest.raises(ScoreError, match=r"reference embeddings: 1 of 120 vectors .* clip 002"):
        score_embeddings(KERNEL, GENERATED, replace(REFERENCE, values=values))


@pytest.mark.parametrize("metric", [FRECHET, KERNEL])
def test_mismatched_dimensions_are_an_error_with_both(metric):
    with pytest.raises(ScoreError, match="generated embeddings have 4 dimensions, the reference 5"):
        score_embeddings(metric, GENERATED, make_set(9, seed=1, dim=5))


def test_single_clip_is_scored_without_interval_by_the_frechet_distance_and_unscored_by_the_kernel():
    lone = make_set(1, seed=5, windows=8)
    score = score_embeddings(FRECHET, lone, REFERENCE)
    assert score.se is None
    assert "no interval: too few generated clips" in score.note
    with pytest.raises(UnscoredError, match="generated embeddings: one clip only"):
        score_embeddings(KERNEL, lone, REFERENCE)


def test_constant_generated_clips_get_the_right_distance():
    constant = replace(GENERATED, values=np.full_like(GENERATED.values, 2.0))
    reference = REFERENCE.values.astype(np.float64)
    expected = ((2.0 - reference.mean(axis=0)) ** 2).sum() + np.trace(np.cov(reference, rowvar=False))
    assert score_embeddings(FRECHET, constant, REFERENCE).value == pytest.approx(expected, rel=1e-9)


def test_no_sets_to_pool_are_an_error():
    with pytest.raises(ScoreError, match="no generated embeddings"):
        score_pooled(FRECHET, [], REFERENCE)


def test_metrics_load_neither_torch_nor_librosa():
    package = Path(sys.modules["lora_bench.metrics"].__file__).parent
    sources = [path.read_text(encoding="utf-8") for path in package.glob("*.py")]
    assert len(sources) > 10
    for banned in ("torch", "librosa", "sklearn"):
        assert not any(f"import {banned}" in text or f"from {banned}" in text for text in sources)
