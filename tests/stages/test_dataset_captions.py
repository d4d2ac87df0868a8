from __future__ import annotations

import json

import pytest

from lora_bench.errors import DatasetError
from lora_bench.spec.schema import CaptionSpec
from lora_bench.stages.dataset.captions import find_captions, read_metadata

AUTO, SIDECAR, METADATA = CaptionSpec(), CaptionSpec(source="sidecar"), CaptionSpec(source="metadata")


def find(folder, sources, spec=AUTO):
    return find_captions(folder, sources, spec, read_metadata(folder, spec))


def write_metadata(folder, *records):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_fixed_text_is_everybodys_caption(tmp_path):
    (tmp_path / "a.txt").write_text("its own")
    write_metadata(tmp_path, {"file_name": "a.wav", "caption": "from metadata"})
    assert find(tmp_path, ["a.wav", "b.wav"], CaptionSpec(text="fixed")) == {
        "a.wav": "fixed",
        "b.wav": "fixed",
    }


def test_sidecars_are_text_or_json_beside_the_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.txt").write_text("\ufeffcalm piano,\n in C major \n", encoding="utf-8")
    for key in ("caption", "text", "description"):
        (tmp_path / "deep" / f"{key}.json").write_text(json.dumps({"bpm": 120, key: f"by {key}"}))
    sources = ["a.wav", "deep/caption.mp3", "deep/text.ogg", "deep/description.flac"]
    assert list(find(tmp_path, sources, SIDECAR).values()) == [
        "calm piano, in C major", "by caption", "by text", "by description",
    ]  # fmt: skip


def test_metadata_lines_name_files_by_relative_path(tmp_path):
    write_metadata(
        tmp_path,
        {"file_name": "a.wav", "caption": "first"},
        "",
        {"file_name": "./deep/b.wav", "text": "second"},
        {"file_name": "deep\\c.wav", "description": "third"},
    )
    assert find(tmp_path, ["a.wav", "deep/b.wav", "deep/c.wav"], METADATA) == {
        "a.wav": "first", "deep/b.wav": "second", "deep/c.wav": "third",
    }  # fmt: skip


def test_without_a_source_metadata_comes_before_sidecars(tmp_path):
    write_metadata(tmp_path, {"file_name": "a.wav", "caption": "from metadata"})
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("from sidecar")
    assert find(tmp_path, ["a.wav", "b.wav"]) == {"a.wav": "from metadata", "b.wav": "from sidecar"}


def test_a_named_source_is_the_only_one(tmp_path):
    write_metadata(tmp_path, {"file_name": "a.wav", "caption": "from metadata"})
    (tmp_path / "a.txt").write_text("from sidecar")
    (tmp_path / "b.txt").write_text("from sidecar")
    assert find(tmp_path, ["a.wav"], SIDECAR) == {"a.wav": "from sidecar"}
    with pytest.raises(DatasetError, match=r"b\.wav: no line of metadata\.jsonl has this file_name"):
        find(tmp_path, ["a.wav", "b.wav"], METADATA)


def test_all_missing_captions_are_told_at_once_up_to_ten(tmp_path):
    (tmp_path / "00.txt").write_text("has one")
    (tmp_path / "01.txt").write_text("  \n")
    (tmp_path / "02.json").write_text('{"bpm": 120}')
    (tmp_path / "03.json").write_text("{oops")
    (tmp_path / "04.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DatasetError) as caught:
        find(tmp_path, [f"{index:02d}.wav" for index in range(14)])
    head, *lines = str(caught.value).splitlines()
    assert head.startswith(f"{tmp_path}: 13 of 14 files have no caption; give each a `song.txt`")
    assert "dataset.captions.text" in head
    assert lines[0] == "  01.wav: 01.txt is empty"
    assert lines[1] == "  02.wav: 02.json: no text under any of the keys caption, text, description"
    assert lines[2].startswith("  03.wav: 03.json: Expecting property name")
    assert "not UTF-8 text" in lines[3]
    assert lines[4] == "  05.wav: no 05.txt or 05.json"
    assert lines[-1] == "  and 3 more"
    assert len(lines) == 11


def test_missing_metadata_is_an_error_where_it_is_asked_for(tmp_path):
    with pytest.raises(
        DatasetError, match=r"metadata\.jsonl: does not exist, but dataset\.captions\.source is"
    ):
        read_metadata(tmp_path, METADATA)
    assert read_metadata(tmp_path, AUTO) == {}


def test_all_wrong_lines_of_metadata_are_told_with_their_numbers(tmp_path):
    write_metadata(
        tmp_path,
        {"file_name": "a.wav", "caption": "first"},
        "{oops",
        {"caption": "whose?"},
        {"file_name": "b.wav", "caption": 7},
        ["a.wav", "first"],
        {"file_name": "a.wav", "caption": "second"},
    )
    with pytest.raises(DatasetError) as caught:
        read_metadata(tmp_path, AUTO)
    lines = str(caught.value).splitlines()
    place = tmp_path / "metadata.jsonl"
    assert lines[0].startswith(f"{place}:2: Expecting property name")
    assert lines[1] == (
        f"{place}:3: `file_name` is missing; expected the path of an audio file below this folder"
    )
    assert lines[2] == f"{place}:4: no text under any of the keys caption, text, description"
    assert lines[3] == f"{place}:5: expected a JSON object, found list"
    assert lines[4] == f"{place}:6: `a.wav` has another caption above; keep one"
    assert len(lines) == 5
