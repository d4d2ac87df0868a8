"""What every encoder refuses, and that batching changes nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sounds import make_tone

from lora_bench.artifacts import AudioClip
from lora_bench.encoders.assembly import batch_equal_lengths, cut_windows, join_vectors, prepare_clip
from lora_bench.encoders.mfcc import SeedMfccEncoder
from lora_bench.errors import ScoreError


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_refused_by_the_clips_name(bad):
    clip = make_tone("bad-clip")
    audio = clip.audio.copy()
    audio[0, 100] = bad
    with pytest.raises(ScoreError, match=r"clip bad-clip: 1 of 16000 samples are NaN or infinite"):
        SeedMfccEncoder().embed([make_tone("good"), dataclasses.replace(clip, audio=audio)])


def test_a_clip_that_is_too_short_is_refused_with_the_length_needed():
    with pytest.raises(
        ScoreError, match=r"clip tiny: 160 samples at 16000 Hz are too short.*2048 \(0\.13 s\)"
    ):
        SeedMfccEncoder().embed([make_tone("tiny", seconds=0.01)])


def test_an_empty_clip_is_refused():
    empty = AudioClip("empty", "empty", np.zeros((1, 0), np.float32), 16_000)
    with pytest.raises(ScoreError, match="clip empty"):
        prepare_clip(empty, sample_rate_hz=8_000, channels=1, min_samples=1)


def test_audio_without_a_channel_axis_is_refused():
    flat = AudioClip("flat", "flat", np.zeros(100, np.float32), 16_000)
    with pytest.raises(ScoreError, match=r"clip flat: its audio has shape \(100,\)"):
        prepare_clip(flat, sample_rate_hz=None, channels=1, min_samples=1)


def test_no_clips_are_refused():
    with pytest.raises(ScoreError, match="no clips"):
        SeedMfccEncoder().embed([])


def test_an_embedding_that_is_not_finite_is_refused_by_the_clips_name():
    rows = [np.zeros((2, 3), np.float32), np.full((1, 3), np.nan, np.float32)]
    with pytest.raises(ScoreError, match="clip b: its embedding is not finite"):
        join_vectors([("a", "a"), ("b", "b")], rows, {})


def test_channels_and_rate_are_brought_to_what_is_asked():
    audio = prepare_clip(
        make_tone("a", rate_hz=32_000, channels=2), sample_rate_hz=16_000, channels=1, min_samples=1
    )
    assert audio.shape == (1, 16_000)
    assert audio.dtype == np.float32


@given(st.lists(st.integers(1, 4), max_size=20), st.integers(1, 12))
def test_batches_hold_neighbours_of_one_length_in_order_within_the_budget(lengths, budget):
    items = [(index, np.full(length, index, np.float32)) for index, length in enumerate(lengths)]
    seen = []
    for keys, batch in batch_equal_lengths(items, max_samples=budget):
        assert batch.shape == (len(keys), lengths[keys[0]])
        assert len(keys) == 1 or batch.size <= budget
        np.testing.assert_array_equal(batch[:, 0], keys)
        seen += keys
    assert seen == list(range(len(lengths)))


@given(st.integers(2, 50), st.integers(3, 20))
def test_windows_cover_everything_but_a_rest_too_short_to_keep(n_samples, window):
    audio = np.arange(n_samples, dtype=np.float32)[None]
    pieces = cut_windows(audio, window=window, min_samples=2)
    joined = np.concatenate(pieces, axis=1)
    np.testing.assert_array_equal(joined, audio[:, : joined.shape[1]])
    assert n_samples - joined.shape[1] < 2
    assert all(2 <= piece.shape[1] <= window for piece in pieces)
