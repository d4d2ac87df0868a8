from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from lora_bench.audio import load_audio
from lora_bench.audio.librosa_import import load_librosa
from lora_bench.errors import UsageError
from lora_bench.genres import chip_sound, chiptune, render_genre
from lora_bench.genres.chip_parts import Note
from lora_bench.genres.chip_sound import render_song
from lora_bench.genres.chiptune import (
    CHIPTUNE_VERSION,
    N_TRACKS,
    caption_song,
    compose_track,
    render_chiptune,
)
from lora_bench.genres.theory import SCALES
from lora_bench.progress import SilentProgress
from lora_bench.store import Store

librosa = load_librosa()

RATE_HZ = 16_000
SONGS = [compose_track(index) for index in range(N_TRACKS)]
HEARD = [0, 13, 36, 39]  # four styles, 4/4, 3/4 and 6/8


@pytest.fixture(scope="module")
def sounds():
    return {index: render_song(SONGS[index], RATE_HZ) for index in HEARD}


def test_the_catalogue_has_forty_songs_of_half_a_minute_or_more():
    assert N_TRACKS == 40
    for song in SONGS:
        assert 30.0 < song.n_bars * song.meter.steps * song.step_s < 41.0


def test_the_songs_vary_in_key_mode_tempo_meter_and_sound():
    assert {song.key.tonic for song in SONGS} == set(range(12))
    assert {song.key.mode for song in SONGS} == set(SCALES)
    assert len({song.bpm for song in SONGS}) >= 25
    assert {song.meter.name for song in SONGS} == {"4/4", "3/4", "6/8"}
    assert len({song.lead_wave for song in SONGS}) == 4
    assert len({song.harmony_name for song in SONGS}) == 6
    assert len({caption_song(song) for song in SONGS}) == N_TRACKS
    assert len({song.lead for song in SONGS}) == N_TRACKS


def test_captions_name_character_key_tempo_meter_and_instruments():
    assert caption_song(SONGS[0]) == (
        "chiptune, upbeat 8-bit game loop, level theme, C major, 140 bpm, 4/4, square lead, broken chords, "
        "triangle bass, noise drums"
    )
    for song in SONGS:
        assert ("no drums" in caption_song(song)) == (not song.hits)
        assert re.search(rf", {song.key.name}, {song.bpm} bpm, ", caption_song(song))


@pytest.mark.parametrize("index", range(N_TRACKS))
def test_notes_fill_the_form_and_belong_to_the_key(index):
    song = SONGS[index]
    scale = {(song.key.tonic + step) % 12 for step in SCALES[song.key.mode]}
    n_steps = song.n_bars * song.meter.steps
    assert all(midi % 12 in scale for note in (*song.lead, *song.harmony, *song.bass) for midi in note.midis)
    assert all(note.length > 0 and 0 <= note.start < n_steps for note in (*song.lead, *song.bass))
    assert max(note.start + note.length for note in song.lead) <= n_steps
    assert all(later.start > note.start for note, later in zip(song.lead, song.lead[1:], strict=False))
    assert all(40 <= midi <= 63 for note in song.bass for midi in note.midis)
    assert all(55 <= midi <= 96 for note in song.lead for midi in note.midis)
    assert song.lead[-1].midis[0] % 12 == song.key.tonic


@pytest.mark.parametrize("index", range(N_TRACKS))
def test_melodies_come_back(index):
    song = SONGS[index]
    bars = [[] for _ in range(song.n_bars)]
    for note in song.lead:
        bars[note.start // song.meter.steps].append((note.start % song.meter.steps, note.midis))
    counts = Counter(tuple(bar) for bar in bars)
    n_repeated = sum(count for count in counts.values() if count > 1)
    assert n_repeated >= 2
    assert len(counts) >= 4


def test_the_same_version_gives_the_same_notes_and_bytes(tmp_path, monkeypatch):
    """If this fails on purpose, raise CHIPTUNE_VERSION: stores keep what an older version rendered."""
    notes = repr([(song.lead, song.harmony, song.bass, song.hits, caption_song(song)) for song in SONGS])
    monkeypatch.setattr(chiptune, "N_TRACKS", 2)
    render_chiptune(tmp_path, RATE_HZ)
    sound = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("*.wav")))
    digests = [hashlib.sha256(data).hexdigest()[:16] for data in (notes.encode(), sound)]
    assert (CHIPTUNE_VERSION, digests) == (1, ["00b479480aafde7d", "e95595162857352b"])


def test_rendering_writes_a_wav_and_a_caption_per_song_and_tells_of_each(tmp_path, monkeypatch):
    notes = []

    class Listener(SilentProgress):
        def advance(self, n=1, *, note=""):
            notes.append(note)

    monkeypatch.setattr(chiptune, "N_TRACKS", 2)
    render_chiptune(tmp_path, 8000, Listener())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00.txt", "00.wav", "01.txt", "01.wav"]
    assert (tmp_path / "01.txt").read_text().strip() == caption_song(SONGS[1])
    audio, rate_hz = load_audio(tmp_path / "00.wav")
    assert (rate_hz, audio.shape[0]) == (8000, 1)
    assert notes == ["00.wav", "01.wav"]


@pytest.mark.parametrize("index", HEARD)
def test_levels_are_those_of_mastered_music(sounds, index):
    sound = sounds[index]
    assert 20.0 * np.log10(np.sqrt(np.mean(sound**2))) == pytest.approx(-18.0, abs=0.5)
    assert np.abs(sound).max() < 0.9
    assert abs(sound.mean()) < 1e-3
    second = sound[: len(sound) // RATE_HZ * RATE_HZ].reshape(-1, RATE_HZ)
    assert np.sqrt((second**2).mean(axis=1)).min() > 0.02  # no second is silent


@pytest.mark.parametrize("index", HEARD)
def test_the_tempo_that_is_stated_is_the_one_that_is_heard(sounds, index):
    song = SONGS[index]
    onsets = librosa.onset.onset_strength(y=sounds[index].astype(np.float32), sr=RATE_HZ, hop_length=256)
    heard = float(librosa.feature.tempo(onset_envelope=onsets, sr=RATE_HZ, hop_length=256)[0])
    # listeners and librosa may count half, double, or the other division of a beat
    ratios = (0.5, 2.0 / 3.0, 1.0, 1.5, 2.0)
    assert min(abs(heard / song.bpm / ratio - 1.0) for ratio in ratios) < 0.04


@pytest.mark.parametrize("index", HEARD)
def test_the_key_that_is_stated_is_the_one_that_is_heard(sounds, index):
    key = SONGS[index].key
    chroma = librosa.feature.chroma_cqt(
        y=sounds[index].astype(np.float32), sr=RATE_HZ, fmin=librosa.note_to_hz("C2"), n_octaves=4
    ).mean(axis=1)
    profile = np.zeros(12)
    profile[list(SCALES[key.mode])] = 1.0
    profile[0] += 1.0
    profile[SCALES[key.mode][4]] += 0.5
    matches = [np.corrcoef(np.roll(profile, tonic), chroma)[0, 1] for tonic in range(12)]
    assert int(np.argmax(matches)) == key.tonic


def make_single_note(midi, wave, steps=1.5):
    style = replace(SONGS[0].style, echo=0.0)
    silent = {"harmony": (), "bass": (), "hits": (), "n_bars": 1}
    return replace(SONGS[0], style=style, lead_wave=wave, lead=(Note(0, steps, (midi,)),), **silent)


@pytest.mark.parametrize("wave", ["square", "pulse 25", "pulse 12.5", "triangle"])
@pytest.mark.parametrize("midi", [69, 81, 93])
def test_high_notes_do_not_alias(wave, midi):
    song = make_single_note(midi, wave)
    n_note = round(1.4 * song.step_s * RATE_HZ)
    tone = render_song(song, RATE_HZ)[:n_note]
    spectrum = np.abs(np.fft.rfft(tone * np.blackman(n_note), 2**15)) ** 2
    freqs_hz = np.fft.rfftfreq(2**15, 1.0 / RATE_HZ)
    tone_hz = librosa.midi_to_hz(midi)
    from_harmonic_hz = np.abs(freqs_hz - tone_hz * np.maximum(1.0, np.round(freqs_hz / tone_hz)))
    alias_frac = spectrum[from_harmonic_hz > 120.0].sum() / spectrum.sum()
    assert 10.0 * np.log10(alias_frac) < -45.0
    assert spectrum[freqs_hz > 0.47 * RATE_HZ].sum() / spectrum.sum() < 1e-5


def test_pulse_and_triangle_have_the_harmonics_of_their_chip():
    levels = {}
    for wave in ("square", "pulse 25", "triangle"):
        song = make_single_note(57, wave)
        n_note = round(1.4 * song.step_s * RATE_HZ)
        tone = render_song(song, RATE_HZ)[:n_note] * np.blackman(n_note)
        phases = np.exp(-2j * np.pi * np.outer(np.arange(1, 6) * 220.0 / RATE_HZ, np.arange(n_note)))
        levels[wave] = np.abs(phases @ tone)
        levels[wave] /= levels[wave][0]
    np.testing.assert_allclose(levels["square"], [1, 0, 1 / 3, 0, 1 / 5], atol=0.02)
    quarter = np.abs(np.sin(np.pi * np.arange(1, 6) / 4)) / np.arange(1, 6)
    np.testing.assert_allclose(levels["pulse 25"], quarter / quarter[0], atol=0.02)
    np.testing.assert_allclose(levels["triangle"], [1, 0, 1 / 9, 0, 1 / 25], atol=0.02)


def test_noise_is_the_shift_register_of_the_chip():
    register = np.diff(chip_sound._shift_register())
    assert len(register) == 2**15 - 1
    assert register.sum() in (-1.0, 1.0)  # a maximal sequence is balanced but for one
    spectrum = np.fft.rfft(register)
    np.testing.assert_allclose(np.abs(spectrum[1:]), 2.0**7.5, rtol=1e-6)  # and white


def test_an_unknown_genre_is_an_error_that_names_the_known_one(tmp_path):
    with pytest.raises(UsageError, match="`polka` is not a genre that is rendered; expected `chiptune`"):
        render_genre("polka", RATE_HZ, Store(tmp_path), SilentProgress())
