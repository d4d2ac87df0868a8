from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from lora_bench.audio import resample
from lora_bench.audio.loudness import measure_loudness
from lora_bench.stages.dataset.track_facts import measure_samples

RATE_HZ = 44_100


@pytest.fixture
def music():
    """Broad, decaying noise bursts in two different channels: [C, S], 12 s."""
    time_s = np.arange(12 * RATE_HZ) / RATE_HZ
    noise = np.random.default_rng(0).normal(0, 0.1, (2, len(time_s))) * np.exp(-3 * (time_s % 0.5))
    return noise.astype(np.float32)


def faults(audio, rate_hz=RATE_HZ):
    return "; ".join(measure_samples(audio, rate_hz).list_faults())


def test_a_good_recording_has_no_faults(music):
    facts = measure_samples(music, RATE_HZ)
    assert list(facts.list_faults()) == []
    assert facts.find_exclusion(2.0) is None
    assert facts.duration_s == 12.0
    assert facts.loudness_lufs == pytest.approx(measure_loudness(music.T, RATE_HZ))
    assert facts.bandwidth_hz == RATE_HZ / 2


@pytest.mark.parametrize("gain", [1.0, 0.7])
def test_clipping_is_found_even_if_the_sound_was_turned_down_later(music, gain):
    clipped = np.clip(music * 10, -1, 1) * np.float32(gain)
    assert "clipped (" in faults(clipped)
    loud = music / np.abs(music).max()
    assert "clipped" not in faults(loud)


def test_silence_at_the_ends_and_within_is_found(music):
    silence = np.zeros((2, 4 * RATE_HZ), np.float32)
    padded = np.concatenate([silence, music, silence[:, :RATE_HZ]], axis=1)
    assert "silence of 4.0 s at the start" in faults(padded)
    assert "% silence" in faults(np.concatenate([padded, silence, silence], axis=1))
    found = measure_samples(padded, RATE_HZ)
    assert (found.lead_s, found.tail_s) == (pytest.approx(4.0, abs=0.06), pytest.approx(1.0, abs=0.2))


def test_mono_in_two_channels_is_found_even_with_dither(music):
    noise = np.random.default_rng(1).normal(0, 2**-16, music.shape).astype(np.float32)
    assert faults(music[[0, 0]] + noise) == "mono in 2 channels"
    assert not measure_samples(music[:1], RATE_HZ).is_false_stereo


@pytest.mark.parametrize("lower_hz", [8000, 16_000, 22_050, 32_000])
def test_a_wav_that_was_resampled_from_a_lower_rate_is_found(music, lower_hz):
    facts = measure_samples(resample(resample(music, RATE_HZ, lower_hz), lower_hz, 48_000), 48_000)
    assert facts.bandwidth_hz == pytest.approx(lower_hz / 2, rel=0.06)
    assert "(a lossy or resampled source)" in "; ".join(facts.list_faults())


def test_a_wav_that_was_an_mp3_of_a_low_rate_is_found(music):
    stream = io.BytesIO()
    soundfile.write(
        stream,
        music.T,
        RATE_HZ,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="VARIABLE",
        compression_level=0.6,
    )
    stream.seek(0)
    decoded, _ = soundfile.read(stream, dtype="float32")
    assert "nothing above" in faults(decoded.T)


def test_offset_and_loudness_are_judged(music):
    assert "DC offset of 5.0% of full scale" in faults(music + np.float32(0.05))
    assert "quiet (" in faults(music * np.float32(0.02))
    assert "loud (" in faults(np.sign(music) * np.float32(0.99))


def test_silence_and_short_files_are_left_out_with_the_reason_that_a_run_gives(music):
    assert (
        measure_samples(music * 0, RATE_HZ).find_exclusion(2.0).startswith("is silent (every sample is zero")
    )
    assert measure_samples(music[:, :RATE_HZ], RATE_HZ).find_exclusion(2.0).startswith("is too short (1.00 s")
    assert measure_samples(music[:, :0], RATE_HZ).find_exclusion(2.0) is not None
