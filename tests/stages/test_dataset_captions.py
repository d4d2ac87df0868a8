from __future__ import annotations

import json
import os

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
    assert lines[0].startswith(f"{place}:2: not valid JSON (Expecting property name")
    assert lines[1] == (
        f"{place}:3: `file_name` is missing; expected the path of an audio file below this folder"
    )
    assert lines[2] == f"{place}:4: no text under any of the keys caption, text, description"
    assert lines[3] == f"{place}:5: expected a JSON object, found list"
    assert lines[4] == f"{place}:6: `a.wav` has another caption above; keep one"
    assert len(lines) == 5


def test_lines_of_metadata_end_at_line_feeds_and_carriage_returns_only(tmp_path):
    lines = [
        json.dumps({"file_name": f"{name}.wav", "caption": f"a slow{odd}tune"}, ensure_ascii=False)
        for name, odd in (("a", "\u2028"), ("b", "\u0085"), ("c", "\u2029"), ("d", " "))
    ]
    for end in ("\n", "\r\n", "\r"):
        (tmp_path / "metadata.jsonl").write_bytes(end.join(lines).encode())
        found = find(tmp_path, ["a.wav", "b.wav", "c.wav", "d.wav"], METADATA)
        assert set(found.values()) == {"a slow tune"}


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be-marked", "utf-32-be-marked"]
)
def test_captions_are_read_in_every_encoding_that_marks_itself(tmp_path, encoding):
    codec = encoding.removesuffix("-marked")
    mark = "\ufeff" if encoding.endswith("-marked") else ""
    text = f"{mark}caf\u00e9, \u266b"
    (tmp_path / "a.txt").write_bytes(text.encode(codec))
    line = mark + json.dumps({"file_name": "b.wav", "caption": "caf\u00e9, \u266b"}, ensure_ascii=False)
    (tmp_path / "metadata.jsonl").write_bytes(line.encode(codec))
    assert set(find(tmp_path, ["a.wav", "b.wav"]).values()) == {"caf\u00e9, \u266b"}


def test_marks_in_front_of_later_lines_are_dropped(tmp_path):
    part = "\ufeff" + json.dumps({"file_name": "a.wav", "caption": "a tune"}) + "\n"
    (tmp_path / "metadata.jsonl").write_text(part + part.replace("a.wav", "b.wav"), encoding="utf-8")
    assert len(find(tmp_path, ["a.wav", "b.wav"], METADATA)) == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"the caf\xe9 tune", r"a\.txt: not UTF-8 text \(byte 0xe9 at offset 7: .*iconv -f WINDOWS-1252"),
        (b"\xef\xbb\xbfcaf\xe9", r"a\.txt: not UTF-8 text \(byte 0xe9 at offset 6"),
        (
            "a tune".encode("utf-16-le"),
            r"a\.txt: holds zero bytes \(the first at offset 1\), as UTF-16 without",
        ),
        (b"\xff\xfea\0b", r"a\.txt: not UTF-16 text \(byte 0x62 at offset 4"),
    ],
)
def test_other_encodings_are_refused_with_the_byte_and_the_mend(tmp_path, data, words):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DatasetError, match=words):
        find(tmp_path, ["a.wav"], SIDECAR)
    (tmp_path / "metadata.jsonl").write_bytes(data)
    with pytest.raises(DatasetError, match=words.replace(r"a\.txt", r"metadata\.jsonl")):
        find(tmp_path, ["a.wav"], METADATA)


def test_file_names_of_metadata_are_taken_in_every_form_that_leads_into_the_folder(tmp_path):
    names = [f"deep/{letter}.wav" for letter in "abcdef"]
    absolute = (tmp_path / "deep").absolute().as_posix()
    forms = [
        names[0], f"./{names[1]}", "other/../deep/c.wav", r"deep\d.wav", f"{absolute}/e.wav",
        f"{absolute}/../deep/f.wav",
    ]  # fmt: skip
    write_metadata(tmp_path, *({"file_name": form, "caption": form} for form in forms))
    assert find(tmp_path, names, METADATA) == dict(zip(names, forms, strict=True))


def test_a_backslash_may_be_part_of_a_name(tmp_path):
    write_metadata(tmp_path, {"file_name": "a\\b.wav", "caption": "a tune"})
    assert find(tmp_path, ["a\\b.wav"], METADATA) == {"a\\b.wav": "a tune"}


def test_metadata_in_a_subfolder_is_relative_to_it(tmp_path):
    (tmp_path / "train").mkdir()
    write_metadata(tmp_path / "train", {"file_name": "a.wav", "caption": "deep"})
    write_metadata(tmp_path, {"file_name": "a.wav", "caption": "top"})
    assert find(tmp_path, ["a.wav", "train/a.wav"], METADATA) == {"a.wav": "top", "train/a.wav": "deep"}
    write_metadata(tmp_path, {"file_name": "train/a.wav", "caption": "another"})
    with pytest.raises(
        DatasetError, match=r"train/metadata\.jsonl:1: `train/a\.wav` has another caption in .*:1"
    ):
        find(tmp_path, ["train/a.wav"], METADATA)


def test_lines_that_fit_no_file_are_named_before_the_files_without_a_line(tmp_path):
    write_metadata(
        tmp_path,
        {"file_name": "/elsewhere/a.wav", "caption": "x"},
        {"file_name": "C:\\music\\b.wav", "caption": "x"},
        {"file_name": "../c.wav", "caption": "x"},
        {"file_name": "left_out.wav", "caption": "x"},
    )
    with pytest.raises(DatasetError) as caught:
        find_captions(tmp_path, ["a.wav"], AUTO, read_metadata(tmp_path, AUTO), ["left_out.wav"])
    _, *lines = str(caught.value).splitlines()
    place = tmp_path / "metadata.jsonl"
    assert lines[0].startswith(
        f"  {place}:1: there is no audio file /elsewhere/a.wav (`file_name` is relative"
    )
    assert [line.split(" (")[0] for line in lines[1:]] == [
        f"  {place}:2: there is no audio file C:\\music\\b.wav",
        f"  {place}:3: there is no audio file ../c.wav",
        "  a.wav: no a.txt or a.json",
    ]


def test_names_match_in_another_case_or_unicode_form_if_one_file_fits(tmp_path):
    composed, split = "caf\u00e9.wav", "cafe\u0301.wav"
    write_metadata(
        tmp_path, {"file_name": composed, "caption": "one"}, {"file_name": "SONG.WAV", "caption": "two"}
    )
    assert find(tmp_path, [split, "Song.wav"], METADATA) == {split: "one", "Song.wav": "two"}
    with pytest.raises(DatasetError, match=r"there is no audio file SONG\.WAV"):
        find(tmp_path, [split, "Song.wav", "song.wav"], METADATA)
    (tmp_path / "caf\u00e9.TXT").write_text("beside", encoding="utf-8")
    assert find(tmp_path, [split], SIDECAR) == {split: "beside"}


def test_a_name_that_is_not_utf8_is_matched_as_python_writes_it(tmp_path):
    name = os.fsdecode(b"canci\xf3n.wav")
    write_metadata(tmp_path, {"file_name": name, "caption": "a tune"})
    assert find(tmp_path, [name], METADATA) == {name: "a tune"}
    with pytest.raises(DatasetError, match=r"canci\\xf3n\.wav: no canci\\xf3n\.txt"):
        find(tmp_path, [name], SIDECAR)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"file_name": "a.wav", "caption": "x", "caption": "y"}', "the key `caption` occurs twice"),
        ('{"file_name": "a.wav", "caption": "\\ud83c"}', "holds half of a character"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=["twice", "half", "deep"],
)
def test_json_that_python_takes_and_nobody_means_is_refused(tmp_path, text, words):
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"metadata\.jsonl:1: .*{words}"):
        read_metadata(tmp_path, AUTO)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"a\.json: .*{words}"):
        find(tmp_path, ["a.wav"], SIDECAR)
