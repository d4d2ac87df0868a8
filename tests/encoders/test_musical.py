"""Musical measures against sounds whose properties are known, and under graded degradation."""

from __future__ import annotations

import numpy as np
import pytest

from lora_bench.artifacts import AudioClip
from lora_bench.encoders import get_encoder
from lora_bench.encoders.musical import MEASURES
from lora_bench.errors import UnscoredError
from lora_bench.metrics import parse_metric
from lora_bench.stages.score import score_embeddings

RATE_HZ = 22_050
LENGTH_S = 8.0
NONE_FOR_SILENCE = {"tempo", "brightness", "loudness-range"}


def measure(name: str, *sounds: np.ndarray) -> np.ndarray:
    """Return the vectors [clips, D] of some sounds."""
    clips = [
        AudioClip(f"c{index}", f"c{index}", sound[None].astype(np.float32), RATE_HZ)
        for index, sound in enumerate(sounds)
    ]
    return np.asarray(get_encoder(name).embed(clips).values)


def render_clicks(bpm: float, *, jitter_s: float = 0.0, seed: int = 0) -> np.ndarray:
    """Return short noise bursts on every beat, each moved by a random time."""
    rng = np.random.default_rng(seed)
    sound = np.zeros(int(LENGTH_S * RATE_HZ))
    burst = rng.normal(size=RATE_HZ // 50) * np.exp(-np.arange(RATE_HZ // 50) / 60.0)
    for beat_s in np.arange(0.1, LENGTH_S - 0.2, 60.0 / bpm):
        at = int((beat_s + rng.uniform(-jitter_s, jitter_s) + jitter_s) * RATE_HZ)
        sound[at : at + len(burst)] += 0.5 * burst[: len(sound) - at]
    return sound


def render_chords(root: int, third: int, *, noise: float = 0.0) -> np.ndarray:
    """Return a tonic triad for 8 s, with partials; `third` is 4 for major and 3 for minor."""
    time_s = np.arange(int(LENGTH_S * RATE_HZ)) / RATE_HZ
    notes = [48 + root + step for step in (0, third, 7, 12)]
    sound = sum(
        np.sin(2 * np.pi * 440.0 * 2 ** ((note - 69) / 12) * partial * time_s) / partial**2
        for note in notes
        for partial in (1, 2, 3)
    )
    return 0.05 * sound + noise * np.random.default_rng(0).normal(size=len(time_s))


@pytest.mark.parametrize("bpm", [80.0, 100.0, 120.0, 140.0, 165.0])
def test_tempo_is_that_of_the_clicks(bpm: float) -> None:
    [[octaves]] = measure("tempo", render_clicks(bpm))
    assert 120.0 * 2.0**octaves == pytest.approx(bpm, rel=0.04)  # librosa's grid of tempi is that coarse


def test_onsets_are_counted() -> None:
    found = measure("onsets", *(render_clicks(bpm) for bpm in (60.0, 120.0, 240.0)))[:, 0]
    assert found == pytest.approx([1.0, 2.0, 4.0], rel=0.1)


def test_a_beat_is_less_clear_the_more_it_is_disturbed() -> None:
    found = measure("pulse", *(render_clicks(120.0, jitter_s=jitter) for jitter in (0.0, 0.03, 0.1)))[:, 0]
    assert found[0] > 0.8
    assert found[0] > found[1] > found[2]


def test_loudness_is_that_of_the_recommendation() -> None:
    time_s = np.arange(int(LENGTH_S * RATE_HZ)) / RATE_HZ
    tone = np.sin(2 * np.pi * 997.0 * time_s)  # full scale in one channel: -3.01 LUFS
    found = measure("loudness", tone, 0.1 * tone, 0.0 * tone)[:, 0]
    assert found == pytest.approx([-3.01, -23.01, -70.0], abs=0.05)


@pytest.mark.parametrize(
    ("levels_dbfs", "range_lu"),
    [
        # the minimum requirements of EBU Tech 3342, each within 1 LU
        ((-20, -30), 10.0),
        ((-20, -15), 5.0),
        ((-40, -20), 20.0),
        ((-50, -35, -20, -35, -50), 15.0),  # the relative gate shuts out -50
        ((-20,), 0.0),
        ((-60, -60, -78), 0.0),  # the absolute gate shuts out -78
    ],
)
def test_loudness_range_is_that_of_the_ebus_signals(levels_dbfs: tuple[int, ...], range_lu: float) -> None:
    time_s = np.arange(20 * RATE_HZ) / RATE_HZ
    parts = [10 ** (level / 20) * np.sin(2 * np.pi * 1000.0 * time_s) for level in levels_dbfs]
    sound = np.concatenate(parts)
    assert measure("loudness-range", sound, 0.5 * sound)[:, 0] == pytest.approx(range_lu, abs=0.05)


def test_a_clip_of_one_window_has_no_loudness_range() -> None:
    time_s = np.arange(int(3.1 * RATE_HZ)) / RATE_HZ
    tone = np.sin(2 * np.pi * 440.0 * time_s) * np.where(time_s < 2.9, 0.1, 1.0)
    assert measure("loudness-range", tone)[0, 0] > 0.1  # two windows
    for length_s in (2.99, 3.0):
        with pytest.raises(
            UnscoredError, match=rf"a clip of {length_s:.2f} s has none.*clips of at least 3\.1 s"
        ):
            measure("loudness-range", tone, tone[: int(length_s * RATE_HZ)])


def test_brightness_is_the_octave_of_a_tone_and_falls_with_a_low_pass() -> None:
    from scipy.signal import butter, sosfilt

    time_s = np.arange(int(LENGTH_S * RATE_HZ)) / RATE_HZ
    found = measure("brightness", *(np.sin(2 * np.pi * hz * time_s) for hz in (500.0, 1000.0, 4000.0)))[:, 0]
    assert found == pytest.approx([-1.0, 0.0, 2.0], abs=0.05)
    noise = 0.1 * np.random.default_rng(0).normal(size=len(time_s))
    duller = [
        sosfilt(butter(4, hz, fs=RATE_HZ, output="sos"), noise) for hz in (8000.0, 4000.0, 2000.0, 1000.0)
    ]
    assert (np.diff(measure("brightness", *duller)[:, 0]) < -0.3).all()


def test_tonality_does_not_change_with_the_key() -> None:
    """The shares differ a little, for the bands of the twelve pitch classes are not equally wide in bins."""
    in_c, *others = measure("tonality", *(render_chords(root, 4) for root in (0, 2, 5, 9)))
    assert in_c.sum() == pytest.approx(1.0, abs=1e-5)
    for other in others:
        assert other == pytest.approx(in_c, abs=0.08)
    [minor] = measure("tonality", render_chords(2, 3))
    assert in_c[4] > 1.5 * in_c[3]
    assert minor[3] > 1.5 * minor[4]


def test_noise_makes_a_chord_less_tonal_by_degrees() -> None:
    found = measure("tonality", *(render_chords(0, 4, noise=level) for level in (0.0, 0.03, 0.3)))
    spread = found.std(axis=1)
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.parametrize("name", sorted(NONE_FOR_SILENCE))
def test_silence_has_no_tempo_brightness_or_loudness_range(name: str) -> None:
    with pytest.raises(
        UnscoredError, match=rf"{name}: a (silent clip|clip without onsets) has none.* \(c1\)$"
    ):
        measure(name, render_clicks(120.0), np.zeros(int(LENGTH_S * RATE_HZ)), render_clicks(90.0))


def test_a_very_short_clip_has_the_other_measures() -> None:
    noise = np.random.default_rng(0).normal(size=4000)
    assert all(np.isfinite(measure(name, noise)).all() for name in {*MEASURES} - {"loudness-range"})


@pytest.mark.parametrize("name", sorted({*MEASURES} - NONE_FOR_SILENCE))
def test_silence_has_the_other_measures(name: str) -> None:
    found = measure(name, np.zeros(RATE_HZ), np.zeros(4000))
    assert found.shape == (2, MEASURES[name][0])
    assert np.isfinite(found).all()


def test_a_score_tells_the_means_of_a_measure_with_a_unit() -> None:
    encoder = get_encoder("onsets")
    slow, fast = (
        encoder.embed(
            [
                AudioClip(
                    f"c{seed}",
                    f"c{seed}",
                    render_clicks(bpm + 2 * seed, seed=seed)[None].astype(np.float32),
                    RATE_HZ,
                )
                for seed in range(6)
            ]
        )
        for bpm in (60.0, 120.0)
    )
    score = score_embeddings(parse_metric("onsets"), fast, slow)
    means = float(fast.values.mean()), float(slow.values.mean())
    assert (score.provenance["mean_generated"], score.provenance["mean_reference"]) == pytest.approx(means)
    spread = np.std(fast.values, ddof=1) - np.std(slow.values, ddof=1)
    assert score.value == pytest.approx((means[0] - means[1]) ** 2 + spread**2, rel=0.02)
