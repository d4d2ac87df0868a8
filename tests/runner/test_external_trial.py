"""Whole runs with other systems next to a tiny random model: scores, comparisons, a crash, a replaced clip."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.tiny_experiment import write_music

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.adapters.publication import Choice, write_publications
from lora_bench.cli.main import main
from lora_bench.report.audio.choose_clips import choose_listening
from lora_bench.report.contents import build_report
from lora_bench.report.view import RunView
from lora_bench.report.writers.html import write_page
from lora_bench.results.gather import gather_results

pytestmark = pytest.mark.slow
GENERATOR = Path(__file__).parents[1] / "support" / "sine_generator.py"
SPEC = """
schema: 1
name: tiny
model: {{id: ./model, dtype: bfloat16}}
dataset: {{path: music, captions: {{text: chip}}, clip_s: 2, split: {{by: track, eval_frac: 0.5, seed: 0}}}}
prompts: [warm lofi]
generation: {{n_clips: 3, clip_s: 2}}
metrics: [encodec, mmd/encodec@codec]
trials:
  variants:
    - {{name: noise, external: {{clips: clips}}}}
    - {{name: sines, external: {{command: ['{python}', '{generator}'], settings: {{crash_after: 1, rate_hz: 11025, mended: {mended}}}}}}}
"""


def run(place: Path, verb: str = "run") -> int:
    file = write_spec(place, place / "mended")
    reports = ["--reports-dir", str(place / "reports")] if verb == "run" else []
    return main([verb, str(file), "--runs-dir", str(place / "runs"), *reports])


def write_spec(place: Path, mended: Path) -> Path:
    file = place / "tiny.yaml"
    file.write_text(SPEC.format(python=sys.executable, generator=GENERATOR, mended=mended), encoding="utf-8")
    return file


def write_noise(file: Path, seed: int) -> None:
    file.parent.mkdir(exist_ok=True)
    noise = 0.1 * np.random.default_rng(seed).standard_normal((22_050 * 3, 2))
    soundfile.write(file, noise, 22_050)


def read(place: Path) -> dict[str, Any]:
    return json.loads((place / "runs" / "tiny" / "results.json").read_text(encoding="utf-8"))


def find(results: dict[str, Any], name: str) -> dict[str, Any]:
    return next(trial for trial in results["trials"] if trial["name"] == name)


def state(place: Path, name: str) -> dict[str, Any]:
    [file] = (place / "runs" / "tiny" / "trials").glob(f"{name}-*/state.json")
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that failed in its command and was resumed; the folder of noise has one clip too few."""
    place = tmp_path_factory.mktemp("external")
    save_random_musicgen(place / "model", TINY)
    write_music(place / "music")
    for index in range(2):
        write_noise(place / "clips" / f"warm-lofi_{index}.wav", index)
    assert run(place) == 3
    failed = state(place, "sines")
    assert (failed["state"], failed["cause"], failed["stage"]) == ("failed", "external system", "external")
    assert "out of sines" in failed["reason"]
    [error] = (place / "runs" / "tiny" / "trials").glob("sines-*/error.txt")
    assert "in main\n" in error.read_text(encoding="utf-8")  # of the command's traceback
    assert find(read(place), "sines")["state"] == "failed"
    assert "sines" in (place / "reports" / "tiny" / "report.md").read_text(encoding="utf-8")
    assert find(read(place), "noise")["state"] == "done"  # a failure leaves other rows alone
    [kept] = (place / "runs" / "tiny" / "trials").glob("sines-*/external/warm-lofi/000.wav")
    (place / "mended").touch()
    assert run(place) == 0
    assert not kept.exists()  # taken over, with those of the second call
    return place


def test_other_systems_are_scored_like_the_model_with_their_own_provenance(place: Path) -> None:
    results = read(place)
    assert results["complete"] is True
    sines, noise = find(results, "sines"), find(results, "noise")
    for trial in (sines, noise):
        assert (trial["kind"], trial["lora"], trial["trainable_params"]) == ("external", None, None)
        assert trial["unscored"] == []
        for score in trial["scores"]:
            about = score["provenance"]
            assert about["model"] == f"external: {trial['external']['label']}"
            assert {"model_weights_hash", "generation_seed", "train_seed"}.isdisjoint(about)
            assert any(key.endswith("codec_hash") for key in about) == ("@codec" in score["metric"])
    assert noise["external"]["n_clips"] == {"warm lofi": 2}
    assert noise["external"]["n_planned"] == 3
    assert any("22050 Hz, 2 channel(s)" in note for note in noise["external"]["notes"])
    assert "2 files of 3.00 s were cut to 2 s" in noise["external"]["notes"]


def test_other_systems_are_never_compared_in_pairs(place: Path) -> None:
    found = read(place)["contrasts"]
    assert {item["configuration"] for item in found} == {"sines", "noise"}
    assert all(item["paired"] is False and item.get("n_pairs") is None for item in found)
    assert {tuple(item["n_clips"]) for item in found} == {(3, 3), (2, 3)}
    assert read(place)["control"] == []


def test_clips_of_other_systems_are_not_published(place: Path, tmp_path: Path) -> None:
    run_folder = place / "runs" / "tiny"
    foreign = {
        path.read_bytes()
        for name in ("sines", "noise")
        for path in run_folder.glob(f"trials/{name}-*/clips/**/*.wav")
    }
    published = write_publications(run_folder, Choice("ada/tiny"), tmp_path)
    files = {path.read_bytes() for item in published for path in item.folder.rglob("*.wav")}
    assert len(foreign) == 5
    assert files
    assert not files & foreign
    view, sounds = RunView(gather_results(run_folder), run_folder), {}
    for with_recordings in (False, True):
        report = build_report(view, choose_listening(view, tmp_path, with_recordings=with_recordings))
        sounds[with_recordings] = write_page("", [*report.front, *report.details]).count("data:audio/")
    assert sounds[False] == 2  # zero-shot alone, two indices
    assert sounds[True] >= 2 * (1 + 2 + 1)  # and both systems and a reference


def test_guards_of_other_systems_search_copies_in_the_sound_alone(place: Path) -> None:
    results = read(place)
    ids = {find(results, name)["id"] for name in ("sines", "noise")}
    guards = [guard for guard in results["guards"] if guard["trial"] in ids]
    assert len(guards) == 4
    for guard in guards:
        assert guard["n_clips"] in {2, 3}
        assert guard["copy_similarity"] is not None
        assert "code_match" not in guard
        assert "no codes of this model" in guard["unscored"]["copies in the codes"]


def test_the_report_and_the_tables_say_external_and_name_no_size_or_time(place: Path) -> None:
    report = (place / "reports" / "tiny" / "report.md").read_text(encoding="utf-8")
    [row] = [line for line in report.splitlines() if line.startswith("| **noise** (external: folder clips)")]
    assert [cell.strip() for cell in row.split("|")][-3:-1] == ["\u2014", "\u2014"]
    assert "noise is partial: of 3 clips per prompt there are 2 for warm lofi." in report
    assert "Other systems are compared without pairs" in report
    details = (place / "reports" / "tiny" / "details.md").read_text(encoding="utf-8")
    assert "| noise | folder clips | 2 of 3 |" in details
    with (place / "runs" / "tiny" / "results.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] == "external"]
    facts = ("paired", "trainable_params", "n_seeds")
    assert {(row["external"].split()[0], *(row[name] for name in facts)) for row in rows} == {
        ("folder", "False", "", ""),
        ("command", "False", "", ""),
    }


def test_a_finished_run_is_left_alone_and_a_replaced_clip_is_scored_again(place: Path) -> None:
    before, sines = find(read(place), "noise"), state(place, "sines")
    assert run(place) == 0
    assert find(read(place), "noise") == before
    write_noise(place / "clips" / "warm-lofi_1.wav", 99)
    assert run(place) == 0
    after = find(read(place), "noise")
    assert after["external"]["key"] != before["external"]["key"]
    assert after["scores"][0]["value"] != before["scores"][0]["value"]
    assert state(place, "sines") == sines


def test_the_plan_counts_clips_and_says_that_the_time_is_unknown(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, verb="plan") == 0
    said = capsys.readouterr().out
    assert "noise: 3 clips for each of 1 prompts, from " in said
    assert "partial: some prompts have 2; no training, its time is unknown" in said
    assert "sines: a command generates 3 clips for each of 1 prompts in one call per prompt (1)" in said
    assert "1 zero-shot and 0 fine-tuned trials, and 2 of other systems" in said


def test_a_folder_without_clips_of_a_prompt_stops_the_run_before_anything(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("model", "music"):
        (tmp_path / name).symlink_to(place / name)
    file = write_spec(tmp_path, place / "mended")
    assert main(["run", str(file), "--runs-dir", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert "`noise`: " in said
    assert "holds no clip of 1 of 1 prompts; expected a subfolder" in said
    assert not (tmp_path / "runs" / "tiny" / "trials").exists()
