"""What `dataset.prepare` changes in the sound, against independent measures; what it leaves alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from lora_bench.artifacts import AudioFormat
from lora_bench.progress import SilentProgress
from lora_bench.spec.captions import CaptionSpec
from lora_bench.spec.prepare import PrepareSpec
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.dataset import manifest_from_json, prepare_dataset
from lora_bench.stages.dataset.sound_edits import count_clipped, edit_sound
from lora_bench.store import Store, to_jsonable

RATE_HZ = 48_000


def sine(duration_s, level_db, rate_hz=RATE_HZ, tone_hz=997.0):
    """A full-scale sine of 997 Hz in one channel has -3.01 LUFS by the recommendation."""
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (10 ** (level_db / 20) * np.sin(2 * np.pi * tone_hz * time_s)).astype(np.float32)[None]


def edit(audio, **fields):
    return edit_sound(audio, RATE_HZ, PrepareSpec(**fields), clipped_samples=0)


@pytest.mark.parametrize("level_db", [-40.0, -20.0, -6.0])
def test_a_sine_is_brought_to_the_loudness_that_the_recommendation_gives_it(level_db):
    changed, made = edit(sine(3.0, level_db), loudness_lufs=-16.0)
    assert made.gain_db == pytest.approx(-16.0 + 3.01 - level_db, abs=0.02)
    assert 20 * np.log10(np.abs(changed).max()) == pytest.approx(-12.99, abs=0.02)
    assert (made.loudness_lufs, made.is_limited) == (pytest.approx(-16.0), False)


def test_the_gain_stops_where_the_peak_would_clip():
    audio = sine(3.0, -40.0)
    audio[0, 1000] = 0.5  # a click 34 dB above the rest
    changed, made = edit(audio, loudness_lufs=-16.0)
    assert np.abs(changed).max() == pytest.approx(10 ** (-1 / 20), rel=1e-4)
    assert made.gain_db == pytest.approx(-1 + 6.02, abs=0.01)
    assert made.is_limited
    assert made.loudness_lufs < -30


def test_silence_at_both_ends_is_cut_off_relative_to_the_peak_at_any_level():
    noise = np.random.default_rng(0).normal(0, 1e-5, (1, RATE_HZ)).astype(np.float32)
    for gain in (1.0, 0.01):
        audio = np.concatenate([noise, sine(2.0, -6.0), noise[:, : RATE_HZ // 2]], axis=1) * np.float32(gain)
        changed, made = edit(audio, trim_silence_db=-50.0)
        assert (made.lead_s, made.tail_s) == (pytest.approx(1.0, abs=0.02), pytest.approx(0.5, abs=0.02))
        assert changed.shape[1] / RATE_HZ == pytest.approx(2.0, abs=0.03)
        assert made.lead_s + made.tail_s + changed.shape[1] / RATE_HZ == pytest.approx(3.5)


def test_a_pause_within_the_music_stays():
    audio = np.concatenate([sine(1.0, -6.0), np.zeros((1, RATE_HZ), np.float32), sine(1.0, -6.0)], axis=1)
    changed, made = edit(audio, trim_silence_db=-50.0)
    assert np.array_equal(changed, audio)
    assert (made.lead_s, made.tail_s) == (0.0, 0.0)


def test_the_offset_is_subtracted_before_silence_is_looked_for():
    silence = np.zeros((1, RATE_HZ), np.float32)
    audio = np.concatenate([silence, sine(1.0, -20.0), silence], axis=1) + np.float32(0.05)
    changed, made = edit(audio, remove_dc=True, trim_silence_db=-50.0)
    assert made.dc_offset == pytest.approx(0.05, abs=1e-4)
    assert made.lead_s == pytest.approx(1.0, abs=0.02)
    assert abs(changed.mean()) < 1e-4


def test_silence_has_no_gain_and_nothing_is_cut_off():
    changed, made = edit(np.zeros((2, RATE_HZ), np.float32), loudness_lufs=-16.0, trim_silence_db=-50.0)
    assert changed.shape == (2, RATE_HZ)
    assert (made.gain_db, made.lead_s, made.tail_s) == (None, 0.0, 0.0)


def test_clipped_samples_are_counted_on_both_sides_alone():
    music = np.random.default_rng(0).normal(0, 0.1, (1, RATE_HZ)).astype(np.float32)
    assert count_clipped(music) == 0
    for start, level in ((100, 0.9), (5000, -0.8)):
        music[0, start : start + 7] = level
    music[0, 200:203] = 0.9  # three are not a clip
    assert count_clipped(music) == 14


@pytest.fixture
def folder(tmp_path, save_sound):
    rng = np.random.default_rng(0)
    for index in range(4):
        noise = rng.normal(0, 0.02 * (index + 1), (1, 48_000)).astype(np.float32)
        silence = np.zeros((1, 16_000), np.float32)
        save_sound(tmp_path / "genre" / f"{index}.wav", np.concatenate([silence, noise], axis=1), 16_000)
    return tmp_path / "genre"


def prepare(folder, **fields):
    spec = DatasetSpec(path=folder, captions=CaptionSpec(text="a"), clip_s=1.0, **fields)
    store = Store(folder.parent / "cache")
    return prepare_dataset(spec, AudioFormat(16_000, 1), store, SilentProgress()), store


def test_all_sides_are_changed_alike_and_the_manifest_says_how(folder):
    plain, _ = prepare(folder)
    changed, _ = prepare(folder, prepare=PrepareSpec(loudness_lufs=-20.0, trim_silence_db=-50.0))
    assert {track.split for track in changed.tracks} == {"train", "eval"}
    for before, track in zip(plain.tracks, changed.tracks, strict=True):
        assert (before.id, before.split) == (track.id, track.split)
        made = track.preparation
        assert made is not None
        assert made.loudness_lufs == pytest.approx(-20.0)
        assert made.lead_s == pytest.approx(1.0, abs=0.02)
        assert track.duration_s == pytest.approx(before.duration_s - made.lead_s - made.tail_s)
        assert track.audio != before.audio
        assert np.load(track.audio).shape[1] == round(track.duration_s * 16_000)
    assert plain.key != changed.key
    again = manifest_from_json(json.loads(json.dumps(to_jsonable(changed))))
    assert again.tracks == changed.tracks
    assert prepare(folder, prepare=PrepareSpec(loudness_lufs=-20.0, trim_silence_db=-50.0))[0] == changed


def test_a_track_that_is_too_short_without_its_silence_is_left_out_with_the_reason(folder, save_sound):
    save_sound(folder / "click.wav", np.pad(sine(0.5, -6.0, 16_000), ((0, 0), (0, 48_000))), 16_000)
    manifest, _ = prepare(folder, prepare=PrepareSpec(trim_silence_db=-50.0))
    (left_out,) = manifest.excluded
    assert left_out.source == "click.wav"
    assert "without 3.00 s of silence at its ends; dataset.min_track_s is 2 s" in left_out.reason


def test_a_spec_without_the_section_keeps_its_identity_and_its_manifest(folder):
    spec = DatasetSpec(path=folder)
    assert "prepare" not in spec.model_dump(mode="json")
    assert DatasetSpec(path=folder, prepare=PrepareSpec()).model_dump_json() == spec.model_dump_json()
    manifest, _ = prepare(folder)
    assert "preparation" not in json.dumps(to_jsonable(manifest))


@pytest.mark.parametrize("fields", [{"loudness_lufs": 3.0}, {"trim_silence_db": 50.0}, {"loudness": -16}])
def test_values_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValidationError):
        PrepareSpec(**fields)
