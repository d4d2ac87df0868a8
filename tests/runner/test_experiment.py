"""The whole program on the embedded model, small: run, run again, grow, fail in part, report."""

import json
from pathlib import Path

import pytest
import soundfile
from support.provenance_gaps import find_gaps
from support.tiny_experiment import SPEC, results, run

from lora_bench.cli.main import main
from lora_bench.report.formatting import format_with_error


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; only the last test that uses it changes it."""
    place = tmp_path_factory.mktemp("experiment")
    assert run(place) == 0
    return place


def test_a_run_gives_every_cell_of_zero_shot_and_fine_tuned(finished: Path) -> None:
    found = results(finished)
    assert found["complete"] is True
    assert [trial["kind"] for trial in found["trials"]] == ["zero-shot", "fine-tuned"]
    for trial in found["trials"]:
        assert trial["state"] == "done"
        assert trial["unscored"] == []
        cells = {(score["metric"], score["prompt"]) for score in trial["scores"]}
        assert cells == {
            (metric, prompt)
            for metric in ("mfcc20-seed", "mfcc20", "encodec")
            for prompt in ("chiptune game loop", None)
        }
        assert all(score["provenance"] for score in trial["scores"])
    tuned = found["trials"][1]
    assert tuned["trainable_params"] > 0
    assert set(tuned["matched_modules"]) == {"self_attention"}


def test_a_run_keeps_clips_of_the_exact_length_and_a_loadable_adapter(finished: Path) -> None:
    trials = finished / "runs" / "tiny" / "trials"
    for folder in trials.iterdir():
        clips = sorted((folder / "clips" / "chiptune-game-loop").glob("*.wav"))
        assert [clip.name for clip in clips] == ["000.wav", "001.wav", "002.wav"]
        for clip in clips:
            info = soundfile.info(clip)
            assert info.frames == 2 * info.samplerate
    [adapter] = trials.glob("*/adapter")
    assert (adapter / "adapter_model.safetensors").is_file()


def test_a_run_measures_both_floors_of_every_metric(finished: Path) -> None:
    floors = results(finished)["floors"]
    assert {(floor["metric"], floor["floor"]) for floor in floors} == {
        (metric, floor)
        for metric in ("mfcc20-seed", "mfcc20", "encodec")
        for floor in ("real-vs-real", "codec")
    }


def test_every_number_of_a_run_says_where_it_comes_from(finished: Path) -> None:
    found = results(finished)
    scores = [score for trial in found["trials"] for score in trial["scores"]]
    for score in (*scores, *found["floors"]):
        assert find_gaps(score) == [], (score["metric"], score["prompt"])
    assert all(
        score["provenance"][key] is not None
        for score in scores
        for key in ("reference_hash", "sampling", "generation_seed", "train_seed", "model_weights_hash")
    )
    assert found["contrasts"]
    for compared in found["contrasts"]:
        assert find_gaps(compared, ("n_pairs", "n_tracks", "dim")) == []
    for guard in (*found["guards"], *found["control"]):
        assert guard["provenance"]["interval"]
        assert guard.get("n_clips") or guard.get("n_pairs")


def test_a_run_guards_every_trial_and_prompt_beside_a_control(finished: Path) -> None:
    found = results(finished)
    ids = [trial["id"] for trial in found["trials"]]
    prompts = ["chiptune game loop", None]
    assert [(guard["trial"], guard["prompt"]) for guard in found["guards"]] == [
        (None, None),
        *((trial, prompt) for trial in ids for prompt in prompts),
    ]
    for guard in found["guards"]:
        assert set(guard["diversity"]) == {"mfcc20-seed", "mfcc20", "encodec"}
        for name in guard["diversity"]:
            few = f"recall and coverage ({name})" in guard["unscored"]
            assert few != (name in guard["recall"] and name in guard["coverage"])
            assert few or guard["trial"] is None  # a trial's three clips have no fifth neighbour
        for key in ("silent_clips_frac", "silent_seconds_frac", "closer_than_held_out_frac", "code_match"):
            assert 0.0 <= guard[key] <= 1.0
        for key in ("repetition", "copy_similarity", "copy_similarity_max"):
            assert -1.0 <= guard[key] <= 1.0
        if guard["trial"]:
            assert "clap" in guard["unscored"]["prompt adherence"]
    codes = list((finished / "runs" / "tiny" / "trials").glob("*/codes/*/*.npy"))
    assert len(codes) == 2 * 3
    assert {(item["trial"], item["encoder"]) for item in found["control"]} == {
        (ids[1], encoder) for encoder in ("mfcc20-seed", "mfcc20", "encodec")
    }
    text = (finished / "reports" / "tiny" / "details.md").read_text(encoding="utf-8")
    for words in ("## Guards", "held-out recordings", "Is text control kept?", "Copies of the training set"):
        assert words in text


def test_the_report_holds_the_table_of_the_results(finished: Path) -> None:
    text = (finished / "reports" / "tiny" / "details.md").read_text(encoding="utf-8")
    assert "chiptune game loop" in text
    for trial in results(finished)["trials"]:
        for score in trial["scores"]:
            assert format_with_error(score["value"], score.get("se")).split("\u00a0")[0] in text


def test_a_second_run_does_no_work(finished: Path) -> None:
    trials = finished / "runs" / "tiny" / "trials"
    before = {p: p.stat().st_mtime_ns for p in trials.rglob("*") if p.is_file()}
    assert run(finished) == 0
    assert {p: p.stat().st_mtime_ns for p in trials.rglob("*") if p.is_file()} == before


def test_rendering_again_from_files_gives_the_same_bytes(finished: Path) -> None:
    reports = finished / "reports" / "tiny"
    before = {p.name: p.read_bytes() for p in reports.iterdir() if p.is_file()}
    assert main(["report", str(finished / "runs" / "tiny"), "--reports-dir", str(finished / "reports")]) == 0
    assert {p.name: p.read_bytes() for p in reports.iterdir() if p.is_file()} == before


def test_more_clips_keep_the_old_ones_and_the_adapter(finished: Path) -> None:
    trials = finished / "runs" / "tiny" / "trials"
    kept = {p: p.read_bytes() for p in [*trials.rglob("*.wav"), *trials.rglob("*.safetensors")]}
    stamps = {p: p.stat().st_mtime_ns for p in kept}
    report = (finished / "reports" / "tiny" / "results.json").read_bytes()
    assert run(finished, "-o", "generation.n_clips=4") == 0
    (other,) = (place for place in (finished / "reports").iterdir() if place.name != "tiny")
    assert json.loads((other / "results.json").read_text(encoding="utf-8"))["overrides"] == [
        "generation.n_clips=4"
    ]
    assert (finished / "reports" / "tiny" / "results.json").read_bytes() == report
    assert {p: p.stat().st_mtime_ns for p in kept} == stamps
    assert {p: p.read_bytes() for p in kept} == kept
    assert len(list(trials.rglob("003.wav"))) == 2
    assert all(
        score["n_generated"] == 4
        for trial in results(finished)["trials"]
        for score in trial["scores"]
        if score["prompt"]
    )


def test_a_target_that_matches_nothing_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = SPEC + "    - {name: nothing, lora: {targets: ['no_such_module']}}\n"
    assert run(tmp_path, spec=spec) == 2
    message = capsys.readouterr().err
    assert "`no_such_module` matches no module" in message
    assert "`nothing`" in message
    assert not list(tmp_path.glob("runs/tiny/trials/*"))


def test_a_missing_folder_is_named_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = SPEC.replace("path: music", "path: music/of/mine")
    assert run(tmp_path, spec=spec) in (1, 2)
    message = capsys.readouterr().err
    assert "music/of/mine" in message
    assert "Traceback" not in message
    assert not list(tmp_path.glob("runs/tiny/trials/*"))


def test_a_run_that_another_process_holds_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from filelock import FileLock

    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock", is_singleton=False):
        assert run(tmp_path) == 1
    assert "another process" in capsys.readouterr().err


@pytest.mark.slow
def test_a_configuration_that_is_decided_early_makes_no_more_clips(tmp_path: Path) -> None:
    spec = SPEC.replace("n_clips: 3", "n_clips: 9").replace("[mfcc20-seed, mfcc20, encodec]", "[mfcc20]")
    early = spec + "verdict: {looks: [4, 6], margin: 1.0e+6}\n"  # every interval is within this margin
    assert run(tmp_path, spec=early) == 0
    found = results(tmp_path)
    assert found["decided"] == {"r2": 4}
    assert found["complete"] is True
    [contrast] = [item for item in found["contrasts"] if item["primary"]]
    assert (contrast["verdict"], contrast["n_pairs"]) == ("equivalent", 4)
    made = [len(list(place.glob("clips/*/*.wav"))) for place in (tmp_path / "runs/tiny/trials").iterdir()]
    assert made == [4, 4]
    report = (tmp_path / "reports" / "tiny" / "report.md").read_text(encoding="utf-8")
    assert "Fewer clips were enough for r2 after 4." in report

    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs/tiny/trials").rglob("*.wav")}
    assert run(tmp_path, spec=early) == 0  # nothing is left to do
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "runs/tiny/trials").rglob("*.wav")} == files
    assert results(tmp_path)["decided"] == {"r2": 4}

    assert run(tmp_path, spec=spec) == 0  # all clips, without looks
    assert "decided" not in results(tmp_path)
    made = [len(list(place.glob("clips/*/*.wav"))) for place in (tmp_path / "runs/tiny/trials").iterdir()]
    assert made == [9, 9]
