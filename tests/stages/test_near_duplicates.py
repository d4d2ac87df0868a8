from __future__ import annotations

import itertools

import mutagen
import numpy as np
import pytest
from pydantic import ValidationError

from lora_bench.artifacts import AudioFormat
from lora_bench.audio import resample
from lora_bench.errors import DatasetError
from lora_bench.progress import SilentProgress
from lora_bench.spec.captions import CaptionSpec
from lora_bench.spec.schema import DatasetSpec, SplitSpec
from lora_bench.stages.dataset import near_duplicates, prepare_dataset
from lora_bench.stages.dataset.near_duplicates import (
    MIN_CORRELATION,
    RATE_HZ,
    compare,
    compute_fingerprint,
    find_near_duplicates,
    group_pairs,
    prepare,
)
from lora_bench.stages.dataset.splits import assign_sides
from lora_bench.store import Store


def compose(seed, duration_s=30, rate_hz=RATE_HZ, steps=0.0, tempo=1.0):
    """A melody over chords: notes of three harmonics, a fourth of a second each."""
    rng = np.random.default_rng(seed)
    n_note = round(0.25 * rate_hz / tempo)
    time_s = np.arange(n_note) / rate_hz
    notes = []
    for melody, chord in zip(
        rng.integers(0, 24, 4 * duration_s), rng.integers(0, 12, duration_s).repeat(4), strict=True
    ):
        hz = [220.0 * 2 ** ((pitch + steps) / 12) for pitch in (melody, chord, chord + 4, chord + 7)]
        notes.append(
            sum(np.sin(2 * np.pi * h * k * time_s) / k for h in hz for k in (1, 2, 3)) * np.exp(-3 * time_s)
        )
    return (0.05 * np.concatenate(notes)).astype(np.float32)


def correlate(first, second):
    return compare(prepare(compute_fingerprint(first)), prepare(compute_fingerprint(second)))


SONG = compose(0)


@pytest.mark.parametrize(
    "copy",
    [
        SONG * np.float32(0.3),
        SONG[3 * RATE_HZ + 777 :],
        compose(0, steps=1.0),
        compose(0, steps=-1.0),
        compose(0, tempo=1.03),
        compose(0, tempo=0.97),
        np.tile(SONG[5 * RATE_HZ : 15 * RATE_HZ], 4),
        SONG + np.random.default_rng(1).normal(0, 0.02, len(SONG)).astype(np.float32),
    ],
    ids=["quieter", "shifted", "higher", "lower", "faster", "slower", "loop", "noisy"],
)
def test_a_copy_is_found(copy):
    assert correlate(SONG, copy) > MIN_CORRELATION
    assert correlate(copy, SONG) > MIN_CORRELATION


def test_another_song_of_the_same_sound_is_no_copy():
    assert max(correlate(SONG, compose(seed)) for seed in range(1, 8)) < MIN_CORRELATION - 0.1


@pytest.mark.parametrize(
    "sound", [np.zeros(RATE_HZ * 20), np.zeros(0), SONG[:100]], ids=["silent", "empty", "short"]
)
def test_sounds_without_an_excerpt_are_nobodys_copy(sound):
    assert correlate(SONG, sound.astype(np.float32)) < MIN_CORRELATION


def test_many_recordings_are_compared_where_they_may_be_alike(monkeypatch):
    songs = [compose(seed, 20) for seed in range(12)]
    prints = [
        compute_fingerprint(song) for song in [*songs, songs[3][3 * RATE_HZ :], compose(7, 20, steps=1.0)]
    ]
    every = [(pair.first, pair.second) for pair in find_near_duplicates(prints)]
    assert every == [(3, 12), (7, 13)]
    monkeypatch.setattr(near_duplicates, "ALL_PAIRS", 0)
    monkeypatch.setattr(near_duplicates, "N_NEAREST", 2)
    compared = list(near_duplicates._list_pairs(prints))
    assert len(compared) < len(list(itertools.combinations(prints, 2)))
    assert [(pair.first, pair.second) for pair in find_near_duplicates(prints)] == every


def test_pairs_join_groups():
    assert group_pairs("abcde", [("d", "b"), ("e", "d")]) == {
        "a": "a",
        "b": "b",
        "c": "c",
        "d": "b",
        "e": "b",
    }


def test_groups_stay_on_one_side_and_single_tracks_are_where_they_were():
    hashes = [f"{n:02d}" for n in range(20)]
    spec = SplitSpec(eval_frac=0.3, selection_frac=0.1)
    alone = assign_sides(hashes, spec)
    assert assign_sides(hashes, spec, {name: name for name in hashes}) == alone
    groups = {name: str(int(name) // 2) for name in hashes}
    sides = assign_sides(hashes, spec, groups)
    assert len({(groups[name], side) for name, side in sides.items()}) == len(set(groups.values()))
    assert [list(sides.values()).count(side) for side in ("eval", "selection", "train")] == [6, 2, 12]


def test_groups_that_leave_a_side_empty_are_an_error_with_their_sizes():
    hashes = [f"{n:02d}" for n in range(10)]
    with pytest.raises(
        DatasetError, match=r"10 tracks are in 1 groups that stay together, the largest of 10, .* `eval`; exp"
    ):
        assign_sides(hashes, SplitSpec(), dict.fromkeys(hashes, "all"))


@pytest.fixture
def folder(tmp_path, save_sound):
    """Eight songs; c is a copy of a, from another second on and quieter."""
    for index, name in enumerate("abcdefgh"):
        song = compose(0, 14)[2 * RATE_HZ :] * np.float32(0.4) if name == "c" else compose(index, 14)
        save_sound(tmp_path / "songs" / f"{name}.wav", resample(song[None], RATE_HZ, 16_000))
    return tmp_path / "songs"


def prepare_songs(folder, **split):
    spec = DatasetSpec(
        path=folder, captions=CaptionSpec(text="x"), clip_s=2.0, split=SplitSpec(eval_frac=0.5, **split)
    )
    return prepare_dataset(spec, AudioFormat(16_000, 1), Store(folder.parent / "cache"), SilentProgress())


def side_of(manifest):
    return {track.source[0]: track.split for track in manifest.tracks}


def test_copies_are_reported_or_kept_together(folder):
    plain = {seed: prepare_songs(folder, seed=seed) for seed in range(4)}
    assert all(manifest.near_duplicates is None for manifest in plain.values())
    apart = next(seed for seed, manifest in plain.items() if side_of(manifest)["a"] != side_of(manifest)["c"])
    reported = prepare_songs(folder, seed=apart, near_duplicates="report")
    assert [(pair.first, pair.second) for pair in reported.near_duplicates] in (
        [("a.wav", "c.wav")],
        [("c.wav", "a.wav")],
    )
    assert (reported.key, side_of(reported)) == (plain[apart].key, side_of(plain[apart]))
    together = side_of(prepare_songs(folder, seed=apart, near_duplicates="together"))
    assert together["a"] == together["c"]
    assert set(together.values()) == {"train", "eval"}


def test_albums_folders_and_columns_stay_together(folder):
    for names, album in (("ab", "One"), ("cde", "Two")):
        (folder / album).mkdir()
        for name in names:
            sound = mutagen.File(folder / f"{name}.wav")
            sound.add_tags()
            sound.tags.add(mutagen.id3.TALB(text=[album]))
            sound.save()
    rows = "".join(f"{name}.wav,{name in 'fgh'}\n" for name in "abcdefgh")
    (folder / "captions.csv").write_text(f"file,live\n{rows}")
    for seed in range(3):
        sides = side_of(prepare_songs(folder, by="album", seed=seed))
        assert sides["a"] == sides["b"]
        assert sides["c"] == sides["d"] == sides["e"]
        sides = side_of(prepare_songs(folder, by="column", column="Live", seed=seed))
        assert len({sides[name] for name in "abcde"}) == len({sides[name] for name in "fgh"}) == 1
    for names, album in (("ab", "One"), ("cde", "Two")):
        for name in names:
            (folder / f"{name}.wav").rename(folder / album / f"{name}.wav")
    manifest = prepare_songs(folder, by="folder")
    sides = {track.source: track.split for track in manifest.tracks}
    assert len({side for source, side in sides.items() if source.startswith("Two/")}) == 1
    with pytest.raises(
        DatasetError, match=r"dataset\.split\.by: no track of .*songs has `artist`; expected tags"
    ):
        prepare_songs(folder, by="artist")


def test_a_column_and_its_name_belong_together():
    for fields in ({"by": "column"}, {"column": "live"}):
        with pytest.raises(ValidationError, match="`by: column` and `column` belong together"):
            SplitSpec(**fields)
    assert set(SplitSpec().model_dump()) == {"by", "eval_frac", "seed"}
