from __future__ import annotations

import pytest

from lora_bench.errors import DatasetError
from lora_bench.spec.captions import CaptionSpec
from lora_bench.stages.dataset.captions import find_captions, read_metadata, search_captions

AUTO, WITH_FIELDS = CaptionSpec(), CaptionSpec(template="{bpm} {mood}")


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("mark", "name"), [(",", "captions.csv"), (";", "metadata.csv"), ("\t", "captions.tsv")]
)
def test_a_table_gives_captions_by_the_names_of_its_columns(tmp_path, mark, name, encoding):
    rows = [
        ["File", "bpm", "Caption"],
        ["a.wav", "120", f'"calm{mark} ""slow""\nand long"'],
        ["deep/b.wav", "", "café"],
    ]
    write(tmp_path / name, "\r\n".join(mark.join(row) for row in rows) + "\r\n", encoding)
    found = search_captions(tmp_path, ["a.wav", "deep/b.wav"], AUTO, read_metadata(tmp_path, AUTO))
    words = " ".join(f'calm{mark} "slow" and long'.split())
    assert found.captions == {"a.wav": words, "deep/b.wav": "café"}
    assert found.origins == {"a.wav": f"{name}:2", "deep/b.wav": f"{name}:4"}


def test_tables_in_subfolders_and_of_any_name_are_read(tmp_path):
    write(tmp_path / "deep" / "my songs.csv", "path,description\na.wav,below\n")
    write(tmp_path / "metadata.jsonl", '{"file_name": "b.wav", "caption": "above"}\n')
    names = ["deep/a.wav", "b.wav"]
    assert find_captions(tmp_path, names, AUTO, read_metadata(tmp_path, AUTO)) == {
        "deep/a.wav": "below",
        "b.wav": "above",
    }


def test_a_table_of_something_else_is_named_and_not_used(tmp_path):
    write(tmp_path / "takes.csv", "take,length\n1,30\n")
    write(tmp_path / "metadata.csv", "id,genre\n1,rock\n")
    write(tmp_path / "a.txt", "its own")
    found = search_captions(tmp_path, ["a.wav"], AUTO, read_metadata(tmp_path, AUTO))
    assert found.captions == {"a.wav": "its own"}
    assert (
        "metadata.csv:1: none of the columns `id`, `genre` names audio files"
        in found.unmatched[0] + found.unmatched[1]
    )
    assert any("takes.csv: not used for captions, because its first row" in text for text in found.unmatched)


def test_a_captions_csv_without_a_column_of_files_is_an_error(tmp_path):
    write(tmp_path / "captions.csv", "song,caption\na.wav,calm\n")
    with pytest.raises(
        DatasetError, match=r"captions\.csv:1: none of the columns `song`, `caption` names audio files; exp"
    ):
        read_metadata(tmp_path, AUTO)


def test_all_wrong_rows_are_told_with_their_lines_and_how_to_mend_them(tmp_path):
    write(tmp_path / "captions.csv", 'file,caption\na.wav,calm, slow\nb.wav,\n"c"x,d\n')
    with pytest.raises(DatasetError) as caught:
        read_metadata(tmp_path, AUTO)
    place = tmp_path / "captions.csv"
    assert str(caught.value).splitlines() == [
        f'{place}:2: has 3 cells, the first row has 2; put text that holds `,` in double quotes, such as "calm, slow"',
        f"{place}:3: no text under any of the keys caption, text, description",
        f"{place}:4: ',' expected after '\"'; write a quote within a quoted cell twice",
    ]


def test_two_captions_for_one_file_are_an_error_in_tables_too(tmp_path):
    write(tmp_path / "captions.csv", "file,caption\na.wav,one\na.wav,two\n")
    with pytest.raises(DatasetError, match=r"captions\.csv:3: `a\.wav` has another caption above; keep one"):
        read_metadata(tmp_path, AUTO)


def test_other_columns_differ_without_harm_unless_a_template_uses_them(tmp_path):
    write(tmp_path / "captions.csv", "file,caption,bpm\na.wav,one,90\na.wav,one,91\n")
    assert len(read_metadata(tmp_path, AUTO)) == 1
    with pytest.raises(DatasetError, match=r"`a\.wav` has another bpm above"):
        read_metadata(tmp_path, WITH_FIELDS)


def test_fields_of_two_tables_are_merged(tmp_path):
    write(tmp_path / "captions.csv", "file,tempo\na.wav,90\n")
    write(tmp_path / "metadata.jsonl", '{"file_name": "a.wav", "moods": ["calm", "sad"], "text": "a tune"}\n')
    line = read_metadata(tmp_path, WITH_FIELDS)["a.wav"]
    assert line.fields == {"bpm": "90", "mood": "calm, sad", "caption": "a tune"}


def test_a_file_elsewhere_replaces_the_tables_of_the_folder(tmp_path):
    write(tmp_path / "songs" / "captions.csv", "file,caption\na.wav,old\n")
    write(tmp_path / "edited.csv", "file,caption\na.wav,new\n")
    spec = CaptionSpec(file=tmp_path / "edited.csv")
    found = search_captions(tmp_path / "songs", ["a.wav"], spec, read_metadata(tmp_path / "songs", spec))
    assert (found.captions, found.origins) == ({"a.wav": "new"}, {"a.wav": "edited.csv:2"})


def test_a_trigger_word_is_in_front_unless_it_is_there(tmp_path):
    write(tmp_path / "captions.csv", "file,caption\na.wav,calm\nb.wav,a MGNR tune\n")
    spec = CaptionSpec(trigger="mgnr")
    found = find_captions(tmp_path, ["a.wav", "b.wav"], spec, read_metadata(tmp_path, spec))
    assert found == {"a.wav": "mgnr, calm", "b.wav": "a MGNR tune"}


def test_a_line_separator_in_a_name_of_a_column_does_not_end_the_first_row(tmp_path):
    write(tmp_path / "words.csv", "my\u2028notes,file,caption\nx\x85y,a.wav,calm\u2029tune\n")
    assert read_metadata(tmp_path, CaptionSpec())["a.wav"].caption == "calm tune"
