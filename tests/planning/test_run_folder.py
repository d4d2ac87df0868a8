from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from lora_bench.planning.run_folder import ReportFolder, RunFolder, SourceFolder, TrialFolder

RUN = RunFolder(Path("runs/demo"))


def test_an_attribute_is_a_path_on_a_folder_and_a_name_on_its_class() -> None:
    assert RUN.plan == Path("runs/demo/plan.json")
    assert RunFolder.plan == "plan.json"
    assert ReportFolder(Path("reports/demo")).page == Path("reports/demo/report.html")


def test_a_trial_lies_in_its_run_and_knows_it() -> None:
    trial = RUN.trial("rank-8-0a1b2c3d")
    assert trial.state == Path("runs/demo/trials/rank-8-0a1b2c3d/state.json")
    assert trial.checkpoint_state.parent == trial.checkpoint
    assert trial.embeddings("clap").prompt("drums") == trial.path / "embeddings/clap/drums.npz"
    assert trial.embeddings("clap").texts == trial.path / "embeddings/clap/texts.npz"
    assert trial.run == RUN


def test_the_first_source_lies_in_the_run_itself() -> None:
    assert RUN.source(Path()).dataset == Path("runs/demo/dataset.json")
    assert RUN.source(Path("data/folk-1a2b3c4d")).floors == Path("runs/demo/data/folk-1a2b3c4d/floors.json")


def test_folders_are_listed_without_drafts_and_files(tmp_path: Path) -> None:
    for name in ("trials/b", "trials/a", "trials/.a.x1y2z3w4", "data/folk-1a2b3c4d", "data/.folk.x1y2z3w4"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "trials/notes.txt").touch()
    run = RunFolder(tmp_path)
    assert run.list_trials() == [run.trial("a"), run.trial("b")]
    assert run.list_sources() == [SourceFolder(tmp_path), SourceFolder(tmp_path / "data/folk-1a2b3c4d")]
    assert RunFolder(tmp_path / "absent").list_trials() == []


def test_a_run_has_a_plan_or_results(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not run.is_run
    run.results.touch()
    assert run.is_run


def test_a_trial_is_scored_when_both_files_are_there(tmp_path: Path) -> None:
    trial = TrialFolder(tmp_path)
    trial.scores.touch()
    assert not trial.is_scored
    trial.guards.touch()
    assert trial.is_scored


def test_a_folder_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        RUN.path = Path("runs/other")  # type: ignore[misc]


def test_the_names_come_without_pydantic_and_torch() -> None:
    code = "import sys, lora_bench.planning.run_folder; print({'pydantic', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
