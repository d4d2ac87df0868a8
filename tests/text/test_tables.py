"""Records of tables and of lines of JSON, read alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_bench.errors import DatasetError
from lora_bench.text.tables import ForeignTableError, read_records


def read(path: Path, text: str) -> list[tuple[int, object]]:
    path.write_text(text, encoding="utf-8")
    return list(read_records(path, ("file", "file_name")))


def test_a_table_and_lines_of_json_give_the_same_records(tmp_path: Path) -> None:
    lines = '{"file": "a.wav", "caption": "one"}\n\n{"file": "b.wav", "caption": "two"}\n'
    expected = [{"file": "a.wav", "caption": "one"}, {"file": "b.wav", "caption": "two"}]
    for name, text in (
        ("t.jsonl", lines),
        ("t.csv", "file,caption\na.wav,one\nb.wav,two\n"),
        ("t.TSV", "file\tcaption\na.wav\tone\nb.wav\ttwo\n"),
    ):
        assert [record for _, record in read(tmp_path / name, text)] == expected
    assert [number for number, _ in read(tmp_path / "t.jsonl", lines)] == [1, 3]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file": ', "not valid JSON (Expecting value"),
        ('["a.wav"]', "expected a JSON object, found list"),
        ('"a.wav"', "expected a JSON object, found str"),
        ('{"file": "a", "file": "b"}', "the key `file` occurs twice; keep one"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_wrong_line_is_told_and_the_others_are_read(line: str, words: str, tmp_path: Path) -> None:
    (_, first), (number, second) = read(tmp_path / "t.jsonl", f'{line}\n{{"file": "a.wav"}}\n')
    assert isinstance(first, str)
    assert first.startswith(words)
    assert (number, second) == (2, {"file": "a.wav"})


def test_a_table_without_files_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ForeignTableError, match="names audio files"):
        read(tmp_path / "t.csv", "name,caption\na,b\n")
    (tmp_path / "t.jsonl").write_bytes(b'{"file": "\xe9"}')
    with pytest.raises(DatasetError, match="not UTF-8 text"):
        list(read_records(tmp_path / "t.jsonl", ("file",)))
