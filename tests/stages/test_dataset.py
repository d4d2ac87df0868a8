from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lora_bench.artifacts import AudioFormat
from lora_bench.audio import RESAMPLER
from lora_bench.errors import DatasetError, StoreError
from lora_bench.genres import chiptune
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import CaptionSpec, DatasetSpec, SplitSpec
from lora_bench.stages.dataset import (
    manifest_from_json,
    n_reference_clips,
    prepare_dataset,
    recordings,
    reference_clips,
)
from lora_bench.stages.dataset import prepare as stage
from lora_bench.store import Store, read_json, write_json

MONO_16K = AudioFormat(16_000, 1)


class RecordedProgress(SilentProgress):
    def __init__(self):
        self.lines, self.notes, self.totals = [], [], []

    def start(self, stage, total=None):
        self.totals.append((stage, total))

    def advance(self, n=1, *, note=""):
        self.notes.append(note)

    def log(self, message):
        self.lines.append(message)


@pytest.fixture(scope="module")
def recorded_once(tmp_path_factory, make_tone, save_sound):
    """Six different tracks of several formats, rates and lengths."""
    place = tmp_path_factory.mktemp("recorded")
    for index, (name, rate_hz, channels, duration_s) in enumerate(
        [
            ("a.wav", 44_100, 2, 4.0),
            ("b.flac", 22_050, 1, 5.5),
            ("deep/c.ogg", 48_000, 2, 2.0),
            ("deep/er/d.mp3", 44_100, 1, 3.0),
            ("e.m4a", 32_000, 2, 2.5),
            ("f.wav", 16_000, 1, 2.0),
        ]
    ):
        tone = make_tone(duration_s, rate_hz, channels=channels, tone_hz=300.0 + 100.0 * index)
        save_sound(place / name, tone, rate_hz)
    return place


@pytest.fixture
def folder(tmp_path, recorded_once):
    return shutil.copytree(recorded_once, tmp_path / "genre")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs" / ".cache")


def make_spec(folder, **fields):
    fields = {"captions": CaptionSpec(text="a genre"), "clip_s": 2.0, **fields}
    return DatasetSpec(path=folder, **fields)


def prepare(folder, store, audio_format=MONO_16K, progress=None, **fields):
    return prepare_dataset(make_spec(folder, **fields), audio_format, store, progress or SilentProgress())


def list_tree(folder):
    return sorted(
        (str(p), p.stat().st_mtime_ns, p.stat().st_size, p.stat().st_mode) for p in folder.rglob("*")
    )


@pytest.mark.parametrize("audio_format", [MONO_16K, AudioFormat(32_000, 2)])
def test_every_track_is_prepared_at_the_models_rate_and_channels(folder, store, audio_format):
    manifest = prepare(folder, store, audio_format)
    assert sorted(track.source for track in manifest.tracks) == [
        "a.wav", "b.flac", "deep/c.ogg", "deep/er/d.mp3", "e.m4a", "f.wav",
    ]  # fmt: skip
    assert (manifest.format, manifest.resampler, manifest.name) == (audio_format, RESAMPLER, "genre")
    for track in manifest.tracks:
        samples = np.load(track.audio)
        assert samples.dtype == np.float32
        assert samples.shape == (audio_format.channels, round(track.duration_s * audio_format.sample_rate_hz))
        assert track.audio.is_relative_to(manifest.folder)
        assert track.id == hashlib.sha256((folder / track.source).read_bytes()).hexdigest()[:16]
        tone_hz = 300.0 + 100.0 * "abcdef".index(Path(track.source).stem)
        spectrum = np.abs(np.fft.rfft(samples[0]))
        assert spectrum.argmax() / track.duration_s == pytest.approx(tone_hz, abs=2.0)


def test_the_users_folder_stays_as_it_was(folder, store):
    for place in [folder, *folder.rglob("*")]:
        place.chmod(0o555 if place.is_dir() else 0o444)
    before = list_tree(folder)
    prepare(folder, store)
    assert list_tree(folder) == before
    for place in [folder, *folder.rglob("*")]:
        place.chmod(0o755)


def test_unchanged_files_are_not_decoded_again_and_a_new_one_alone_is(
    folder, store, monkeypatch, make_tone, save_sound
):
    decoded = []

    def load_and_tell(path):
        decoded.append(path.name)
        return original(path)

    original = recordings.load_audio
    monkeypatch.setattr(recordings, "load_audio", load_and_tell)
    first = prepare(folder, store)
    assert len(decoded) == 6
    assert prepare(folder, store) == first
    assert len(decoded) == 6
    save_sound(folder / "g.wav", make_tone(2.0, tone_hz=2000.0))
    assert len(prepare(folder, store).tracks) == 7
    assert decoded[6:] == ["g.wav"]


def test_another_rate_is_prepared_beside_the_first(folder, store):
    first, second = prepare(folder, store), prepare(folder, store, AudioFormat(8000, 1))
    assert first.key != second.key
    assert {track.audio for track in first.tracks}.isdisjoint(track.audio for track in second.tracks)


def test_names_and_places_of_files_do_not_matter(folder, store, tmp_path):
    first = prepare(folder, store)
    moved = tmp_path / "other"
    moved.mkdir()
    for index, path in enumerate(sorted((p for p in folder.rglob("*") if p.is_file()), reverse=True)):
        path.rename(moved / f"{index}{path.suffix}")
    second = prepare(moved, store)
    assert second.key == first.key
    assert second.slices == first.slices
    assert [(track.id, track.split) for track in second.tracks] == [
        (track.id, track.split) for track in first.tracks
    ]


@pytest.mark.parametrize(
    "change",
    [{"captions": CaptionSpec(text="another")}, {"clip_s": 1.5}, {"split": SplitSpec(eval_frac=0.6)}],
)
def test_the_key_changes_with_what_training_sees(folder, store, change):
    assert prepare(folder, store, **change).key != prepare(folder, store).key


def test_unusable_files_are_listed_with_their_reasons(folder, store, make_tone, save_sound):
    (folder / "broken.wav").write_bytes(b"not a sound" * 100)
    (folder / "empty.mp3").touch()
    save_sound(folder / "short.wav", make_tone(1.2, tone_hz=50.0))
    save_sound(folder / "silent.wav", make_tone(3.0) * 0.0)
    save_sound(folder / "faint.flac", make_tone(3.0) * 0.001)
    (folder / "deep" / "twin.wav").write_bytes((folder / "a.wav").read_bytes())
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    soundfile.write(folder / "nan.wav", np.full((48_000, 1), np.nan), 16_000, subtype="FLOAT")
    soundfile.write(folder / "loud.wav", np.full((48_000, 1), 30_000.0), 16_000, subtype="FLOAT")
    progress = RecordedProgress()
    manifest = prepare(folder, store, progress=progress)
    assert len(manifest.tracks) == 6
    assert {item.source: item.reason for item in manifest.excluded} == {
        "broken.wav": "cannot be decoded (it is text that begins with `not a soundnot a soundnot a soundnot a s`)",
        "empty.mp3": "is empty (0 bytes)",
        "short.wav": "is too short (1.20 s; dataset.min_track_s is 2 s)",
        "silent.wav": "is silent (every sample is zero; expected above -60 dBFS)",
        "faint.flac": "is silent (peak -68 dBFS; expected above -60 dBFS)",
        "deep/twin.wav": "has the same content as a.wav",
        "gone.wav": "is a link that leads nowhere",
        "nan.wav": "holds NaN or infinite samples; export it again",
        "loud.wav": "has samples of 30000 times full scale; is it a float file in integer units?",
    }
    assert "left out: short.wav is too short (1.20 s; dataset.min_track_s is 2 s)" in progress.lines
    assert progress.totals == [("dataset", 15)]
    assert sorted(progress.notes) == sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
    )


def test_a_stereo_file_whose_channels_cancel_is_silent_in_mono(folder, store, make_tone, save_sound):
    tone = make_tone(3.0)[0]
    save_sound(folder / "opposite.wav", np.stack([tone, -tone]))
    assert [item.source for item in prepare(folder, store).excluded] == ["opposite.wav"]


def test_a_missing_folder_says_what_to_put_where(tmp_path, store):
    with pytest.raises(DatasetError) as caught:
        prepare(tmp_path / "maplestory", store)
    assert str(caught.value) == (
        f"dataset.path: {tmp_path}/maplestory does not exist; expected a folder of at least 3 recordings of "
        "the genre (wav, flac, ogg, opus, mp3 or m4a, at any depth); put them there or change dataset.path"
    )


def test_a_file_in_place_of_the_folder_is_an_error(folder, store):
    with pytest.raises(DatasetError, match=r"a\.wav is a file; expected a folder of at least 3 recordings"):
        prepare(folder / "a.wav", store)


def test_an_empty_folder_is_an_error_with_counts(tmp_path, store):
    (tmp_path / "genre").mkdir()
    (tmp_path / "genre" / "notes.txt").write_text("no music yet")
    with pytest.raises(DatasetError, match="0 usable tracks of 0 audio files"):
        prepare(tmp_path / "genre", store)


def test_two_usable_tracks_are_too_few_and_the_others_are_named(tmp_path, store, make_tone, save_sound):
    place = tmp_path / "genre"
    for name, tone_hz in [("a.wav", 300.0), ("b.wav", 400.0)]:
        save_sound(place / name, make_tone(3.0, tone_hz=tone_hz))
    (place / "c.wav").touch()
    with pytest.raises(DatasetError) as caught:
        prepare(place, store)
    assert str(caught.value) == (
        f"{place}: 2 usable tracks of 3 audio files (1 left out); expected at least 3, because whole tracks "
        "are split into at least 1 to train on and 2 held out, so add recordings\n  c.wav is empty (0 bytes)"
    )


def test_a_share_that_leaves_nothing_to_train_on_is_an_error(folder, store):
    with pytest.raises(DatasetError, match=r"0.95 of 6 usable tracks holds out 6 and leaves 0 to train on"):
        prepare(folder, store, split=SplitSpec(eval_frac=0.95))


def test_results_inside_the_dataset_folder_are_refused(folder):
    with pytest.raises(DatasetError, match="contains the results"):
        prepare(folder, Store(folder / "runs" / ".cache"))


def test_a_full_disk_is_a_store_error_and_leaves_nothing_half(folder, store, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array_header_1_0", fail)
        with pytest.raises(StoreError, match="the disk is full"):
            prepare(folder, store)
    assert [path for path in (store.root / "audio").iterdir() if path.suffix != ".lock"] == []
    assert len(prepare(folder, store).tracks) == 6


def test_an_interrupted_preparation_stops_soon_and_keeps_what_is_finished(folder, store, monkeypatch):
    class Impatient(SilentProgress):
        def advance(self, n=1, *, note=""):
            raise KeyboardInterrupt

    decoded = []
    original = recordings.load_audio

    def load_slowly(path):
        if decoded:
            time.sleep(0.3)  # so that the interrupt comes while files are waiting
        decoded.append(path.name)
        return original(path)

    monkeypatch.setattr(recordings, "load_audio", load_slowly)
    monkeypatch.setattr(stage, "MAX_WORKERS", 1)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, store, progress=Impatient())
    n_finished = sum(path.is_dir() for path in (store.root / "audio").iterdir())
    assert 0 < n_finished == len(decoded) < 6
    assert len(prepare(folder, store).tracks) == 6
    assert sorted(decoded) == ["a.wav", "b.flac", "c.ogg", "d.mp3", "e.m4a", "f.wav"]


def test_a_manifest_survives_json(folder, store, tmp_path):
    (folder / "empty.wav").touch()
    manifest = prepare(folder, store)
    write_json(tmp_path / "dataset.json", manifest)
    assert manifest_from_json(read_json(tmp_path / "dataset.json")) == manifest


def test_a_damaged_manifest_is_a_store_error_that_names_the_field(folder, store, tmp_path):
    write_json(tmp_path / "dataset.json", prepare(folder, store))
    document = json.loads((tmp_path / "dataset.json").read_text())
    del document["tracks"][1]["caption"]
    with pytest.raises(StoreError, match=r"`tracks\.1\.caption`: Field required"):
        manifest_from_json(document)


def test_reference_clips_are_whole_excerpts_side_by_side(folder, store):
    manifest = prepare(folder, store, split=SplitSpec(eval_frac=0.8))
    held_out = {track.id: track for track in manifest.of_split("eval")}
    clips = list(reference_clips(manifest, "eval", 1.5))
    assert len(clips) == n_reference_clips(manifest, "eval", 1.5) > 4
    assert {clip.audio.shape for clip in clips} == {(1, 24_000)}
    assert {clip.group for clip in clips} == set(held_out)
    for track_id, track in held_out.items():
        own = [clip for clip in clips if clip.group == track_id]
        assert [clip.name for clip in own] == [f"{track_id}-{index}" for index in range(len(own))]
        assert len(own) == int(track.duration_s // 1.5)
        samples = np.load(track.audio)
        joined = np.concatenate([clip.audio for clip in own], axis=1)
        np.testing.assert_array_equal(joined, samples[:, : joined.shape[1]])


def test_a_track_of_exactly_the_clip_length_gives_one_reference_clip_and_a_shorter_none(folder, store):
    manifest = prepare(folder, store, split=SplitSpec(eval_frac=0.8))
    sources = {track.id: track.source for track in manifest.tracks}
    clips = [clip for side in ("train", "eval") for clip in reference_clips(manifest, side, 4.0)]
    assert sorted(sources[clip.group] for clip in clips) == ["a.wav", "b.flac"]


def test_prepared_audio_that_is_gone_is_an_error_that_names_the_track(folder, store):
    manifest = prepare(folder, store)
    manifest.of_split("eval")[0].audio.unlink()
    with pytest.raises(DatasetError, match=r"the prepared audio of .* cannot be read"):
        list(reference_clips(manifest, "eval", 1.0))


def test_the_builtin_genre_is_rendered_once_and_prepared_like_a_folder(store, monkeypatch):
    monkeypatch.setattr(chiptune, "N_TRACKS", 4)
    spec = DatasetSpec(builtin="chiptune")
    manifest = prepare_dataset(spec, AudioFormat(8000, 1), store, SilentProgress())
    assert manifest.name == "chiptune"
    assert [len(manifest.of_split(side)) for side in ("train", "eval")] == [2, 2]
    assert all(track.caption.startswith("chiptune, ") for track in manifest.tracks)
    assert not manifest.excluded

    def fail(*args):
        raise AssertionError("rendered again")

    monkeypatch.setattr("lora_bench.genres.render_chiptune", fail)
    assert prepare_dataset(spec, AudioFormat(8000, 1), store, SilentProgress()) == manifest


def test_names_that_are_not_utf8_are_used_and_recorded_printable(
    folder, store, tmp_path, make_tone, save_sound
):
    odd = Path(os.fsdecode(bytes(folder) + b"/canci\xf3n.wav"))
    save_sound(folder / "g.wav", make_tone(2.0, tone_hz=2000.0)).rename(odd)
    Path(os.fsdecode(bytes(folder) + b"/gone\xf3.wav")).touch()
    for name in ("a", "b", "e", "f", "deep/c", "deep/er/d"):
        (folder / f"{name}.txt").write_text("a tune")
    odd.with_suffix(".txt").write_text("its own")
    manifest = prepare(folder, store, captions=CaptionSpec(source="sidecar"))
    assert {track.source: track.caption for track in manifest.tracks}[r"canci\xf3n.wav"] == "its own"
    assert [(item.source, item.reason) for item in manifest.excluded] == [
        (r"gone\xf3.wav", "is empty (0 bytes)")
    ]
    write_json(tmp_path / "dataset.json", {"manifest": manifest, "place": odd})
    document = read_json(tmp_path / "dataset.json")
    assert manifest_from_json(document["manifest"]) == manifest
    assert document["place"] == odd.as_posix()


def test_lines_of_metadata_without_a_file_are_logged_with_their_place(folder, store):
    names = ["a.wav", "b.flac", "deep/c.ogg", "deep/er/d.mp3", "e.m4a", "f.wav", "gone.wav", "left_out.wav"]
    (folder / "left_out.wav").touch()
    lines = [json.dumps({"file_name": name, "caption": "a tune"}) for name in names]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    progress = RecordedProgress()
    prepare(folder, store, progress=progress, captions=CaptionSpec())
    (line,) = [line for line in progress.lines if "metadata" in line]
    assert line.startswith(f"{folder}/metadata.jsonl:7: there is no audio file gone.wav")


def test_results_that_are_reached_by_a_link_are_refused(folder, store):
    store.root.mkdir(parents=True)
    (folder / "linked").symlink_to(store.root.parent)
    with pytest.raises(DatasetError, match="contains the results"):
        prepare(folder, store)
