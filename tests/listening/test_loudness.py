"""Loudness against the recommendation and against torchaudio."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchaudio
from numpy.typing import NDArray
from scipy.signal import sosfilt

from lora_bench.audio.loudness import measure_loudness, measure_loudness_range
from lora_bench.listening.loudness import PEAK, choose_gains, damage_sound

MakeTone = Callable[..., NDArray[np.float32]]


@pytest.mark.parametrize("rate_hz", [16_000, 32_000, 44_100, 48_000])
def test_a_full_sine_of_997_hz_has_the_loudness_of_the_recommendation(rate_hz: int) -> None:
    time_s = np.arange(3 * rate_hz) / rate_hz
    tone = np.sin(2 * np.pi * 997 * time_s).astype(np.float32)[:, None]
    assert measure_loudness(tone, rate_hz) == pytest.approx(-3.01, abs=0.05)
    assert measure_loudness(np.repeat(tone, 2, axis=1), rate_hz) == pytest.approx(0.0, abs=0.05)


def test_music_with_pauses_is_as_loud_as_torchaudio_says() -> None:
    chance = np.random.default_rng(0)
    swell = np.abs(np.sin(np.linspace(0, 9, 5 * 32_000)))[:, None]
    sound = (0.2 * swell * chance.standard_normal((5 * 32_000, 1))).astype(np.float32)
    sound[32_000:64_000] = 0.0
    reference = float(torchaudio.functional.loudness(torch.from_numpy(sound.T.copy()), 32_000))
    assert measure_loudness(sound, 32_000) == pytest.approx(reference, abs=0.5)


def test_loudness_range_is_that_of_every_3_s_measured_alone() -> None:
    rate_hz = 48_000
    time_s = np.arange(30 * rate_hz) / rate_hz
    swell = np.power(10.0, -1.0 + np.cos(2 * np.pi * time_s / 17.0) * time_s / 60.0)
    sound = (0.3 * swell * np.random.default_rng(0).standard_normal(len(time_s))).astype(np.float32)
    filters = [  # tables 1 and 2 of BS.1770-4
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]
    power = np.square(sosfilt(np.array(filters), sound.astype(np.float64)))
    windows = [power[start : start + 3 * rate_hz] for start in range(0, 27 * rate_hz + 1, rate_hz // 10)]
    levels = -0.691 + 10 * np.log10([np.mean(window) for window in windows])
    assert levels.min() > max(-70.0, 10 * np.log10(np.mean(10 ** (levels / 10))) - 20.0)  # no gate shuts
    low, high = np.percentile(levels, [10, 95], method="higher")  # ranks 27 and 256.5 of 0 to 270
    assert high - low > 5.0
    assert measure_loudness_range(sound[:, None], rate_hz) == pytest.approx(high - low, abs=1e-4)


def test_sounds_without_a_loudness_of_3_s_have_no_loudness_range(make_tone: MakeTone) -> None:
    tone = make_tone(2.9).T
    assert math.isnan(measure_loudness_range(tone, 16_000))
    assert math.isnan(measure_loudness_range(np.zeros((64_000, 1), np.float32), 16_000))


def test_silence_has_no_loudness_and_keeps_its_level(make_tone: MakeTone) -> None:
    silence, tone = np.zeros((16_000, 1), np.float32), make_tone().T
    assert measure_loudness(silence, 16_000) == -math.inf
    assert measure_loudness(silence[:0], 16_000) == -math.inf
    quiet, loud = choose_gains([silence, tone], 16_000)
    assert quiet == 1.0
    assert measure_loudness(tone * loud, 16_000) == pytest.approx(-23, abs=0.01)


def test_a_short_sound_is_as_loud_as_a_long_one(make_tone: MakeTone) -> None:
    long, short = make_tone(2.0).T, make_tone(0.2).T
    assert measure_loudness(short, 16_000) == pytest.approx(measure_loudness(long, 16_000), abs=0.2)


def test_both_sides_are_equally_loud_and_neither_clips(make_tone: MakeTone) -> None:
    tone = make_tone(1.0).T
    spiky = tone * 0.01
    spiky[:16] = 1.0  # a click with which -23 LUFS cannot be reached
    gains = choose_gains([tone, spiky], 16_000)
    levels = [
        measure_loudness(sound * gain, 16_000) for sound, gain in zip([tone, spiky], gains, strict=True)
    ]
    assert levels[0] == pytest.approx(levels[1], abs=0.01)
    assert levels[0] < -23.5
    assert (
        max(np.abs(sound * gain).max() for sound, gain in zip([tone, spiky], gains, strict=True))
        <= PEAK * 1.0001
    )


def test_a_damaged_sound_is_mostly_noise(make_tone: MakeTone) -> None:
    tone = make_tone(1.0).T
    damaged = damage_sound(tone, 16_000)
    assert damaged.shape == tone.shape
    assert abs(np.corrcoef(tone[:, 0], damaged[:, 0])[0, 1]) < 0.6
    assert np.mean(damaged == 0) == pytest.approx(0.5, abs=0.01)
