"""The agreement of clips with their melodies: own melodies, other melodies, other keys, noise and silence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from support.melodies import RATE_HZ, play_notes

from lora_bench.artifacts import AudioClip, Embeddings
from lora_bench.encoders import get_encoder
from lora_bench.encoders.melody_agreement import MelodyAgreement
from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics import parse_metric
from lora_bench.metrics.names import is_higher_better
from lora_bench.stages.score import score_embeddings

TUNES = ([0, 4, 7, 4, 5, 9, 2, 11], [7, 7, 9, 4, 0, 2, 11, 5])
CHANCE = 1 / 12


@pytest.fixture
def tunes(tmp_path: Path) -> Path:
    for name, pitches in zip("ab", TUNES, strict=True):
        soundfile.write(tmp_path / f"{name}.wav", play_notes(pitches), RATE_HZ)
    return tmp_path


def measure(path: Path, clips: Sequence[NDArray[np.float32]], rate_hz: int = RATE_HZ) -> list[float]:
    named = [AudioClip(f"{n:03d}", f"{n:03d}", clip[None], rate_hz) for n, clip in enumerate(clips)]
    return MelodyAgreement(path).embed(named).values[:, 0].tolist()


def test_a_clip_that_is_its_own_melody_agrees_fully_and_others_less(tunes: Path) -> None:
    own = [play_notes(pitches) for pitches in TUNES]
    assert measure(tunes, own) == [1.0, 1.0]
    half = [play_notes([*pitches[:4], *(pitch + 1 for pitch in pitches[4:])]) for pitches in TUNES]
    assert measure(tunes, half) == pytest.approx([0.5, 0.5], abs=0.05)
    noise = [np.random.default_rng(n).normal(0.0, 0.1, len(own[0])).astype(np.float32) for n in range(40)]
    assert np.mean(measure(tunes, noise)) == pytest.approx(CHANCE, abs=0.03)


def test_another_key_shares_no_pitch_class_with_the_melody(tunes: Path) -> None:
    for steps in (1, 6):
        moved = [play_notes([pitch + steps for pitch in pitches]) for pitches in TUNES]
        assert max(measure(tunes, moved)) < CHANCE
    octave = [play_notes([pitch + 12 for pitch in pitches]) for pitches in TUNES]
    assert min(measure(tunes, octave)) > 0.95


def test_clips_take_turns_with_the_melodies(tunes: Path) -> None:
    first, second = (play_notes(pitches) for pitches in TUNES)
    assert measure(tunes, [first, second, first, second]) == [1.0] * 4
    swapped = measure(tunes, [second, first])
    equal = sum(one == other for one, other in zip(*TUNES, strict=True)) / len(TUNES[0])
    assert swapped == pytest.approx([equal, equal], abs=0.1)


def test_a_short_melody_is_repeated_along_a_clip_in_whole_frames(tunes: Path) -> None:
    tune = play_notes(TUNES[0])
    frames = 1 + len(tune) // 4096
    period = np.concatenate([tune, np.zeros(frames * 4096 - len(tune), np.float32)])
    assert measure(tunes, [np.tile(period, 3)])[0] > 0.95
    assert measure(tunes, [np.tile(tune, 3)])[0] < 0.9  # which is ahead of what the model reads


def test_a_melody_is_repeated_sample_by_sample_along_a_clip_in_windows(tunes: Path) -> None:
    assert measure(tunes, [np.tile(play_notes(TUNES[0]), 9)]) == [1.0]  # 36 s


def test_the_start_of_a_melody_counts_for_a_shorter_clip(tunes: Path) -> None:
    assert measure(tunes, [play_notes(TUNES[0])[: 2 * RATE_HZ]]) == [1.0]


@pytest.mark.parametrize("duration_s", [0.1, 0.4, 0.52])
def test_clips_shorter_than_a_window_of_the_extractor_are_scored(tunes: Path, duration_s: float) -> None:
    own, other = (play_notes(pitches)[: round(duration_s * RATE_HZ)] for pitches in TUNES)
    assert measure(tunes, [own, own]) == [1.0, 0.0]
    soundfile.write(tunes / "b.wav", other[: RATE_HZ // 20], RATE_HZ)  # a melody that is as short
    assert measure(tunes, [own, other]) == [1.0, 1.0]


def test_silence_never_agrees(tunes: Path) -> None:
    silence = np.zeros(RATE_HZ * 4, np.float32)
    assert measure(tunes, [silence]) == [0.0]  # though silent frames have the first pitch class, as C has
    soundfile.write(tunes / "a.wav", silence, RATE_HZ)
    with pytest.raises(
        UnscoredError, match=r"melody-agreement: the melody a\.wav is silent where clips follow"
    ):
        measure(tunes, [play_notes(TUNES[0])])


def test_a_silent_melody_with_a_name_that_is_not_utf_8_is_told(tunes: Path) -> None:
    file = tunes / os.fsdecode(b"\xe9t\xe9.wav")
    soundfile.write(tunes / "b.wav", np.zeros(RATE_HZ * 4, np.float32), RATE_HZ)
    (tunes / "b.wav").rename(file)
    with pytest.raises(UnscoredError) as caught:
        measure(tunes, [play_notes(TUNES[0])] * 2)
    assert r"the melody \xe9t\xe9.wav is silent" in str(caught.value)
    str(caught.value).encode()


def test_silent_parts_of_a_melody_do_not_count(tunes: Path) -> None:
    tune, rest = play_notes(TUNES[0]), np.zeros(RATE_HZ * 4, np.float32)
    soundfile.write(tunes / "a.wav", np.concatenate([tune, rest]), RATE_HZ)
    noise = np.random.default_rng(0).normal(0.0, 0.1, len(rest)).astype(np.float32)
    assert measure(tunes, [np.concatenate([tune, noise])])[0] > 0.85


def test_the_score_is_a_mean_with_an_interval(tunes: Path) -> None:
    metric = parse_metric("melody-agreement")
    assert not metric.has_references
    assert is_higher_better(metric.name)
    encoder = MelodyAgreement(tunes)
    clips = [play_notes(TUNES[n % 2]) for n in range(5)] + [play_notes([6] * 8)]
    named = [AudioClip(f"{n:03d}", f"{n:03d}", clip[None], RATE_HZ) for n, clip in enumerate(clips)]
    embedded: Embeddings = encoder.embed(named)
    score = score_embeddings(metric, embedded, encoder.embed_melodies())
    assert score.value == pytest.approx(5 / 6, abs=0.05)
    assert score.ci_low is not None
    assert score.ci_high is not None
    assert score.ci_low < score.value < score.ci_high
    assert score.n_generated == 6
    assert score.provenance["melodies_hash"] == encoder.provenance["melodies_hash"]


def test_the_melodies_content_and_order_are_part_of_the_provenance(tunes: Path) -> None:
    before = MelodyAgreement(tunes)
    (tunes / "a.wav").rename(tunes / "z.wav")
    after = MelodyAgreement(tunes)
    assert after.provenance["melodies_hash"] != before.provenance["melodies_hash"]
    assert after.embed_melodies().clip_names == before.embed_melodies().clip_names[::-1]


def test_faults_are_named(tunes: Path) -> None:
    clip = AudioClip("a clip", "a clip", play_notes([0])[None], RATE_HZ)
    with pytest.raises(ScoreError, match="clip a clip: expected its index as its name"):
        MelodyAgreement(tunes).embed([clip])
    with pytest.raises(
        UnscoredError, match=r"only the trials of a run follow melodies, by generation\.melodies"
    ):
        get_encoder("melody-agreement")
    for name in ("fad/melody-agreement", "mean/melody-agreement", "melody-agreement@codec"):
        with pytest.raises(ValueError, match=f"unknown metric `{name}`.* melody-agreement and tag-adherence"):
            parse_metric(name)
