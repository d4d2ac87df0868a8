"""Notes of a plan on too few reference tracks."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_bench.cli.main import main
from lora_bench.forecast.held_out import describe_few_tracks
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.spec.experiment import ExperimentSpec


def make_plan(dataset: dict[str, object], metric: str = "mfcc20") -> ExperimentPlan:
    return plan_experiment(
        ExperimentSpec.model_validate(
            {
                "schema": 1, "name": "few", "dataset": dataset, "prompts": ["march"], "metrics": [metric],
                "trials": {"variants": [{"name": "plain"}]},
            }
        )
    )  # fmt: skip


@pytest.fixture
def music(tmp_path: Path) -> Path:
    for number in range(8):
        (tmp_path / f"{number}.wav").touch()
    return tmp_path


def test_two_reference_tracks_allow_no_verdict_on_a_kernel_distance(music: Path) -> None:
    (line,) = describe_few_tracks(make_plan({"path": music}, "mmd/mfcc20"))
    assert line.startswith(
        f"{music}: 2 of at most 8 tracks are references, which allow no verdict on `mmd/mfcc20`"
    )
    assert "at least 3" in line


def test_fewer_than_ten_reference_tracks_make_intervals_rough(music: Path) -> None:
    (line,) = describe_few_tracks(make_plan({"path": music, "split": {"eval_frac": 0.5}}))
    assert "4 of at most 8 tracks are references; intervals are rough and wide with fewer than 10" in line


def test_enough_tracks_unknown_data_and_text_scores_need_no_note(tmp_path: Path) -> None:
    assert describe_few_tracks(make_plan({"builtin": "chiptune", "split": {"eval_frac": 0.25}})) == []
    assert describe_few_tracks(make_plan({"path": tmp_path / "none"})) == []
    assert describe_few_tracks(make_plan({"builtin": "chiptune"}, "clap_score")) == []


def test_plan_prints_the_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "few.yaml"
    spec.write_text("schema: 1\ndataset: {builtin: chiptune, split: {eval_frac: 0.1}}\nprompts: [march]\n")
    assert main(["plan", str(spec), "--runs-dir", str(tmp_path)]) == 0
    assert "chiptune: 4 of at most 40 tracks are references" in capsys.readouterr().out
