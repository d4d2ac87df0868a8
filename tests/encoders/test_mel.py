"""Mel features: a copy is found at any offset and loudness, other music is not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.sounds import make_tone

from lora_bench.artifacts import AudioClip
from lora_bench.encoders.mel import N_MELS, WINDOW_FRAMES, MelEncoder, compute_mel_frames
from lora_bench.errors import ScoreError
from lora_bench.metrics.guards import find_nearest, repetition

RATE_HZ = 16_000


def make_tune(name, seconds=6.0, seed=0):
    """A melody of random notes, a quarter of a second each."""
    rng = np.random.default_rng(seed)
    n = RATE_HZ // 4
    t = np.arange(n) / RATE_HZ
    notes = [np.sin(2 * np.pi * rng.uniform(150, 2000) * t) * np.exp(-6 * t) for _ in range(int(seconds * 4))]
    audio = 0.4 * np.concatenate(notes) + rng.normal(0, 0.003, n * len(notes))
    return AudioClip(name, name, audio[None].astype(np.float32), RATE_HZ)


def test_one_vector_per_window_of_two_seconds():
    embeddings = MelEncoder(hop_s=1.0).embed([make_tune("a"), make_tune("b", seconds=3.0)])
    assert embeddings.values.shape == (5 + 2, WINDOW_FRAMES * N_MELS)
    assert np.bincount(embeddings.clip_index).tolist() == [5, 2]
    np.testing.assert_allclose(np.linalg.norm(embeddings.values, axis=1), 1, atol=1e-5)


def test_a_shifted_quieter_copy_is_told_from_other_music():
    track = make_tune("track", seconds=10.0)
    offset = 3 * RATE_HZ + 777  # between two frames
    copied = track.audio[:, offset : offset + 4 * RATE_HZ] * np.float32(0.2)
    copy = dataclasses.replace(track, name="copy", group="copy", audio=copied)
    others = [make_tune(f"other{i}", seconds=4.0, seed=10 + i) for i in range(4)]
    train, lookup = MelEncoder(hop_s=0.05).embed([track]), MelEncoder(hop_s=1.0)
    found = find_nearest(lookup.embed([copy]).values, [train.values])
    usual = find_nearest(lookup.embed(others).values, [train.values])
    assert found.similarities.min() > 0.9
    assert usual.similarities.max() < 0.6
    # the nearest window starts where the copy was cut
    np.testing.assert_allclose(found.rows[0] * 0.05, offset / RATE_HZ, atol=0.051)


def test_a_fade_does_not_make_windows_alike():
    fade = np.linspace(1, 0.01, 3 * RATE_HZ)[None].astype(np.float32)
    one, other = (
        dataclasses.replace(make_tune(str(seed), seconds=3.0, seed=seed), name=str(seed)) for seed in (1, 2)
    )
    faded = [dataclasses.replace(tune, audio=tune.audio * fade) for tune in (one, other)]
    vectors = [MelEncoder(hop_s=5.0).embed([tune]).values for tune in faded]
    assert find_nearest(vectors[0], [vectors[1]]).similarities[0] < 0.5


def test_silence_and_steady_noise_of_nothing_give_zero_vectors():
    silence = AudioClip("silence", "silence", np.zeros((1, 3 * RATE_HZ), np.float32), RATE_HZ)
    assert not MelEncoder().embed([silence]).values.any()


def test_frames_show_a_loop():
    loop = make_tune("loop", seconds=2.0)
    repeated = dataclasses.replace(loop, audio=np.tile(loop.audio, (1, 4)))
    free = make_tune("free", seconds=8.0)
    assert compute_mel_frames(repeated).shape == (80, N_MELS)
    assert repetition(compute_mel_frames(repeated), 10) > 0.95
    assert repetition(compute_mel_frames(free), 10) < 0.6


def test_a_clip_below_one_window_is_refused_by_name():
    with pytest.raises(ScoreError, match="clip brief: it is too short to give a single window"):
        MelEncoder().embed([make_tone("brief", seconds=1.0)])
