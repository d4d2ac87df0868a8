"""Calibration of a run's design on its own features."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lora_bench.artifacts import Embeddings
from lora_bench.cli.main import main
from lora_bench.comparison.calibration import calibrate_run, draw_clips, draw_tracks
from lora_bench.comparison.pairs import compare_trials
from lora_bench.errors import UnscoredError
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.progress import SilentProgress
from lora_bench.report.render import render_report
from lora_bench.results.calibration import describe_calibration, tell_calibration
from lora_bench.results.run_files import CalibrationFile
from lora_bench.slugs import prompt_slugs
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.stages.embed import save_embeddings
from lora_bench.store import write_json

N_CLIPS, N_TRACKS, DIM, WINDOWS = 16, 8, 3, 2


def wrap(values: np.ndarray, tracks: int | None = None) -> Embeddings:
    n_clips = len(values) // WINDOWS
    names = tuple(f"{clip:03d}" for clip in range(n_clips))
    groups = names if tracks is None else tuple(f"track{clip % tracks}" for clip in range(n_clips))
    return Embeddings(values, np.repeat(np.arange(n_clips), WINDOWS), names, groups, {"encoder": "mfcc20"})


def make_plan(**changes: object) -> ExperimentPlan:
    spec = {
        "schema": 1, "name": "tiny", "dataset": {"builtin": "chiptune"}, "prompts": ["march"],
        "generation": {"n_clips": N_CLIPS}, "metrics": ["mfcc20"],
        "trials": {"variants": [{"name": "r2", "lora": {"rank": 2}}, {"name": "r4", "lora": {"rank": 4}}]},
    }  # fmt: skip
    return plan_experiment(ExperimentSpec.model_validate(spec | changes))


def write_run(folder: Path, plan: ExperimentPlan, shift: float = 1.0) -> RunFolder:
    """Write the embeddings that trials leave; fine-tuned clips are nearer to the references by `shift`."""
    run, rng = RunFolder(folder), np.random.default_rng(0)
    references = wrap(rng.normal(size=(3 * N_TRACKS * WINDOWS, DIM)), N_TRACKS)
    save_embeddings(references, run.reference_embeddings / "r.npz")
    write_json(run.plan, plan)
    base = rng.normal(size=(N_CLIPS * WINDOWS, DIM)) + 2.0
    for trial in plan.trials:
        files = run.trial(trial.id)
        for slug in prompt_slugs(trial.prompts).values():
            moved = base if trial.kind == "zero-shot" else base - shift + 0.3 * rng.normal(size=base.shape)
            save_embeddings(wrap(moved), files.embeddings("mfcc20").prompt(slug))
        write_json(files.embeddings("mfcc20").reference, {"file": "r.npz"})
        write_json(files.plan, trial)
        write_json(files.scores, {"scores": [], "unscored": []})
        write_json(files.guards, {"guards": []})
        write_json(files.state, {"state": "done"})
    compare_trials(plan, folder, SilentProgress())
    return run


@pytest.mark.parametrize("metric", ["mfcc20", "mmd/mfcc20"])
def test_intervals_hold_the_truth_and_false_verdicts_are_rare(tmp_path: Path, metric: str) -> None:
    plan = make_plan(metrics=[metric])
    write_run(tmp_path, plan)
    found = calibrate_run(plan, tmp_path, 30, 0, SilentProgress())
    assert (found.metric, found.n_clips, found.n_tracks, found.n_differences) == (
        metric,
        N_CLIPS,
        N_TRACKS,
        2,
    )
    assert found.covered is not None
    assert found.jointly_covered is not None
    assert found.covered > 0.85
    assert found.jointly_covered > 0.85
    assert found.false_verdicts < 0.15
    assert found.refused == 0.0


def test_intervals_that_are_too_narrow_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan()
    write_run(tmp_path, plan)
    monkeypatch.setattr("lora_bench.comparison.calibration.t_reach", lambda _: 0.3)
    monkeypatch.setattr("lora_bench.metrics.jackknife.t_reach", lambda *_: 0.3)
    found = calibrate_run(plan, tmp_path, 12, 0, SilentProgress())
    assert found.covered is not None
    assert found.covered < 0.6
    assert found.false_verdicts > 0.5


def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    plan = make_plan()
    write_run(tmp_path, plan)
    one, same, other = (calibrate_run(plan, tmp_path, 4, seed, SilentProgress()) for seed in (1, 1, 2))
    assert one == same
    assert other.seed == 2


def test_a_design_without_intervals_says_so(tmp_path: Path) -> None:
    plan = make_plan(generation={"n_clips": 2}, metrics=["mmd/mfcc20"])
    run = write_run(tmp_path, plan)
    for trial in plan.trials:
        for path in run.trial(trial.id).embeddings("mfcc20").path.glob("*.npz"):
            save_embeddings(wrap(np.random.default_rng(0).normal(size=(2 * WINDOWS, DIM))), path)
    found = calibrate_run(plan, tmp_path, 3, 0, SilentProgress())
    assert (found.covered, found.refused, found.false_verdicts) == (None, 1.0, 0.0)
    assert "too few had an interval" in describe_calibration(found)


def test_a_run_without_a_trained_trial_cannot_be_calibrated(tmp_path: Path) -> None:
    with pytest.raises(UnscoredError, match="no fine-tuned trial is scored"):
        calibrate_run(make_plan(), tmp_path, 3, 0, SilentProgress())


def test_configurations_that_are_unscored_on_the_metric_are_left_out(tmp_path: Path) -> None:
    plan = make_plan()
    run = write_run(tmp_path, plan)
    gap = {"metric": "mfcc20", "prompt": None, "reason": "the clips follow no melodies"}
    write_json(run.trial(plan.trials[2].id).scores, {"scores": [], "unscored": [gap]})
    shutil.rmtree(run.trial(plan.trials[2].id).embeddings("mfcc20").path)
    assert calibrate_run(plan, tmp_path, 2, 0, SilentProgress()).n_differences == 1
    write_json(run.trial(plan.trials[0].id).scores, {"scores": [], "unscored": [gap]})
    with pytest.raises(UnscoredError, match="no fine-tuned trial is scored on mfcc20, so"):
        calibrate_run(plan, tmp_path, 2, 0, SilentProgress())


def test_drawn_tracks_keep_their_clips_and_are_tracks_of_their_own() -> None:
    population = wrap(np.arange(12.0 * WINDOWS)[:, None], tracks=4)
    drawn = draw_tracks(population, np.array([2, 2, 0]))
    assert len(set(drawn.groups)) == 3
    assert len(set(drawn.clip_names)) == 9
    first, second = (drawn.values[np.isin(drawn.clip_index, clips)] for clips in ([0, 1, 2], [3, 4, 5]))
    assert np.array_equal(first, second)
    single = wrap(np.arange(6.0)[:, None], tracks=1)
    assert set(draw_tracks(single, np.array([1, 1, 2])).groups) == {"track0"}


def test_a_clip_that_is_drawn_twice_is_two_clips() -> None:
    drawn = draw_clips(wrap(np.arange(6.0)[:, None]), np.array([1, 1]))
    assert drawn.clip_names == drawn.groups == ("00000", "00001")
    assert drawn.values[:, 0].tolist() == [2.0, 3.0, 2.0, 3.0]


def test_the_verb_writes_the_file_and_the_report_shows_it_until_the_run_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "runs" / "tiny", make_plan())
    assert tell_calibration(run) is None
    assert main(["calibrate", str(run.path), "--draws", "5", "--json", "--quiet"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert json.loads(run.calibration.read_text()) == written
    assert written["n_draws"] == 5
    sentence = tell_calibration(run)
    assert sentence is not None
    assert sentence.startswith("In 5 reports on mfcc20 with 16 clips per prompt and 8 reference tracks drawn")
    pages = render_report(run.path, tmp_path / "reports")
    assert sentence in next(path for path in pages if path.suffix == ".md").read_text(encoding="utf-8")
    write_json(run.contrasts, {"key": "later", "contrasts": []})
    assert tell_calibration(run) is None
    run.calibration.write_text("{")
    assert str(run.calibration) in (tell_calibration(run) or "")


@pytest.mark.parametrize(("option", "value"), [("--draws", "0"), ("--seed", "-1")])
def test_wrong_numbers_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert main(["calibrate", str(tmp_path), option, value]) == 2
    assert f"{option} is {value}; expected a whole number" in capsys.readouterr().err


def test_a_missing_rate_stays_missing() -> None:
    found = CalibrationFile(metric="mfcc20", n_draws=3, n_clips=2, n_differences=1, false_verdicts=0.0)
    assert "0.0 ±" not in describe_calibration(found)
