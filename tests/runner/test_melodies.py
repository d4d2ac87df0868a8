"""Runs whose clips follow melodies: checked, planned, scored, compared, and made again when a melody changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
from support.melodies import RATE_HZ, play_notes, save_melodies
from support.melody_model import save_random_melody
from support.tiny_experiment import results, run, write_music

from benchmarks.random_model import TINY
from lora_bench.cli.main import main
from lora_bench.errors import UnscoredError
from lora_bench.evaluation.melodies import describe_melodies, open_agreement
from lora_bench.planning.plan import plan_file
from lora_bench.planning.run_folder import RunFolder
from lora_bench.runner.freshness import RunHistory, inputs_key
from lora_bench.spec.loading import load_spec
from lora_bench.store import hash_file, write_json

SPEC = """
schema: 1
name: tiny
model: {id: ./model}
dataset: {path: music, captions: {text: "chiptune game loop"}, clip_s: 2, split: {by: track, eval_frac: 0.5, seed: 0}}
prompts: ["chiptune game loop"]
generation: {n_clips: 4, clip_s: 1, melodies: tunes}
metrics: [melody-agreement, encodec]
defaults:
  lora: {rank: 2, targets: self_attention, dropout: 0.0}
  train: {steps: 2, batch_size: 2, lr: 1.0e-3, eval_every: 2, checkpoint_every: 2}
trials:
  variants:
    - {name: r2}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a melody model and three melodies; the current one."""
    monkeypatch.chdir(tmp_path)
    save_random_melody(tmp_path / "model", TINY)
    write_music(tmp_path / "music")
    (tmp_path / "tunes").mkdir()
    save_melodies(tmp_path / "tunes")
    return tmp_path


def list_problems(capsys: pytest.CaptureFixture[str], text: str) -> list[str]:
    """Problems of a spec, without their sum."""
    Path("tiny.yaml").write_text(text, encoding="utf-8")
    capsys.readouterr()
    assert main(["validate", "tiny.yaml"]) == 2
    return capsys.readouterr().err.splitlines()[:-1]


def read_clips(place: Path) -> dict[str, str]:
    clips = (place / "runs" / "tiny" / "trials").glob("*/clips/*/*.wav")
    return {str(clip.relative_to(place)): hash_file(clip) for clip in clips}


def find_scores(place: Path, metric: str) -> list[dict[str, Any]]:
    trials = results(place)["trials"]
    return [score for trial in trials for score in trial["scores"] if score["metric"] == metric]


@pytest.mark.slow
def test_a_run_follows_its_melodies_and_scores_the_agreement(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: hash_file(path) for path in (place / "tunes").rglob("*") if path.is_file()}
    assert run(place, "--quiet", spec=SPEC) == 0
    assert {path: hash_file(path) for path in (place / "tunes").rglob("*") if path.is_file()} == before
    scores = find_scores(place, "melody-agreement")
    assert len(scores) == 4  # two trials, the prompt and all of them together
    assert all(0.0 <= score["value"] <= 1.0 and score["ci_low"] is not None for score in scores)
    hashes = {score["provenance"]["melodies_hash"] for score in scores}
    assert len(hashes) == 1
    assert {score["provenance"]["n_melodies"] for score in scores} == {3}
    assert find_scores(place, "encodec")[0]["provenance"]["melodies_hash"] in hashes
    (contrast,) = [
        one
        for one in results(place)["contrasts"]
        if one["metric"] == "melody-agreement" and one["prompt"] is None
    ]
    assert contrast["verdict"] is not None
    assert {one["encoder"] for one in results(place)["control"]} == {"encodec"}
    report = (place / "reports" / "tiny" / "details.md").read_text(encoding="utf-8")
    assert "strongest pitch class" in report
    clips = read_clips(place)
    assert len(clips) == 8
    folders = {str(Path(name).parent) for name in clips}
    for folder in folders:  # clips 0 and 3 follow one melody with other noise
        assert len({clips[f"{folder}/00{n}.wav"] for n in range(4)}) == 4

    capsys.readouterr()
    assert main(["plan", "tiny.yaml"]) == 0
    told = capsys.readouterr().out
    assert (
        f"melodies: 3 of {place}/tunes (a.wav, b.flac, c/wide.wav); clip i of a prompt follows file i mod 3"
        in told
    )
    assert "2 done" in told

    soundfile.write(place / "tunes" / "a.wav", play_notes([1, 8]), RATE_HZ)
    assert main(["plan", "tiny.yaml"]) == 0
    told = capsys.readouterr().out
    assert "0 done" in told
    assert told.count("done before, now the melodies have changed") == 2
    assert run(place, "--quiet", spec=SPEC) == 0
    changed = read_clips(place)
    assert changed.keys() == clips.keys()
    is_kept = {name: changed[name] == clips[name] for name in clips}
    assert not any(kept for name, kept in is_kept.items() if name.endswith(("000.wav", "003.wav")))
    assert all(
        kept for name, kept in is_kept.items() if name.endswith(("001.wav", "002.wav"))
    )  # made again, equal
    assert {
        score["provenance"]["melodies_hash"] for score in find_scores(place, "melody-agreement")
    }.isdisjoint(hashes)


def test_changed_melodies_are_the_reason_of_another_look(place: Path) -> None:
    Path("tiny.yaml").write_text(SPEC, encoding="utf-8")
    trial = plan_file(load_spec(Path("tiny.yaml"))).trials[0]
    run = RunFolder(place / "run")
    files, score = run.trial(trial.id), {"metric": "encodec", "prompt": None, "value": 1.0}
    write_json(files.plan, trial)
    write_json(files.guards, {"guards": []})
    write_json(files.state, {"state": "done", "inputs": inputs_key(trial)})
    write_json(files.scores, {"scores": [{**score, "provenance": describe_melodies(trial)}], "unscored": []})
    assert RunHistory(run.path).explain(trial).kind == "cached"
    soundfile.write(place / "tunes" / "a.wav", play_notes([1, 8]), RATE_HZ)
    assert RunHistory(run.path).explain(trial).text == "done before, now the melodies have changed"


@pytest.mark.slow
def test_without_melodies_the_agreement_is_unscored_with_the_reason(place: Path) -> None:
    spec = SPEC.replace(", melodies: tunes", "").replace(
        "[melody-agreement, encodec]", "[encodec, melody-agreement]"
    )
    assert run(place, "--quiet", spec=spec) == 0
    assert find_scores(place, "melody-agreement") == []
    assert find_scores(place, "encodec")
    gaps = [gap for trial in results(place)["trials"] for gap in trial["unscored"]]
    reasons = {gap["reason"] for gap in gaps if gap["metric"] == "melody-agreement"}
    assert (
        "melody-agreement: the clips follow no melodies; set generation.melodies to a folder of them"
        in reasons
    )
    assert "n_melodies" not in find_scores(place, "encodec")[0]["provenance"]


def test_missing_empty_and_damaged_melodies_are_problems_at_their_place(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(place / "tunes")
    at = "tiny.yaml:7:47: "
    (found,) = list_problems(capsys, SPEC)
    assert found == (
        f"{at}`generation.melodies` is `{place}/tunes`, which does not exist; expected a folder of melodies or one audio "
        "file; put it there or change generation.melodies"
    )
    (place / "tunes").mkdir()
    (found,) = list_problems(capsys, SPEC)
    assert found.startswith(
        f"{at}`generation.melodies`: {place}/tunes: holds no audio file; expected melodies ("
    )
    (place / "tunes" / "broken.wav").write_bytes(b"RIFF....WAVE")
    (found,) = list_problems(capsys, SPEC)
    assert found.startswith(f"{at}`generation.melodies`: {place}/tunes/broken.wav: ")
    save_melodies(place / "tunes")
    (place / "tunes" / "broken.wav").unlink()
    (place / "tunes" / "aa.wav").symlink_to(place / "unmounted" / "aa.wav")
    (found,) = list_problems(capsys, SPEC)  # rather than letting clips follow the others in its place
    assert found.startswith(
        f"{at}`generation.melodies`: {place}/tunes/aa.wav: is a link that leads nowhere; clips follow the"
    )


def test_a_model_without_melodies_is_a_problem(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, said in (
        ("{id: pocket}", "`pocket` on transformers"),
        ("{id: facebook/musicgen-small}", "`facebook/musicgen-small` on transformers"),
    ):
        problems = list_problems(capsys, SPEC.replace("{id: ./model}", model))
        (found,) = [line for line in problems if "melodies" in line]
        assert found == (
            f"tiny.yaml:7:47: `generation.melodies` is `{place}/tunes`, and `model.id` is {said}, which follows no "
            "melodies; expected a melody model on transformers, such as facebook/musicgen-melody; change model.id or "
            "remove generation.melodies"
        )


def test_melodies_may_be_an_axis(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    axis = "trials: {zero_shot_only: true, grid: {axes: {generation.melodies: [tunes, tunes/a.wav, null]}}}"
    text = SPEC[: SPEC.index("trials:")] + axis
    Path("tiny.yaml").write_text(text, encoding="utf-8")
    assert main(["plan", "tiny.yaml", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    trials = plan["trials"]
    assert len({trial["id"] for trial in trials}) == 3
    assert main(["plan", "tiny.yaml"]) == 0
    told = capsys.readouterr().out
    assert f"melodies: 3 of {place}/tunes" in told
    assert f"melodies: every clip follows {place}/tunes/a.wav" in told


def test_clips_of_other_systems_follow_no_melodies(place: Path) -> None:
    (place / "other").mkdir()
    Path("tiny.yaml").write_text(
        SPEC.replace("    - {name: r2}", "    - {name: other, external: {clips: other}}"), encoding="utf-8"
    )
    trials = plan_file(load_spec(Path("tiny.yaml"))).trials
    assert [trial.kind for trial in trials] == ["zero-shot", "external"]
    with pytest.raises(
        UnscoredError, match="melody-agreement: the clips of another system follow no melodies"
    ):
        open_agreement(trials[1])
    assert open_agreement(trials[0]).embed_melodies().values.tolist() == [[1.0]] * 3
