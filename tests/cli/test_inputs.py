"""What a spec names and this machine lacks: said by validate, plan and run, all at once, before any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lora_bench.cli.main import main

HEAD = "schema: 1\nname: t\nprompts: [a]\nmetrics: [mfcc20]\n"
CAPTIONS = "captions: {text: a tune}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_songs(folder: Path, n_songs: int = 3) -> None:
    """Short sounds, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for song in range(n_songs):
        soundfile.write(folder / f"s{song}.wav", np.full(24_000, 0.1 * (song + 1)), 8000)


def write_spec(text: str) -> Path:
    """A spec in the current folder."""
    path = Path("t.yaml")
    path.write_text(HEAD + text, encoding="utf-8")
    return path


def list_problems(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Lines of a command that must refuse the spec, without their sum."""
    capsys.readouterr()
    assert main([*arguments]) == 2
    *problems, total = capsys.readouterr().err.splitlines()
    assert total.endswith("; nothing was run")
    return problems


def test_a_missing_folder_is_said_by_validate_plan_and_run_with_its_place(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = str(write_spec(f"dataset: {{path: no_such_folder, {CAPTIONS}}}\n"))
    expected = (
        f"t.yaml:5:17: `dataset.path` is `{place}/no_such_folder`, which does not exist; expected a folder of "
        "recordings of the genre (wav, flac, ogg, opus, mp3 or m4a, at any depth); put them there or change "
        "dataset.path"
    )
    for verb in ("validate", "plan", "run"):
        assert list_problems(capsys, verb, spec) == [expected]
    assert not (place / "runs").exists()
    assert main(["plan", spec]) == 2
    assert "r16-attention" in capsys.readouterr().out  # there is a plan all the same
    assert main(["plan", spec, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["problems"] == [expected]


def test_a_spec_can_be_checked_without_its_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(write_spec(f"dataset: {{path: on_the_cluster, {CAPTIONS}}}\n"))
    assert main(["validate", "--spec-only", spec]) == 0
    assert capsys.readouterr().out.startswith(f"{spec}: ok, 1 zero-shot and 1 fine-tuned trial")


def test_everything_that_is_missing_comes_at_once_with_what_is_wrong(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = (
        "trials: {variants: [{name: a}, {name: b, dataset.path: two}, {name: c, model: {id: ./three}}]}\n"
    )
    spec = str(write_spec(f"dataset: {{path: one, {CAPTIONS}}}\n{trials}"))
    found = list_problems(capsys, "validate", spec)
    assert [line.partition(",")[0] for line in found] == [
        f"t.yaml:5:17: `dataset.path` is `{place}/one`",
        f"t.yaml:6:56: `dataset.path` is `{place}/two`",
        f"t.yaml:6:84: `model.id` is `{place}/three`",
    ]
    wrong = str(write_spec(f"dataset: {{path: one, {CAPTIONS}}}\nlora: {{rank: 4}}\n"))
    missing, unknown = list_problems(capsys, "run", wrong)
    assert unknown.startswith("t.yaml:6:1: `lora` is not a field of a spec")
    assert f"`{place}/one`, which does not exist" in missing
    clash = f"dataset: {{path: one, {CAPTIONS}}}\nbaseline: nobody\n"
    assert len(list_problems(capsys, "plan", str(write_spec(clash)))) == 2


@pytest.mark.parametrize(
    ("captions", "songs", "words"),
    [
        (CAPTIONS, 0, "which holds no audio file; expected at least 3 recordings"),
        (CAPTIONS, 2, "which holds 2 audio files; expected at least 3 recordings"),
        ("captions: {source: sidecar}", 3, "3 of 3 files have no caption"),
        ("captions: {source: metadata}", 3, "metadata.jsonl: does not exist, but dataset.captions.source is"),
        ("clip_s: 2", 3, "3 of 3 files have no caption"),
    ],
)
def test_a_folder_without_songs_or_captions_is_said(
    captions: str, songs: int, words: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_songs(place / "music", songs)
    (place / "music" / "cover.jpg").write_bytes(b"\xff\xd8")
    spec = str(write_spec(f"dataset: {{path: music, {captions}}}\n"))
    for verb in ("validate", "plan", "run"):
        first = list_problems(capsys, verb, spec)[0]
        assert first.startswith("t.yaml:5:")
        assert words in first
    assert not (place / "runs").exists()


def test_what_a_run_leaves_out_needs_no_caption(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_songs(place / "music")
    for song in range(3):
        (place / "music" / f"s{song}.txt").write_text("a tune", encoding="utf-8")
    (place / "music" / "copy.wav").write_bytes((place / "music" / "s0.wav").read_bytes())
    (place / "music" / "damaged.mp3").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    soundfile.write(place / "music" / "short.wav", np.full(80, 0.3), 8000)
    soundfile.write(place / "music" / "silent.wav", np.zeros(24_001), 8000)
    spec = str(write_spec("dataset: {path: music, captions: {source: sidecar}}\n"))
    assert main(["validate", spec]) == 0
    soundfile.write(place / "music" / "new.wav", np.full(24_000, 0.7), 8000)
    assert "new.wav: no new.txt" in "".join(list_problems(capsys, "validate", spec))


def test_a_file_for_a_folder_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "song.wav").write_bytes(b"RIFF")
    (problem,) = list_problems(capsys, "plan", str(write_spec(f"dataset: {{path: song.wav, {CAPTIONS}}}\n")))
    assert "song.wav`, which is a file; expected a folder" in problem


def test_what_no_trial_takes_may_be_missing_and_what_is_there_is_no_problem(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_songs(place / "music")
    named = f"datasets: {{far: {{path: nowhere, {CAPTIONS}}}, near: {{path: music, {CAPTIONS}}}}}\ndataset: near\n"
    assert main(["validate", str(write_spec(named))]) == 0
    spec = str(write_spec(f"{named}trials: {{grid: {{axes: {{dataset: [near, far]}}}}}}\n"))
    assert "/nowhere`, which does not exist" in list_problems(capsys, "validate", spec)[0]


def test_a_model_that_cannot_be_loaded_here_is_said(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(place / "hub"))
    (place / "empty").mkdir()
    for model, words in (
        ("./empty", "empty`, a folder without a model; expected config.json"),
        ("./nowhere", "nowhere`, which does not exist; expected a folder with a MusicGen"),
        ("some/model", "`some/model`, which is not in the hub's cache"),
    ):
        spec = str(write_spec(f"dataset: {{builtin: chiptune}}\nmodel: {{id: {model}}}\n"))
        (problem,) = list_problems(capsys, "validate", spec)
        assert problem.startswith("t.yaml:6:13: `model.id` is `")
        assert words in problem
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert main(["validate", spec]) == 0  # it may be fetched


def test_a_missing_parent_is_said_with_its_place(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(write_spec(f"extends: none.yaml\ndataset: {{path: one, {CAPTIONS}}}\n"))
    parent, folder = list_problems(capsys, "run", spec)
    assert parent.startswith("t.yaml:5:10: parent `none.yaml` cannot be opened")
    assert "/one`, which does not exist" in folder


SEARCHED = (
    "trials: {grid: {axes: {lora.rank: [2, 8], lora.targets: [attention, all]}}}\n"
    "search: {optuna: {n_trials: 2}}\n"
)


def test_too_few_recordings_for_three_sides_are_said_before_anything_runs(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_songs(place / "music")
    spec = str(write_spec(f"dataset: {{path: music, {CAPTIONS}}}\n{SEARCHED}"))
    expected = (
        f"t.yaml:5:17: `{place}/music`: dataset.split: of 3 usable tracks, eval_frac 0.2 holds out 2 to score by and "
        "selection_frac 0.1 takes 1 to select by, which leaves 0 to train on; expected at least 1 to train on, 1 to "
        "select by and 2 to score by, so add recordings, lower the fractions, or set selection_frac to 0 to select by "
        "the tracks that score"
    )
    for verb in ("validate", "plan", "run"):
        assert list_problems(capsys, verb, spec) == [expected]
    spec = str(write_spec(f"dataset: {{path: music, {CAPTIONS}, split: {{selection_frac: 0}}}}\n{SEARCHED}"))
    assert main(["validate", spec]) == 0


def test_a_split_that_leaves_nothing_to_train_on_is_said_before_anything_runs(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_songs(place / "music", 4)
    spec = str(write_spec(f"dataset: {{path: music, {CAPTIONS}, split: {{eval_frac: 0.9}}}}\n"))
    (problem,) = list_problems(capsys, "validate", spec)
    assert "dataset.split.eval_frac: 0.9 of 4 usable tracks holds out 4 and leaves 0 to train on" in problem
    spec = str(write_spec("dataset: {builtin: chiptune, split: {eval_frac: 0.999}}\n"))
    (problem,) = list_problems(capsys, "validate", spec)
    assert "`chiptune`: dataset.split.eval_frac: 0.999 of 40 usable tracks holds out 40" in problem


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (
            "by: artist",
            "no track of {music} has `artist`; expected tags, or a column in captions.csv; add it, or",
        ),
        ("by: album", "no track of {music} has `album`; expected tags, or a column"),
        (
            "by: column, column: label",
            "no track of {music} has `label`; expected a column of this name in captions.csv",
        ),
        (
            "by: folder",
            "every track of {music} lies in the dataset's own folder; expected tracks in folders; put",
        ),
    ],
)
def test_a_split_by_what_no_track_has_is_said_before_anything_runs(
    split: str, words: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_songs(place / "music", 5)
    spec = str(write_spec(f"dataset: {{path: music, {CAPTIONS}, split: {{{split}}}}}\n"))
    column = len(f"dataset: {{path: music, {CAPTIONS}, split: {{") + 1
    for verb in ("validate", "plan"):
        (problem,) = list_problems(capsys, verb, spec)
        assert problem.startswith(
            f"t.yaml:5:{column}: dataset.split.by: {words.format(music=place / 'music')}"
        )
    names = [path.name for path in sorted((place / "music").glob("*.wav"))]
    rows = "".join(f"{name},{name}\n" for name in names)
    for field in ("artist", "album", "label"):
        (place / "music" / "captions.csv").write_text(f"file,{field}\n{rows}")
        if field in split:
            assert main(["validate", spec]) == 0
    spec = str(write_spec(f"dataset: {{builtin: chiptune, split: {{{split}}}}}\n"))
    (problem,) = list_problems(capsys, "validate", spec)
    assert "and the tracks of `chiptune` are single songs without" in problem


def test_plan_counts_the_recordings_of_each_side_before_they_are_prepared(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_songs(place / "music", 10)
    spec = str(write_spec(f"dataset: {{path: music, {CAPTIONS}}}\n{SEARCHED}"))
    assert main(["plan", spec]) == 0
    said = capsys.readouterr().out
    assert (
        "music: of 10 recordings, 7 to train on, 1 to select by and 2 to score by, if all are usable" in said
    )
    spec = str(write_spec(f"dataset: {{path: music, {CAPTIONS}}}\n"))
    assert main(["plan", spec]) == 0
    assert "to select by" not in capsys.readouterr().out


def test_a_program_and_weights_that_are_missing_are_said_before_a_run(
    tmp_path, monkeypatch, capsys, save_sound
):
    monkeypatch.setenv("LORA_BENCH_CHECKPOINTS", str(tmp_path / "hub"))
    for index in range(3):
        save_sound(tmp_path / "songs" / f"{index}.wav", np.full((1, 48_000), 0.1 * (index + 1), np.float32))
    place = tmp_path / "spec.yaml"
    place.write_text(
        "schema: 1\ndataset:\n  path: songs\n  captions: {text: a}\n"
        "  prepare: {vocals: remove, command: [no-such-program, '{path}']}\nprompts: [a]\nmetrics: [mfcc20]\n"
    )
    assert main(["validate", str(place)]) == 2
    told = capsys.readouterr().err
    assert (
        "`dataset.prepare.command` is `no-such-program {path}`, and there is no program `no-such-program`"
        in told
    )
    assert (
        "dataset.prepare.vocals is `remove`, but Hybrid Demucs: its weights are not on this machine" in told
    )
    assert f"{place}:3:9: " in told


@pytest.mark.parametrize("kind", ["zip", "txt", "folder"])
def test_a_part_of_more_tracks_than_the_training_side_has_is_said_for_every_source(
    place: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    songs = place / "songs"
    write_songs(songs, 6)
    path = "songs" if kind == "folder" else f"songs.{kind}"
    if kind == "zip":
        shutil.make_archive("songs", "zip", songs)
    elif kind == "txt":
        (place / path).write_text("".join(f"songs/s{song}.wav\n" for song in range(6)))
    split = "split: {eval_frac: 0.5}"
    text = "dataset: {{path: {}, {}, {}, clip_s: 1, size: {{tracks: {}}}}}\ntrials: {{variants: [{{name: r}}]}}\n"
    write_spec(text.format(path, CAPTIONS, split, 3))
    assert main(["validate", "t.yaml"]) == 0
    capsys.readouterr()
    write_spec(text.format(path, CAPTIONS, split, 4))
    [said] = list_problems(capsys, "validate", "t.yaml")
    assert said.startswith("t.yaml:5:")
    assert "dataset.size.tracks is 4, but the training side has 3 tracks" in said
