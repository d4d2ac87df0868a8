"""The answer: its order, and the reasons why a configuration has no verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.fake_run import FakeRun, FakeTrial, contrast, zero_shot

from lora_bench.report.answer import Answer
from lora_bench.report.answer_lines import advise, describe_design, describe_lacks, describe_levels
from lora_bench.report.plots.forest import draw_forest
from lora_bench.report.plots.scores import draw_scores
from lora_bench.report.render import render_report
from lora_bench.report.sections.scores import metric_table
from lora_bench.report.view import RunView
from lora_bench.results.gather import gather_results


def read_answer(run: Path) -> Answer:
    return Answer(RunView(gather_results(run), run))


def write_sides(folder: Path, *, has_selection: bool) -> Path:
    """The greater change is not the one that is best on the selection tracks."""
    trials = [FakeTrial("r4"), FakeTrial("r8")]
    if has_selection:
        trials = [FakeTrial("r4", selection_base=0.7), FakeTrial("r8", selection_base=0.3)]
    changes = [
        contrast(trial, "mfcc20", None, "better", delta)
        for trial, delta in zip(trials, (-0.5, -0.2), strict=True)
    ]
    return FakeRun(trials=[zero_shot(), *trials], contrasts=changes).write(folder)


def test_selection_tracks_decide_the_order_and_the_report_says_so(tmp_path: Path) -> None:
    run = write_sides(tmp_path, has_selection=True)
    answer = read_answer(run)
    assert [row.configuration.name for row in answer.rows] == ["r8", "r4"]
    assert "r8, the best on the selection tracks, by" in answer.headline
    render_report(run, tmp_path / "reports")
    text = (tmp_path / "reports" / "invented" / "report.md").read_text(encoding="utf-8")
    assert "the best on the selection tracks first" in text


def test_without_selection_tracks_the_greatest_change_comes_first(tmp_path: Path) -> None:
    answer = read_answer(write_sides(tmp_path, has_selection=False))
    assert [row.configuration.name for row in answer.rows] == ["r4", "r8"]
    assert "selection" not in answer.headline


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("melody-agreement", "the agreement of clips with their melodies"),
        ("tag-adherence", "the adherence of clips to the tags of their prompts"),
        ("mean/audiobox-pq", "the rating of clips"),
    ],
)
def test_more_of_a_rating_is_better_and_the_headline_names_it(metric: str, said: str, tmp_path: Path) -> None:
    for verdict, delta, direction in (("better", 0.2, "up"), ("worse", -0.2, "down")):
        trial = FakeTrial("r4")
        change = contrast(trial, metric, None, verdict, delta)
        run = FakeRun(trials=[zero_shot(), trial], metrics=(metric,), contrasts=[change])
        answer = read_answer(run.write(tmp_path / verdict))
        assert re.match(rf"Fine-tuning moved {said} 0\.2\d* {direction}", answer.headline)
        for is_corrected in (True, False):
            caption = metric_table(answer.view, metric, is_corrected=is_corrected).caption
            assert caption == f"{metric} per prompt, mean over clips; higher is better"
        assert "corrected" not in describe_levels(answer)


def test_the_headline_names_no_margin_where_no_clip_scores_otherwise(tmp_path: Path) -> None:
    trial, metric = FakeTrial("a"), "melody-agreement"
    same = {"se": 0.0, "ci_low": 0.0, "ci_high": 0.0, "n_tracks": None}
    told = contrast(trial, metric, None, "equivalent", 0.0, **same)
    answer = read_answer(FakeRun([zero_shot(), trial], metrics=(metric,), contrasts=[told]).write(tmp_path))
    assert answer.headline == "Fine-tuning changes nothing: every clip scores the same as zero-shot's."


def test_a_configuration_has_one_colour_in_all_plots(tmp_path: Path) -> None:
    run = write_sides(tmp_path, has_selection=True)
    answer = read_answer(run)
    for figure in (draw_forest(answer), draw_scores(answer.view, answer.metric, "levels")):
        assert figure is not None
        dots = re.findall(r'<circle [^>]*fill="(#\w+)"[^>]*data-series="(r\d)"', str(figure.svg))
        assert set(dots) == {("#0072b2", "r4"), ("#d55e00", "r8")}


@pytest.mark.parametrize(("prompts", "n_rows"), [(["march"], 1), (["march", "waltz"], 3)])
def test_the_forest_shows_a_single_prompt_once(prompts: list[str], n_rows: int, tmp_path: Path) -> None:
    trial = FakeTrial("r4")
    changes = [contrast(trial, "mfcc20", prompt, "better") for prompt in (None, *prompts)]
    run = FakeRun(trials=[zero_shot(), trial], prompts=prompts, contrasts=changes).write(tmp_path)
    figure = draw_forest(read_answer(run))
    assert figure is not None
    assert str(figure.svg).count("<title>r4: ") == n_rows


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ({"tracks": 3, "minutes": None}, "8 training tracks (8 min), 3 of them used, 2 held-out"),
        (
            {"tracks": None, "minutes": 2.5},
            "8 training tracks (8 min), about 2.5 min of them used, 2 held-out",
        ),
        ({"tracks": "all", "minutes": None}, "8 training tracks (8 min), 2 held-out"),
        (None, "8 training tracks (8 min), 2 held-out"),
    ],
)
def test_the_design_tells_the_part_of_the_training_tracks_that_is_used(
    tmp_path: Path, size: dict[str, Any] | None, said: str
) -> None:
    run = FakeRun().write(tmp_path)
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    plan["spec"]["dataset"]["size"] = size
    (run / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    assert said in describe_design(read_answer(run))


@pytest.mark.parametrize(("duration_s", "said"), [(17.6, "(18 s)"), (60.0, "(1 min)"), (5430.0, "(90 min)")])
def test_the_design_tells_short_music_in_seconds(tmp_path: Path, duration_s: float, said: str) -> None:
    run = FakeRun().write(tmp_path)
    answer = read_answer(run)
    dataset = answer.view.results.dataset
    assert dataset.train is not None
    train = dataset.train.model_copy(update={"duration_s": duration_s})
    results = answer.view.results.model_copy(update={"dataset": dataset.model_copy(update={"train": train})})
    assert f"8 training tracks {said}, 2 held-out" in describe_design(Answer(RunView(results, run)))


@pytest.mark.parametrize(
    ("n_clips", "n_tracks", "said"),
    [(10, 10, None), (6, 2, "6 clips per prompt and 2 held-out tracks"), (10, 9, "9 held-out tracks")],
)
def test_few_clips_and_tracks_are_named_next_to_the_verdicts(
    tmp_path: Path, n_clips: int, n_tracks: int, said: str | None
) -> None:
    run = write_sides(tmp_path, has_selection=False)
    results = gather_results(run)
    assert results.dataset.eval is not None
    held_out = results.dataset.eval.model_copy(update={"n_tracks": n_tracks})
    spec = {**results.spec, "generation": {"n_clips": n_clips}}
    changed = {"dataset": results.dataset.model_copy(update={"eval": held_out}), "spec": spec}
    advice = " ".join(advise(Answer(RunView(results.model_copy(update=changed), run))))
    assert ("rough" in advice) is bool(said)
    assert said is None or f"Intervals and verdicts are rough with {said}; 10 or more are better." in advice


def test_a_configuration_without_a_verdict_tells_why(tmp_path: Path) -> None:
    trials = [
        FakeTrial("r4"),
        FakeTrial("r8", state="failed", reason="the loss is not finite", has_scores=False),
        FakeTrial("r16"),
    ]
    known = contrast(trials[0], "mfcc20", None, "better")
    run = FakeRun(trials=[zero_shot(), *trials], contrasts=[known]).write(tmp_path)
    line = describe_lacks(read_answer(run))
    assert "r8 (failed: the loss is not finite)" in line
    assert "r16 (no comparison was written; resume the run)" in line
    assert "r4" not in line


def test_a_failed_zero_shot_trial_is_the_reason_of_what_it_leaves_uncompared(tmp_path: Path) -> None:
    base = FakeTrial("zero-shot", "zero-shot", None, "failed", "the disk is full", has_scores=False)
    run = FakeRun(trials=[base, FakeTrial("r4")]).write(tmp_path)
    assert "r4 (zero-shot failed: the disk is full)" in describe_lacks(read_answer(run))


def test_no_reason_is_given_where_all_have_verdicts(tmp_path: Path) -> None:
    assert describe_lacks(read_answer(write_sides(tmp_path, has_selection=False))) == ""


def test_levels_are_called_corrected_only_if_every_value_is(tmp_path: Path) -> None:
    run = FakeRun(bias=0.2).write(tmp_path)  # the reference levels are not
    assert "corrected" not in describe_levels(read_answer(run))


def test_results_of_an_earlier_version_have_values_in_place_of_verdicts(tmp_path: Path) -> None:
    trials = [FakeTrial("r4", base=0.5), FakeTrial("r8", base=0.3)]
    run = FakeRun(trials=[zero_shot(), *trials], contrasts=[contrast(trials[0], "mfcc20", None, "better")])
    render_report(run.write(tmp_path / "runs"), tmp_path / "now")
    old = json.loads((tmp_path / "now" / "invented" / "results.json").read_text(encoding="utf-8"))
    old |= {"schema": 1, "contrasts": [], "missing_contrasts": []}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "results.json").write_text(json.dumps(old), encoding="utf-8")
    render_report(tmp_path / "old", tmp_path / "reports")
    text = (
        (tmp_path / "reports" / "invented" / "report.md").read_text(encoding="utf-8").replace("\u00a0", " ")
    )
    assert text.startswith(
        "# These results are of an earlier version, without today's verdicts; run the spec again"
    )
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| **r")]
    assert [row[0].strip("| *") for row in rows] == ["r8", "r4"]  # the best first
    assert [row[1:3] for row in rows] == [
        ["not compared", "0.500 ± 0.020"],
        ["not compared", "0.700 ± 0.020"],
    ]
    assert "Without a verdict: r8 and r4 (results of an earlier version; run the spec again)." in text
