"""The one walk through a folder: links, names, and what reader and fingerprint see."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lora_bench.audio import list_folder
from lora_bench.errors import AudioFileError, DatasetError
from lora_bench.evaluation.audio_folder import open_folder
from lora_bench.runner.freshness import dataset_fingerprint
from lora_bench.slugs import spell_path
from lora_bench.spec.schema import CaptionSpec, DatasetSpec

NOT_UTF8 = os.fsdecode(b"canci\xf3n.wav")


def list_names(folder: Path) -> list[str]:
    listing = list_folder(folder)
    return [listing.name(path) for path in listing.files]


def fingerprint(folder: Path) -> str:
    return dataset_fingerprint(DatasetSpec(path=folder, captions=CaptionSpec(text="a tune")))


def test_links_that_lead_nowhere_are_named_and_hidden_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "gone.wav").symlink_to("../elsewhere/gone.wav")
    (tmp_path / "songs").symlink_to("/nowhere/songs")
    (tmp_path / "self.wav").symlink_to("self.wav")
    (tmp_path / ".#a.txt").symlink_to("me@host.4711:1")
    assert list_names(tmp_path) == ["a.wav"]
    dropped = dict(list_folder(tmp_path).dropped)
    assert dropped.pop("self.wav").startswith("is a link that leads nowhere (Too many levels")
    assert dropped == {"gone.wav": "is a link that leads nowhere", "songs": "is a link that leads nowhere"}


def test_a_folder_goes_by_its_own_name_where_a_link_leads_to_it_too(tmp_path: Path) -> None:
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "a.wav").touch()
    (tmp_path / "a_link").symlink_to(tmp_path / "z")
    assert list_names(tmp_path) == ["z/a.wav"]


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    (music / "a.wav").touch()
    (tmp_path / "other.wav").touch()
    (music / "up").symlink_to(tmp_path)
    assert list_names(music) == ["a.wav"]
    assert list_folder(music).dropped == {"up": "is a link to a folder above this one, so it is not followed"}


def test_a_folder_without_permission_is_named_and_the_rest_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "lost+found").mkdir()
    original = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list_names(tmp_path) == ["a.wav"]
    reason = "is a folder that cannot be read (Permission denied)"
    assert list_folder(tmp_path).dropped == {"lost+found": reason}
    with pytest.raises(AudioFileError, match=r"lost\+found: is a folder that cannot be read"):
        open_folder(tmp_path)  # a score of a part would not be the folder's


def test_rare_suffixes_and_audio_under_any_name_are_listed(tmp_path: Path) -> None:
    for name in ("a.wave", "b.AIFC", "c.webm", "d.mka", "e.mp4", "f.w64"):
        (tmp_path / name).touch()
    (tmp_path / "no_suffix").write_bytes(b"fLaC" + bytes(40))
    (tmp_path / "song.bin").write_bytes(b"RIFF\0\0\0\0WAVEfmt ")
    (tmp_path / "notes.txt").write_text("not audio")
    (tmp_path / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0 JFIF")
    os.mkfifo(tmp_path / "pipe")
    assert list_names(tmp_path) == [
        "a.wave", "b.AIFC", "c.webm", "d.mka", "e.mp4", "f.w64", "no_suffix", "song.bin",
    ]  # fmt: skip


def test_a_missing_folder_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"caf\\xe9: does not exist"):
        list_folder(tmp_path / os.fsdecode(b"caf\xe9"))


def test_names_that_are_not_utf8_are_spelled_so_that_they_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / NOT_UTF8).touch()
    assert list_names(tmp_path) == [r"canci\xf3n.wav"]
    assert spell_path(NOT_UTF8).encode() == rb"canci\xf3n.wav"
    assert str(AudioFileError(NOT_UTF8, "is empty")) == r"canci\xf3n.wav: is empty"


def test_the_fingerprint_sees_a_song_that_is_added_behind_a_link(tmp_path: Path) -> None:
    store, music = tmp_path / "store", tmp_path / "music"
    store.mkdir()
    music.mkdir()
    (music / "songs").symlink_to(store)
    first = fingerprint(music)
    (store / "a.wav").write_bytes(b"1")
    second = fingerprint(music)
    (store / "a.wav").write_bytes(b"12")
    assert len({first, second, fingerprint(music)}) == 3


def test_the_fingerprint_bears_broken_links_pipes_and_odd_names_and_ignores_hidden_files(
    tmp_path: Path,
) -> None:
    (tmp_path / "gone.wav").symlink_to("nowhere.wav")
    (tmp_path / NOT_UTF8).touch()
    os.mkfifo(tmp_path / "pipe")
    first = fingerprint(tmp_path)
    (tmp_path / ".DS_Store").touch()
    assert fingerprint(tmp_path) == first
    (tmp_path / "nowhere.wav").touch()
    assert fingerprint(tmp_path) != first
