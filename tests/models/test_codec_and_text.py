from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_bench.errors import ModelError
from lora_bench.models.transformers_musicgen import TransformersMusicGen


def make_audio(n_clips: int, channels: int, n_samples: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.2, (n_clips, channels, n_samples)).astype(np.float32)


def test_codes_equal_those_of_the_codec_itself(tiny: TransformersMusicGen) -> None:
    audio = make_audio(2, 1, 32 * 10)
    with torch.no_grad():
        expected = tiny.network.audio_encoder.encode(torch.from_numpy(audio)).audio_codes[0]
    codes = tiny.encode_audio(audio)
    assert codes.dtype == torch.int64
    assert len(codes.unique()) > 2
    assert torch.equal(codes, expected)


def test_a_partial_last_frame_is_encoded(tiny: TransformersMusicGen) -> None:
    assert tiny.encode_audio(make_audio(1, 1, 32 * 10 + 1)).shape == (1, 4, 11)
    assert tiny.info.count_frames(32 * 10 + 1) == 11


def test_decoded_audio_has_whole_frames(tiny: TransformersMusicGen) -> None:
    codes = tiny.encode_audio(make_audio(3, 1, 32 * 10))
    audio = tiny.decode_audio(codes)
    assert audio.shape == (3, 1, 320)
    assert audio.dtype == np.float32
    with torch.no_grad():
        expected = tiny.network.audio_encoder.decode(codes[None], [None]).audio_values
    np.testing.assert_array_equal(audio, expected.numpy())


def test_stereo_channels_are_encoded_apart_and_interleaved(
    stereo: TransformersMusicGen,
) -> None:
    audio = make_audio(2, 2, 32 * 10)
    codes = stereo.encode_audio(audio)
    assert codes.shape == (2, 8, 10)
    codec = stereo.network.audio_encoder
    with torch.no_grad():
        for channel in (0, 1):
            alone = codec.encode(torch.from_numpy(audio[:, channel : channel + 1])).audio_codes[0]
            assert torch.equal(codes[:, channel::2], alone)
    decoded = stereo.decode_audio(codes)
    assert decoded.shape == (2, 2, 320)
    with torch.no_grad():
        left = codec.decode(codes[None, :, ::2], [None]).audio_values
    np.testing.assert_allclose(decoded[:, :1], left.numpy(), atol=1e-6)


def test_mono_audio_is_not_doubled_for_a_stereo_model(stereo: TransformersMusicGen) -> None:
    with pytest.raises(ModelError, match=r"audio of shape \(1, 1, 320\), expected \(clips, 2, samples\)"):
        stereo.encode_audio(make_audio(1, 1, 320))


def test_latents_are_the_codecs_output_before_its_quantiser(
    tiny: TransformersMusicGen, stereo: TransformersMusicGen
) -> None:
    audio = make_audio(2, 1, 320)
    with torch.no_grad():
        expected = tiny.network.audio_encoder.encoder(torch.from_numpy(audio)).transpose(1, 2)
    np.testing.assert_array_equal(tiny.audio_latents(audio), expected.numpy())
    assert stereo.audio_latents(make_audio(2, 2, 320)).shape == (2, 10, 16)


def test_text_states_equal_those_of_the_text_encoder_and_are_not_padded(tiny: TransformersMusicGen) -> None:
    texts = ["a song", "a much longer description of a song"]
    states = tiny.encode_text(texts)
    assert len(states[0]) < len(states[1])
    for text, state in zip(texts, states, strict=True):
        ids = tiny._tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            expected = tiny.network.text_encoder(**ids).last_hidden_state[0]
        assert torch.equal(state, expected)
        assert state.dtype == torch.float32
