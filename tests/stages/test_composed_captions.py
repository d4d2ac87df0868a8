from __future__ import annotations

import json
import sys

import mutagen
import numpy as np
import pytest

from lora_bench.artifacts import AudioFormat
from lora_bench.encoders import musicnn
from lora_bench.errors import DatasetError, UnscoredError
from lora_bench.progress import SilentProgress
from lora_bench.spec.captions import CaptionSpec
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.dataset import caption_command, measured, prepare_dataset
from lora_bench.stages.dataset.captions import read_metadata
from lora_bench.stages.dataset.measured import estimate_bpm, estimate_key, sort_tags
from lora_bench.stages.dataset.metadata import Metadata
from lora_bench.stages.dataset.track_captions import caption_tracks, check_written_fields
from lora_bench.store import Store

RATE_HZ = measured.RATE_HZ
NAMES = ("Ann/First_One/a.wav", "Ann/First_One/b.wav", "c.wav")


@pytest.fixture
def folder(tmp_path, make_tone, save_sound):
    for index, name in enumerate(NAMES):
        save_sound(tmp_path / "genre" / name, make_tone(2.0, tone_hz=300.0 + 50.0 * index))
    return tmp_path / "genre"


def caption(folder, spec, names=NAMES):
    store = Store(folder.parent / "cache")
    hashes = {name: f"hash of {name}" for name in names}
    return caption_tracks(folder, hashes, spec, read_metadata(folder, spec), (), store, SilentProgress())


def texts(folder, spec):
    return [found.text for found in caption(folder, spec).values()]


def test_a_field_comes_from_the_best_source_that_has_it_and_the_source_is_kept(folder):
    sound = mutagen.File(folder / "c.wav")
    sound.add_tags()
    sound.tags.add(mutagen.id3.TCON(text=["Folk"]))
    sound.tags.add(mutagen.id3.TPE1(text=["tagged"]))
    sound.save()
    (folder / "c.json").write_text(
        json.dumps({"artist": "sidecar", "moods": ["calm", "sad"], "description": ""})
    )
    (folder / "captions.csv").write_text("file,mood\nAnn/First_One/a.wav,odd\n")
    spec = CaptionSpec(
        template="{artist}; {album}; {genre}; {mood}; {folder}; {name}",
        folders=["artist", "album"],
        measure=[],
    )
    found = caption(folder, spec)
    assert found["Ann/First_One/a.wav"].text == "Ann; First One; odd; First One; a"
    assert found["Ann/First_One/a.wav"].origins == {
        "artist": "folder", "album": "folder", "mood": "captions.csv:2", "folder": "folder", "name": "file name",
    }  # fmt: skip
    assert found["c.wav"].text == "sidecar; Folk; calm, sad; c"
    assert found["c.wav"].origins["genre"] == "tag TCON"


def test_trigger_words_stand_in_front_or_where_the_template_has_them(folder):
    assert texts(folder, CaptionSpec(template="{name}", trigger="mgnr"))[2] == "mgnr, c"
    assert texts(folder, CaptionSpec(template="{name} by {trigger}", trigger="mgnr"))[2] == "c by mgnr"


def test_an_unknown_field_is_an_error_with_the_known_ones(folder):
    spec = CaptionSpec(template="{name}, {gemre}")
    for check in (
        lambda: caption(folder, spec),
        lambda: check_written_fields(folder, NAMES, spec, Metadata()),
    ):
        with pytest.raises(
            DatasetError, match=r"no track has the field `gemre`; did you mean `genre`\? Tracks have"
        ):
            check()


def test_a_field_that_only_some_tracks_have_may_be_missing_but_not_everything(folder):
    spec = CaptionSpec(template="{folder}", measure=[])
    with pytest.raises(DatasetError, match=r"1 of 3 tracks have an empty caption.*\(`folder`\).*\n  c\.wav"):
        caption(folder, spec)
    assert texts(folder, CaptionSpec(template="tune[ of {folder}]")) == ["tune of First One"] * 2 + ["tune"]


def test_text_where_a_number_is_asked_for_names_track_and_source(folder):
    (folder / "captions.csv").write_text("file,bpm\nc.wav,fast\n")
    spec = CaptionSpec(template="{name}, {bpm:.0f} bpm", measure=[])
    message = (
        r"c\.wav: `bpm` is `fast`, which `\{bpm:\.0f\}` cannot write as a number \(from captions\.csv:2\)"
    )
    with pytest.raises(DatasetError, match=message):
        caption(folder, spec)
    with pytest.raises(DatasetError, match=message):
        check_written_fields(folder, NAMES, spec, read_metadata(folder, spec))


def test_a_command_describes_each_track_once(folder, tmp_path):
    script = tmp_path / "describe.py"
    log = tmp_path / "calls"
    script.write_text(
        "import sys, json, pathlib\n"
        f"pathlib.Path({str(log)!r}).open('a').write('called\\n')\n"
        "print(json.dumps({'mood': 'calm', 'bpm': 90.5, 'caption': pathlib.Path(sys.argv[-1]).name}))\n"
    )
    spec = CaptionSpec(
        template="{caption}, {mood}, {bpm:.0f} bpm", command=f"{sys.executable} {script} --file {{path}}"
    )
    for _ in range(2):
        assert texts(folder, spec)[2] == "c.wav, calm, 90 bpm"
    assert log.read_text().count("called") == 3
    assert (
        texts(folder, CaptionSpec(command=f"{sys.executable} -c 'print(\"a  plain text\")'"))[0]
        == "a plain text"
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no model')", r"ended with exit code 1 \(no model\)"),
        ("pass", "printed nothing; expected a caption"),
        ("print('{oops')", "printed JSON that cannot be read"),
        ("import sys; sys.stdout.buffer.write(b'caf\\xe9')", "printed text that is not UTF-8"),
    ],
)
def test_a_command_that_fails_is_an_error_that_names_track_and_command(folder, code, message):
    with pytest.raises(DatasetError, match=rf"dataset\.captions\.command: .* for [abc]\.wav {message}"):
        caption(folder, CaptionSpec(command=f'{sys.executable} -c "{code}"'))


def test_a_command_that_is_not_there_or_never_ends_is_an_error(folder, monkeypatch):
    with pytest.raises(
        DatasetError, match=r"`no-such-program \{path\}` for [abc]\.wav cannot be started \(No such file"
    ):
        caption(folder, CaptionSpec(command="no-such-program {path}"))
    monkeypatch.setattr(caption_command, "RECORDING_TIMEOUT_S", 0.2)
    with pytest.raises(DatasetError, match=r"did not end within 0\.2 s"):
        caption(folder, CaptionSpec(command=f"{sys.executable} -c 'import time; time.sleep(20)'"))


def test_tempo_and_key_of_a_plain_song_are_measured():
    beat_s, chord = 0.5, (261.6, 329.6, 392.0)
    time_s = np.arange(20 * RATE_HZ) / RATE_HZ
    audio = sum(np.sin(2 * np.pi * hz * time_s) for hz in chord) * 0.1 * np.exp(-8 * (time_s % beat_s))
    assert estimate_bpm(audio.astype(np.float32)) == pytest.approx(120, rel=0.02)
    assert estimate_key(audio.astype(np.float32)) == "C major"
    assert estimate_bpm(np.zeros(RATE_HZ, np.float32)) is None
    assert estimate_key(np.zeros(RATE_HZ, np.float32)) is None


def test_only_missing_fields_are_measured_and_only_once(folder, monkeypatch):
    calls = []
    monkeypatch.setattr(measured, "estimate_bpm", lambda audio: calls.append("bpm") or 100.4)
    monkeypatch.setattr(measured, "estimate_key", lambda audio: calls.append("key"))
    (folder / "captions.csv").write_text("file,bpm\nc.wav,60\n")
    spec = CaptionSpec(template="{name}, {bpm:.0f} bpm")
    for _ in range(2):
        assert texts(folder, spec) == ["a, 100 bpm", "b, 100 bpm", "c, 60 bpm"]
    assert calls == ["bpm", "bpm"]
    assert texts(folder, CaptionSpec(template="{name}, {key}"))[0] == "a"  # measured, and there is none
    assert texts(folder, CaptionSpec(template="{name}, {bpm}", measure=[]))[0] == "a"


def test_tags_are_sorted_into_genre_mood_and_instruments():
    tags = {"rock": 0.4, "jazz": 0.3, "slow": 0.5, "sad": 0.2, "violin": 0.9, "piano": 0.05, "weird": 0.01}
    assert sort_tags(tags) == {
        "genre": "rock", "mood": "slow, sad", "instruments": "violin", "tags": "violin, slow, rock, jazz, sad",
    }  # fmt: skip
    assert sort_tags({"rock": 0.01}) == {}


def test_without_musicnn_the_error_says_what_to_do(folder, monkeypatch):
    def refuse(*_, **__):
        raise UnscoredError("musicnn: not installed")

    monkeypatch.setattr(musicnn, "MusicnnEncoder", refuse)
    with pytest.raises(DatasetError, match=r"needs musicnn .*leave `tags` out of dataset\.captions\.measure"):
        caption(folder, CaptionSpec(template="{instruments}"))


def test_the_manifest_keeps_captions_and_origins_and_the_folder_stays_as_it_is(folder):
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    spec = DatasetSpec(path=folder, captions=CaptionSpec(template="tune {name}"), clip_s=1.0, min_track_s=1.0)
    manifest = prepare_dataset(spec, AudioFormat(16_000, 1), Store(folder.parent / "cache"), SilentProgress())
    assert sorted(track.caption for track in manifest.tracks) == ["tune a", "tune b", "tune c"]
    assert {track.caption_origins["name"] for track in manifest.tracks} == {"file name"}
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
