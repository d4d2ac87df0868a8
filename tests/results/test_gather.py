from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from lora_bench.artifacts import LossPoint, Score, TrainResult, Unscored
from lora_bench.errors import StoreError
from lora_bench.results.gather import gather_results, write_results
from lora_bench.results.reading import read_results_file
from lora_bench.store import write_json

PROMPTS = ["invented march", "invented waltz"]


def write_plan(run: Path, *trials: dict[str, Any], metrics: tuple[str, ...] = ("mfcc20",)) -> None:
    spec = {"name": "invented", "prompts": PROMPTS, "metrics": list(metrics)}
    write_json(run / "plan.json", {"name": "invented", "spec": spec, "trials": list(trials)})


def plan_trial(trial_id: str, kind: str = "fine-tuned", **more: Any) -> dict[str, Any]:
    lora = {"rank": 4, "alpha": None, "targets": "attention"} if kind == "fine-tuned" else None
    seed = 0 if kind == "fine-tuned" else None
    return {
        "id": trial_id,
        "name": trial_id.partition("-0")[0],
        "kind": kind,
        "lora": lora,
        "train_seed": seed,
    } | more


def write_done(run: Path, trial_id: str, scores: list[Score], unscored: tuple[Unscored, ...] = ()) -> Path:
    folder = run / "trials" / trial_id
    write_json(folder / "state.json", {"state": "done", "wall_s": {"generate": 1.5}})
    write_json(folder / "scores.json", {"scores": scores, "unscored": unscored})
    return folder


def all_scores(value: float = 0.5) -> list[Score]:
    return [Score("mfcc20", prompt, value, 10, 20, 20) for prompt in (*PROMPTS, None)]


def test_a_run_with_every_cell_scored_is_complete(tmp_path: Path) -> None:
    write_plan(tmp_path, plan_trial("zero-shot-01", "zero-shot"))
    write_done(tmp_path, "zero-shot-01", all_scores())
    results = gather_results(tmp_path)
    assert results.complete is True
    assert results.schema_version == 2
    assert results.name == "invented"
    trial = results.trials[0]
    assert trial.state == "done"
    assert trial.lora is None
    assert trial.trainable_params == 0
    assert trial.adapter is None
    assert [score.prompt for score in trial.scores] == [*PROMPTS, None]
    assert trial.unscored == ()


def test_a_fine_tuned_trial_names_its_adapter_relative_to_the_run(tmp_path: Path) -> None:
    write_plan(tmp_path, plan_trial("r4-01"))
    folder = write_done(tmp_path, "r4-01", all_scores())
    (folder / "adapter").mkdir()
    curve = (
        LossPoint(0, 4.0, 4.5, 0.0, 0.0),
        LossPoint(10, 3.0, 3.5, 1e-4, 1.0),
        LossPoint(20, 2.0, 3.75, 0.0, 2.0),
    )
    write_json(folder / "train.json", TrainResult(folder / "adapter", 1234, {"ffn": 2}, curve, 9.0, 0.5))
    trial = gather_results(tmp_path).trials[0]
    assert trial.adapter == "trials/r4-01/adapter"
    assert trial.trainable_params == 1234
    assert trial.matched_modules == {"ffn": 2}
    assert trial.lora["alpha"] == 8.0
    assert trial.losses.model_dump() == {
        "first_train": 4.0, "last_train": 2.0, "first_eval": 4.5, "last_eval": 3.75, "best_eval": 3.5,
        "best_eval_step": 10, "steps": 20,
    }  # fmt: skip
    assert trial.wall_s == {"generate": 1.5}
    assert trial.peak_memory_gib == 0.5


def test_an_adapter_without_a_finished_training_is_not_offered(tmp_path: Path) -> None:
    write_plan(tmp_path, plan_trial("r4-01"))
    (tmp_path / "trials" / "r4-01" / "adapter").mkdir(parents=True)
    assert gather_results(tmp_path).trials[0].adapter is None


@pytest.mark.parametrize(
    ("written", "state", "words"),
    [
        (None, "unstarted", "not started"),
        (
            {"state": "failed", "stage": "train", "reason": "loss is NaN"},
            "failed",
            "failed in stage train: loss is NaN",
        ),
        (
            {"state": "interrupted", "stage": "generate", "reason": None},
            "interrupted",
            "interrupted in stage generate",
        ),
        ({"state": "running", "stage": "score"}, "running", "still running in stage score"),
        ({"state": "asleep"}, "missing", "unknown state `asleep`"),
    ],
)
def test_a_trial_that_is_not_done_has_a_state_and_a_reason_and_every_cell_unscored(
    tmp_path: Path, written: dict[str, Any] | None, state: str, words: str
) -> None:
    write_plan(tmp_path, plan_trial("r4-01"))
    if written:
        write_json(tmp_path / "trials" / "r4-01" / "state.json", written)
    results = gather_results(tmp_path)
    trial = results.trials[0]
    assert results.complete is False
    assert trial.state == state
    assert words in trial.reason
    assert trial.scores == ()
    assert [cell.prompt for cell in trial.unscored] == [*PROMPTS, None]
    assert all(words in cell.reason for cell in trial.unscored)


def test_a_cell_that_was_explicitly_left_unscored_does_not_make_a_run_incomplete(tmp_path: Path) -> None:
    write_plan(tmp_path, plan_trial("zero-shot-01", "zero-shot"))
    gap = Unscored("mfcc20", None, "weights are unavailable")
    write_done(tmp_path, "zero-shot-01", all_scores()[:2], (gap,))
    results = gather_results(tmp_path)
    assert results.complete is True
    assert results.trials[0].unscored[0].reason == "weights are unavailable"


def test_a_planned_cell_that_no_file_speaks_of_makes_a_run_incomplete(tmp_path: Path) -> None:
    write_plan(tmp_path, plan_trial("zero-shot-01", "zero-shot"))
    write_done(tmp_path, "zero-shot-01", all_scores()[:2])
    results = gather_results(tmp_path)
    assert results.complete is False
    (gap,) = results.trials[0].unscored
    assert (gap.metric, gap.prompt) == ("mfcc20", None)
    assert "was not scored" in gap.reason


def test_a_score_that_is_not_a_number_is_unscored_and_not_zero(tmp_path: Path) -> None:
    write_plan(tmp_path, plan_trial("zero-shot-01", "zero-shot"))
    folder = tmp_path / "trials" / "zero-shot-01"
    write_done(tmp_path, "zero-shot-01", all_scores())
    text = (folder / "scores.json").read_text().replace("0.5", "NaN", 1)
    (folder / "scores.json").write_text(text)
    trial = gather_results(tmp_path).trials[0]
    assert len(trial.scores) == 2
    assert "nan" in trial.unscored[0].reason


def test_a_score_that_is_no_longer_planned_is_left_out(tmp_path: Path) -> None:
    write_plan(tmp_path, plan_trial("zero-shot-01", "zero-shot"))
    write_done(tmp_path, "zero-shot-01", [*all_scores(), Score("encodec", None, 1.0, 10, 20, 128)])
    assert {score.metric for score in gather_results(tmp_path).trials[0].scores} == {"mfcc20"}


def test_a_damaged_file_of_a_trial_fails_that_trial_only(tmp_path: Path) -> None:
    write_plan(tmp_path, plan_trial("zero-shot-01", "zero-shot"), plan_trial("r4-01"))
    write_done(tmp_path, "zero-shot-01", all_scores())
    folder = write_done(tmp_path, "r4-01", all_scores())
    (folder / "scores.json").write_text('{"scores": [')
    first, second = gather_results(tmp_path).trials
    assert first.state == "done"
    assert second.state == "failed"
    assert "scores.json: not valid JSON" in second.reason


def test_a_damaged_floor_file_is_a_problem_of_the_run(tmp_path: Path) -> None:
    write_plan(tmp_path, plan_trial("zero-shot-01", "zero-shot"))
    (tmp_path / "floors.json").write_text("{")
    results = gather_results(tmp_path)
    assert results.floors == ()
    assert "floors.json" in results.problems[0]


def test_a_folder_without_a_run_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"plan\.json.*was the run started"):
        gather_results(tmp_path)


def test_each_fine_tuned_trial_is_paired_with_the_base_model_of_its_own_sampling(tmp_path: Path) -> None:
    warm, cold = {"temperature": 1.0, "n_clips": 10}, {"temperature": 0.5, "n_clips": 10}
    write_plan(
        tmp_path,
        plan_trial("zero-warm-01", "zero-shot", generation=warm),
        plan_trial("zero-cold-01", "zero-shot", generation=cold),
        plan_trial("r4-01", generation=cold | {"n_clips": 20}),
    )
    assert gather_results(tmp_path).trials[2].zero_shot == "zero-cold-01"


def test_the_written_files_hold_every_cell_once(tmp_path: Path) -> None:
    write_plan(tmp_path, plan_trial("zero-shot-01", "zero-shot"), plan_trial("r4-01"))
    write_done(tmp_path, "zero-shot-01", all_scores())
    contrast = {"configuration": "r4", "metric": "mfcc20", "prompt": None, "delta": -0.1, "verdict": "better"}
    write_json(tmp_path / "contrasts.json", {"contrasts": [contrast]})
    write_done(tmp_path, "r4-01", all_scores(0.4)[2:], (Unscored("mfcc20", PROMPTS[0], "too few clips"),))
    written = write_results(tmp_path)
    assert read_results_file(tmp_path / "results.json") == written
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert len(rows) == 6
    scored = next(row for row in rows if row["trial_id"] == "r4-01" and row["value"])
    assert (scored["value"], scored["delta"], scored["verdict"], scored["prompt"]) == (
        "0.4",
        "-0.1",
        "better",
        "",
    )
    assert {row["unscored"] for row in rows if row["prompt"] == PROMPTS[0]} == {"", "too few clips"}
    assert all(row["value"] != "0" for row in rows)


def test_results_without_the_rest_of_their_run_are_read_as_they_are(tmp_path: Path) -> None:
    trial = {
        "id": "z-01",
        "name": "zero-shot",
        "kind": "zero-shot",
        "train_seed": None,
        "state": "done",
        "scores": [],
    }
    write_json(tmp_path / "results.json", {"schema": 1, "name": "alone", "complete": True, "trials": [trial]})
    results = gather_results(tmp_path)
    assert results.name == "alone"
    assert results.trials[0].unscored == ()


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        ({"spec": {"name": "../elsewhere"}, "trials": []}, "`name` is '../elsewhere', expected a name"),
        ({"name": 3, "trials": []}, "`name` is 3, expected text"),
        (
            {"trials": [{"id": "a", "kind": "odd"}]},
            "`trials[0].kind` is 'odd', expected 'zero-shot', 'fine-tuned' or 'external'",
        ),
        (
            {"trials": [{"id": "a", "generation": {"clip_s": float("inf")}}]},
            "`trials[0].generation.clip_s` is inf",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_one_error_that_names_the_file(
    plan: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(StoreError, match=r"plan\.json: not in the form of a run") as caught:
        gather_results(tmp_path)
    assert problem in str(caught.value)


def test_a_score_whose_record_is_damaged_is_missing_and_the_others_stay(tmp_path: Path) -> None:
    write_plan(tmp_path, plan_trial("zero-shot-01", "zero-shot"))
    folder = write_done(tmp_path, "zero-shot-01", all_scores())
    text = (folder / "scores.json").read_text().replace('"se": null', '"se": "wide"', 1)
    (folder / "scores.json").write_text(text)
    results = gather_results(tmp_path)
    (gap,) = results.trials[0].unscored
    assert (gap.prompt, gap.cause, len(results.trials[0].scores)) == (PROMPTS[0], "missing", 2)
    assert "damaged" in gap.reason
    assert results.complete is False
