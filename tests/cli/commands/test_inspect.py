from __future__ import annotations

import html
import json
import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from lora_bench import api
from lora_bench.cli.inspection_map import write_map
from lora_bench.cli.main import main
from lora_bench.report.formatting import shorten
from lora_bench.stages.dataset import recordings
from lora_bench.stages.dataset.track_map import MapPoint, TrackMap

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def folder(tmp_path, monkeypatch, save_sound):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 48_000)).astype(np.float32)
    songs = tmp_path / "songs"
    for name, audio in {
        "good.wav": noise, "mono.wav": noise[[0, 0]] * 0.9, "short.wav": noise[:, :9000], "silent.wav": noise * 0,
        f"{EVIL[:12]}.wav": noise * 0.8,
    }.items():  # fmt: skip
        save_sound(songs / name, audio)
    shutil.copy(songs / "good.wav", songs / "good copy.wav")
    (songs / "broken.mp3").write_bytes(b"<!DOCTYPE html>")
    for name, text in {"good": "warm and slow", "mono": "untitled", EVIL[:12]: f"a {EVIL}"}.items():
        (songs / f"{name}.txt").write_text(text)
    return songs


def test_faults_are_listed_with_their_files_and_nothing_is_written_to_the_folder(folder, capsys):
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    assert main(["inspect", "songs", "--quiet"]) == 0
    lines = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert "tracks: 3 used, 4 left out" in lines
    assert "odd sound: 1 track" in lines
    assert "mono.wav mono in 2 channels" in lines
    assert "mono.wav caption: says nothing" in lines
    assert "good.wav left out: has the same content as good copy.wav" in lines
    assert any(line.startswith("silent.wav left out: is silent") for line in lines)
    assert any(line.startswith("short.wav left out: is too short (0.56 s") for line in lines)
    assert any(line.startswith("broken.mp3 left out: ") for line in lines)
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_a_file_and_the_spec_are_read_once_though_its_sound_is_prepared(folder, monkeypatch):
    (folder.parent / "spec.yaml").write_text(
        "schema: 1\nmodel: {id: pocket}\nprompts: [a]\nmetrics: [mfcc20]\n"
        "dataset: {path: songs, captions: {text: a}, prepare: {loudness_lufs: -20}}\n"
    )
    seen = {"hash_file": [], "load_audio": []}
    for name, paths in seen.items():
        function = getattr(recordings, name)
        monkeypatch.setattr(
            recordings, name, lambda path, f=function, p=paths: (p.append(path.name), f(path))[1]
        )
    loads, load = [], api.load_spec
    monkeypatch.setattr(
        api,
        "load_spec",
        lambda path, *given, **options: (loads.append(path), load(path, *given, **options))[1],
    )
    assert main(["inspect", "spec.yaml", "--quiet"]) == 0
    assert len(loads) == 1
    usable = ["good.wav", "mono.wav", "short.wav", "silent.wav", f"{EVIL[:12]}.wav"]
    assert sorted(seen["hash_file"]) == sorted([*usable, "good copy.wav"])
    copies = [name for name in seen["load_audio"] if name.startswith("good")]
    assert len(copies) <= 2  # two threads may decode equal files at once
    assert sorted({*seen["load_audio"]} - {*copies}) == sorted({*usable} - {"good.wav"})
    assert len(seen["load_audio"]) == len({*usable} - {"good.wav"}) + len(copies)


def test_json_holds_every_figure(folder, capsys):
    assert main(["inspect", "songs", "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    tracks = {track["source"]: track for track in found["tracks"]}
    assert tracks["mono.wav"]["facts"]["is_false_stereo"] is True
    assert tracks["silent.wav"]["facts"]["loudness_lufs"] is None
    assert tracks["broken.mp3"]["facts"] is None
    assert tracks["good copy.wav"]["caption_fault"] == "no caption"


def test_the_page_has_a_player_for_each_track_and_escapes_names_and_captions(folder, capsys):
    assert main(["inspect", "songs", "--quiet", "--html", "page.html"]) == 0
    page = (folder.parent / "page.html").read_text(encoding="utf-8")
    assert page.count("<audio ") == 3
    assert EVIL not in page
    assert EVIL[:12] + ".wav" not in page
    assert "mono in 2 channels" in page


def read_map(page: str) -> ET.Element:
    """The drawing of a page's map."""
    return ET.fromstring(re.search(r'<svg [^>]*aria-label="Map of .*?</svg>', page, re.DOTALL)[0])


def test_the_map_has_a_dot_for_each_track_that_leads_to_its_player(folder):
    (folder / EVIL[:4]).mkdir()
    shutil.move(folder / f"{EVIL[:12]}.wav", folder / EVIL[:4] / "tune.wav")
    assert main(["inspect", "songs", "--quiet", "--html", "page.html"]) == 0
    page = (folder.parent / "page.html").read_text(encoding="utf-8")
    drawing = read_map(page)
    assert drawing.get("role") == "group"
    links = {link.find(f"{SVG}title").text: link.get("href") for link in drawing.iter(f"{SVG}a")}
    groups = {"good copy.wav": "no subfolder", "mono.wav": "no subfolder", f"{EVIL[:4]}/tune.wav": EVIL[:4]}
    assert set(links) == {f"{name} ({group})" for name, group in groups.items()}
    for name, group in groups.items():
        anchor = links[f"{name} ({group})"].removeprefix("#")
        player = re.search(rf'<figure class="clip" id="{anchor}"><figcaption>(.*?)</figcaption>', page)[1]
        assert html.unescape(player) == name
    dots = [dot for link in drawing.iter(f"{SVG}a") for dot in link.iter(f"{SVG}circle")]
    assert len({(dot.get("cx"), dot.get("cy")) for dot in dots}) == 3
    assert len({dot.get("stroke") for dot in dots}) == 2
    keys = [text.text for text in drawing.iter(f"{SVG}text") if text.get("class") == "lb-key"]
    assert keys == ["no subfolder", EVIL[:4]]
    assert EVIL[:4] not in page


def test_a_legend_of_long_names_has_lines_below_one_another_inside_the_map():
    names = [f"a folder with a long name, the {place}th of many" for place in range(9)]
    points = [
        MapPoint(f"{name}/{song}.wav", song, place, name)
        for place, name in enumerate(names)
        for song in range(2)
    ]
    _, figure = write_map(TrackMap(tuple(points), (0.6, 0.4), (), "folder"), {})
    drawing = ET.fromstring(figure.svg)
    width, height = map(float, drawing.get("viewBox").split()[2:])
    keys = [text for text in drawing.iter(f"{SVG}text") if text.get("class") == "lb-key"]
    assert [key.text for key in keys] == [shorten(name, 40) for name in names[:6]] + ["other folders"]
    places = [(float(key.get("x")), float(key.get("y"))) for key in keys]
    assert len({y for _, y in places}) == 4
    assert max(y for _, y in places) < height
    for (x, _), key in zip(places, keys, strict=True):
        assert 0 < x < x + 7 * len(key.text) < width
    axes = next(float(text.get("y")) for text in drawing.iter(f"{SVG}text") if "variance" in text.text)
    assert min(y for _, y in places) > axes + 12


@pytest.mark.parametrize(("grouped_by", "n_hollow"), [("folder", 0), ("side", 2)])
def test_only_held_out_tracks_are_hollow_even_if_a_folder_is_called_eval(grouped_by, n_hollow):
    points = tuple(MapPoint(f"{group}/a.wav", 0, 1, group) for group in ("eval", "train"))
    _, figure = write_map(TrackMap(points, (0.6, 0.4), (), grouped_by), {})
    dots = ET.fromstring(figure.svg).iter(f"{SVG}circle")
    assert sum(dot.get("fill") == "none" for dot in dots) == n_hollow  # on the map and in the legend


def test_the_map_of_a_spec_shows_sides_and_joins_near_duplicates(tmp_path, monkeypatch, save_sound):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for song in range(6):
        pitches = 220 * 2 ** (rng.integers(0, 24, 80) / 12)
        tune = 0.2 * np.sin(np.cumsum(np.repeat(pitches, 4000)) * 2 * np.pi / 16_000)[None]
        save_sound(tmp_path / "songs" / f"{song}.wav", tune.astype(np.float32))
        if song == 2:
            save_sound(tmp_path / "songs" / "again.wav", tune[:, 9000:].astype(np.float32) / 2)
    spec = (
        "schema: 1\nmodel: {id: pocket}\nprompts: [a]\nmetrics: [mfcc20]\n"
        "dataset: {path: songs, captions: {text: a}, split: {eval_frac: 0.3, near_duplicates: together}}\n"
    )

    def inspect(text: str) -> str:
        (tmp_path / "spec.yaml").write_text(text)
        assert main(["inspect", "spec.yaml", "--quiet", "--html", "page.html"]) == 0
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    page = inspect(spec)
    drawing = read_map(page)
    sides = dict(link.find(f"{SVG}title").text.split(".wav ") for link in drawing.iter(f"{SVG}a"))
    assert sides["2"] == sides["again"]
    assert sorted(sides.values()) == ["(held out)"] * 2 + ["(to train on)"] * 5
    assert [line.get("class") for line in drawing.iter(f"{SVG}line")] == ["lb-floor"]
    assert re.search(r"<li>(2|again)\.wav and (2|again)\.wav \(correlation 0\.\d\d\)</li>", page)
    page = inspect(spec.replace("eval_frac: 0.3", "by: artist"))
    assert "The sides of the split are not known: dataset.split.by: no track" in page
    assert len(list(read_map(page).iter(f"{SVG}a"))) == 7


def test_notes_hide_no_missing_captions_and_a_folder_without_any_has_one_note(folder, capsys):
    (folder / "takes.csv").write_text("take,length\n1,30\n")
    assert main(["inspect", "songs", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "takes.csv: not used for captions" in shown
    assert "caption: no caption" in shown
    for path in folder.glob("*.txt"):
        path.unlink()
    assert main(["inspect", "songs", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("no track has a caption") == 1
    assert "caption: no caption" not in shown


def test_a_spec_gives_captions_and_the_shortest_length(folder, capsys):
    spec = (
        "schema: 1\ndataset: {path: songs, captions: {text: one for all}, min_track_s: 0.5}\nprompts: [x]\n"
    )
    (folder.parent / "spec.yaml").write_text(spec)
    assert main(["inspect", "spec.yaml", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "tracks: 4 used, 3 left out" in shown
    assert "captions that say nothing: 0 tracks" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["songs", "--html", "songs/page.html"],
            "lies in the folder of recordings, which lora_bench never writes to",
        ),
        (["songs", "-o", "a=b"], "overrides a spec, but songs is a folder"),
        (["quickstart"], "its dataset is rendered (`chiptune`)"),
    ],
)
def test_wrong_places_are_refused(folder, capsys, words, message):
    assert main(["inspect", *words]) == 2
    assert message in capsys.readouterr().err


def test_what_a_run_changes_in_the_sound_is_shown_for_each_track(folder, capsys):
    spec = (
        "{schema: 1, dataset: {path: songs, prepare: {loudness_lufs: -16}}, prompts: [a], metrics: [mfcc20]}"
    )
    (folder.parent / "songs.yaml").write_text(spec)
    assert main(["inspect", "songs.yaml", "--quiet"]) == 0
    lines = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert any(line.startswith("prepared gain dB LUFS s trimmed") for line in lines)
    (good,) = [line for line in lines if line.startswith("good copy.wav ") and "caption" not in line]
    gain, loudness = good.removeprefix("good copy.wav ").split()[:2]
    assert (float(gain), loudness) != (0.0, "")
    assert main(["inspect", "songs.yaml", "--quiet", "--json"]) == 0
    tracks = {track["source"]: track for track in json.loads(capsys.readouterr().out)["tracks"]}
    assert f"{tracks['good copy.wav']['preparation']['gain_db']:+.1f}" == gain
    assert "preparation" not in tracks["silent.wav"]
