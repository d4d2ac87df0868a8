from __future__ import annotations

import csv
import json

import pytest

from lora_bench.cli.main import main
from lora_bench.spec.captions import CaptionSpec
from lora_bench.stages.dataset.captions import find_captions, read_metadata


@pytest.fixture
def folder(tmp_path, monkeypatch, make_tone, save_sound):
    monkeypatch.chdir(tmp_path)
    for name in ("Ann/a.wav", 'b, "é".flac'):
        save_sound(tmp_path / "songs" / name, make_tone(2.0))
    (tmp_path / "songs" / "captions.csv").write_text(
        'file,caption,bpm\nAnn/a.wav,"calm, slow",90\n', encoding="utf-8"
    )
    return tmp_path / "songs"


def test_captions_are_written_and_read_back_as_they_are(folder, capsys):
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    assert (
        main(["captions", "songs", "--quiet", "--template", "{caption}[, {bpm} bpm], {folder}, {name}"]) == 0
    )
    shown = capsys.readouterr().out
    assert "songs_captions.csv: 2 tracks, 0 without a caption" in shown
    assert "  caption: 1 from captions.csv" in shown
    assert "  name: 2 from file name" in shown
    written = folder.parent / "songs_captions.csv"
    rows = list(csv.DictReader(written.read_text(encoding="utf-8-sig").splitlines()))
    assert [row["file"] for row in rows] == ["Ann/a.wav", 'b, "é".flac']
    assert rows[0]["caption"] == "calm, slow, 90 bpm, Ann, a"
    assert rows[0]["from"] == "caption: captions.csv:2; bpm: captions.csv:2; folder: folder; name: file name"
    spec = CaptionSpec(file=written)
    names = [row["file"] for row in rows]
    assert list(find_captions(folder, names, spec, read_metadata(folder, spec)).values()) == [
        row["caption"] for row in rows
    ]
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_without_a_template_written_captions_are_kept_and_others_are_composed(folder):
    (folder / 'b, "é".txt').write_text("from a sidecar", encoding="utf-8")
    assert main(["captions", "songs", "--to", "out.jsonl", "--quiet", "--trigger", "mgnr"]) == 0
    lines = [
        json.loads(line) for line in (folder.parent / "out.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["caption"] for line in lines] == ["mgnr, calm, slow", "mgnr, from a sidecar"]
    assert lines[0]["bpm"] == "90"


def test_a_spec_says_how_captions_are_composed(folder, capsys):
    spec = folder.parent / "spec.yaml"
    spec.write_text('schema: 1\ndataset: {path: songs, captions: {template: "tune {name}"}}\nprompts: [x]\n')
    assert (
        main(["captions", "spec.yaml", "--to", "out.csv", "--quiet", "-o", "dataset.captions.trigger=mgnr"])
        == 0
    )
    assert "mgnr, tune a" in (folder.parent / "out.csv").read_text(encoding="utf-8-sig")
    assert main(["captions", "quickstart"]) == 2
    assert "its dataset is rendered (`chiptune`)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["songs", "--to", "songs/x.csv"], "lies in the folder of recordings, which lora_bench never writes to"),
        (["songs", "--to", "x.txt"], "expected a file that ends in .csv, .tsv, .jsonl"),
        (["songs", "--to", "there.csv"], "already exists; choose another name with --to, or replace it with --force"),
        (["songs", "--template", "{a.b}"], "--template: `{a.b}` is not a field"),
        (["songs", "-o", "a=b"], "overrides a spec, but songs is a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_any_work(folder, capsys, words, message):
    (folder.parent / "there.csv").write_text("mine")
    assert main(["captions", *words]) == 2
    assert message in capsys.readouterr().err
    assert (folder.parent / "there.csv").read_text() == "mine"


def test_tracks_without_a_caption_are_named_because_their_rows_cannot_be_read_back(folder, capsys):
    assert main(["captions", "songs", "--quiet", "--template", "{caption}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("songs_captions.csv: 2 tracks, 1 without a caption")
    assert lines[place + 1] == '  write a caption, or remove the row: b, "é".flac'
