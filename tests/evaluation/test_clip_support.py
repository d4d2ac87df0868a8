"""Recall and coverage of a trial's clips: by hand, as `lora-bench score` has them, and the level of recordings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.embedding_sets import make_embeddings, wrap

from lora_bench.evaluation.clip_support import measure_own_support, measure_support
from lora_bench.metrics.clusters import average_clips
from lora_bench.metrics.diagnostics import describe_sets

K = 5


def count(generated, reference):
    """Recall and coverage by their definitions, one reference at a time."""

    def reach(points):
        return [sorted(np.linalg.norm(points - point, axis=1))[K] for point in points]  # the 0-th is itself

    own, theirs = reach(generated), reach(reference)
    recalled = covered = 0
    for place, point in enumerate(reference):
        distances = np.linalg.norm(generated - point, axis=1)
        recalled += any(distance < limit for distance, limit in zip(distances, own, strict=True))
        covered += any(distance < theirs[place] for distance in distances)
    return recalled / len(reference), covered / len(reference)


def test_all_clips_of_several_prompts_are_one_set() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(9, 3)) + shift for shift in (1.0, -1.5)]
    reference = 1.5 * rng.normal(size=(20, 3))
    found = measure_support([{"mfcc20": wrap(part)} for part in parts], {"mfcc20": wrap(reference)})
    expected = count(np.concatenate(parts), reference)
    assert (found.recall["mfcc20"], found.coverage["mfcc20"]) == pytest.approx(expected, abs=1e-12)
    alone = [count(part, reference) for part in parts]
    assert all(0.0 < share < 1.0 for pair in (expected, *alone) for share in pair)
    assert expected not in alone
    assert expected[1] > np.mean([pair[1] for pair in alone])
    assert found.unscored == {}


def test_figures_are_those_of_lora_bench_score() -> None:
    clips = make_embeddings(12, 4, 3, seed=1, shift=0.5)
    reference = make_embeddings(18, 4, 3, seed=2, clips_per_group=3)
    found = measure_support([{"encodec": average_clips(clips)}], {"encodec": average_clips(reference)})
    scored = describe_sets(clips, reference).manifold
    assert scored is not None
    assert (found.recall["encodec"], found.coverage["encodec"]) == (scored.recall, scored.coverage)
    assert 0.0 < scored.coverage < 1.0


def test_the_level_of_recordings_is_one_half_of_their_tracks_against_the_other() -> None:
    reference = make_embeddings(24, 1, 3, seed=3, clips_per_group=4)  # six tracks
    found = measure_own_support({"mfcc20": reference})
    is_second = np.repeat(np.arange(6) % 2 == 1, 4)
    halves = reference.values[~is_second], reference.values[is_second]
    expected = np.mean([count(*halves), count(*halves[::-1])], axis=0)
    assert (found.recall["mfcc20"], found.coverage["mfcc20"]) == pytest.approx(tuple(expected), abs=1e-12)
    assert 0.0 < expected[1] < 1.0


def test_too_few_clips_and_a_single_track_are_unscored_by_encoder() -> None:
    many = make_embeddings(12, 1, 2, clips_per_group=6)
    found = measure_support([{"mfcc20": wrap(np.ones((5, 2)))}], {"mfcc20": many})
    assert (found.recall, found.coverage) == ({}, {})
    assert "5 generated and 12 reference points" in found.unscored["recall and coverage (mfcc20)"]
    alone = replace(many, groups=("track0",) * 12)
    few = measure_own_support({"a": make_embeddings(3, 1, 2)}).unscored["recall and coverage (a)"]
    assert few.startswith(
        "the halves of the held-out tracks have 2 and 1 excerpts; their own level needs more than 5"
    )
    assert "one held-out track only" in measure_own_support({"a": alone}).unscored["recall and coverage (a)"]
