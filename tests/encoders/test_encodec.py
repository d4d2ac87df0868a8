"""The codec encoder on a model small enough to compute by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from support.sounds import make_tone, make_tones

from lora_bench.artifacts import AudioFormat
from lora_bench.encoders import get_encoder
from lora_bench.encoders.encodec import WINDOW_S, EncodecEncoder
from lora_bench.errors import ScoreError

HOP = 320


class FramingModel:
    """A "codec" whose latents are mean and spread of each frame; it remembers the batches it saw."""

    def __init__(self, channels=1):
        self.info = SimpleNamespace(
            name="framing",
            weights_hash="whole",
            codec_hash="0123",
            audio_format=AudioFormat(16_000, channels),
            frame_rate_hz=50.0,
        )
        self.device = SimpleNamespace(type="cpu")
        self.batches = []

    def audio_latents(self, audio):
        self.batches.append(audio.shape)
        frames = audio[..., : audio.shape[-1] // HOP * HOP].mean(axis=1).reshape(len(audio), -1, HOP)
        return np.stack([frames.mean(axis=2), frames.std(axis=2)], axis=2)


def test_clips_of_one_length_go_through_the_codec_together():
    model = FramingModel()
    embeddings = EncodecEncoder(model, batch_s=3).embed(make_tones(5))
    assert model.batches == [(3, 1, 16_000), (2, 1, 16_000)]
    assert embeddings.values.shape == (250, 2)
    assert np.bincount(embeddings.clip_index).tolist() == [50] * 5


def test_vectors_do_not_depend_on_the_neighbours_in_the_batch():
    clips = [*make_tones(3), make_tone("long", seconds=1.5), make_tone("other")]
    together = EncodecEncoder(FramingModel()).embed(clips)
    for index, clip in enumerate(clips):
        alone = EncodecEncoder(FramingModel()).embed([clip])
        np.testing.assert_array_equal(together.values[together.clip_index == index], alone.values)


def test_other_rates_and_channel_counts_are_converted():
    model = FramingModel(channels=2)
    EncodecEncoder(model).embed([make_tone("a", rate_hz=48_000)])
    assert model.batches == [(1, 2, 16_000)]


def test_long_files_are_cut_into_windows_of_one_clip():
    model = FramingModel()
    embeddings = EncodecEncoder(model).embed([make_tone("long", seconds=WINDOW_S + 2)])
    assert model.batches == [(1, 1, WINDOW_S * 16_000), (1, 1, 2 * 16_000)]
    assert set(embeddings.clip_index) == {0}
    assert len(embeddings.values) == 50 * (WINDOW_S + 2)


def test_width_and_provenance_come_from_the_model():
    encoder = EncodecEncoder(FramingModel())
    assert encoder.dim == 2
    assert encoder.provenance["weights_hash"] == "0123"
    assert encoder.provenance["frame_rate_hz"] == 50.0


@pytest.mark.parametrize("name", ["encodec", "mfcc20"])
def test_encoders_that_need_the_music_model_say_so(name):
    with pytest.raises(ScoreError, match=f"{name}: it needs the music model"):
        get_encoder(name)


def test_an_unknown_encoder_is_refused_with_the_known_names():
    with pytest.raises(ScoreError, match=r"'mfcc' is not an encoder; expected one of mfcc20-seed, mfcc20"):
        get_encoder("mfcc")


def test_mfcc20_takes_the_models_rate():
    assert get_encoder("mfcc20", music_model=FramingModel()).sample_rate_hz == 16_000
