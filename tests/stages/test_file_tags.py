from __future__ import annotations

import mutagen
import pytest
from mutagen import id3

from lora_bench.errors import DatasetError
from lora_bench.stages.dataset.file_tags import read_tags, spell_key

WANTED = {
    "title": "A Tune",
    "genre": "Folk, Rock",
    "bpm": "93",
    "key": "A minor",
    "mood": "calm",
    "year": "2003",
}


def fill_id3(tags):
    tags.add(id3.TIT2(text=["A Tune"]))
    tags.add(id3.TCON(text=["Folk", "(17)"]))
    tags.add(id3.TBPM(text=["93"]))
    tags.add(id3.TKEY(text=["Am"]))
    tags.add(id3.TDRC(text=["2003-05-01"]))
    tags.add(id3.TXXX(desc="Mood", text=["calm"]))
    tags.add(id3.COMM(lang="eng", desc="iTunNORM", text=["00000"]))


def fill_vorbis(tags):
    tags.update(
        {
            "title": "A Tune",
            "genre": ["Folk", "Rock"],
            "bpm": "93",
            "initialkey": "8A",
            "mood": "calm",
            "date": "2003",
        }
    )
    tags["metadata_block_picture"] = "AAAA" * 1000


def fill_mp4(tags):
    tags.update(
        {
            "\xa9nam": ["A Tune"],
            "\xa9gen": ["Folk", "Rock"],
            "tmpo": [93],
            "\xa9day": ["2003-05-01T00:00:00Z"],
        }
    )
    tags.update({"----:com.apple.iTunes:initialkey": [b"A min"], "----:com.apple.iTunes:MOOD": [b"calm"]})


@pytest.mark.parametrize(
    ("name", "fill"),
    [
        ("a.mp3", fill_id3), ("a.wav", fill_id3), ("a.aif", fill_id3), ("a.ogg", fill_vorbis), ("a.opus", fill_vorbis),
        ("a.flac", fill_vorbis), ("a.m4a", fill_mp4),
    ],
)  # fmt: skip
def test_tags_of_every_format_become_the_same_fields(tmp_path, make_tone, save_sound, name, fill):
    path = save_sound(tmp_path / name, make_tone(1.0, 48_000), 48_000)
    sound = mutagen.File(path)
    if sound.tags is None:
        sound.add_tags()
    fill(sound.tags)
    sound.save()
    found = read_tags(path)
    values = {field: str(value.value).removesuffix(".0") for field, value in found.items() if field in WANTED}
    assert values == WANTED
    assert all(value.origin.startswith("tag ") for value in found.values())
    assert not {"comment", "metadata_block_picture"} & set(found)


def test_the_content_decides_which_tags_a_file_has(tmp_path, make_tone, save_sound):
    path = save_sound(tmp_path / "a.mp3", make_tone(), 16_000)
    tags = id3.ID3()
    tags.add(id3.TIT2(text=["A Tune"]))
    tags.save(path)
    assert read_tags(path.rename(tmp_path / "a.wav"))["title"].value == "A Tune"


def test_info_chunks_of_wav_files_are_read(tmp_path, make_tone, save_sound):
    path = save_sound(tmp_path / "a.wav", make_tone())
    body = b"INFOIGNR\x05\0\0\0Folk\0\0INAM\x07\0\0\0A Tune\0\0"
    data = path.read_bytes() + b"LIST" + len(body).to_bytes(4, "little") + body
    path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    found = read_tags(path)
    assert {name: value.value for name, value in found.items()} == {"genre": "Folk", "title": "A Tune"}


def test_tags_that_say_nothing_are_no_fields(tmp_path, make_tone, save_sound):
    path = save_sound(tmp_path / "a.flac", make_tone())
    sound = mutagen.File(path)
    sound.tags.update(
        {
            "genre": "Other",
            "bpm": "0",
            "initialkey": "o",
            "mood": " ",
            "replaygain_track_gain": "-6 dB",
        }
    )
    sound.save()
    assert set(read_tags(path)) == set()


def test_a_file_without_tags_has_no_fields(tmp_path, make_tone, save_sound):
    for name in ("a.wav", "a.mp3", "a.flac"):
        assert read_tags(save_sound(tmp_path / name, make_tone())) == {}


def test_damaged_tags_are_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(b"fLaC\x04\0\0\x10" + b"\xff" * 16)
    with pytest.raises(DatasetError, match=r"a\.flac: its tags cannot be read .*tag editor"):
        read_tags(path)


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("Am", "A minor"), ("C#m", "C# minor"), ("Eb", "Eb major"), ("F# min", "F# minor"), ("B♭maj", "Bb major"),
        ("8A", "A minor"), ("8B", "C major"), ("05a", "C minor"), ("D Dorian", "D Dorian"), ("o", None),
    ],
)  # fmt: skip
def test_keys_are_written_in_words(written, key):
    assert spell_key(written) == key
