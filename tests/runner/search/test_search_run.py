"""A searched experiment from spec to report: trained, scored, judged by a metric, and told as what it is."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.chaos_lives import NAME, describe_chaos, live

from lora_bench.cli import main as cli
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.spec import ExperimentSpec

pytestmark = pytest.mark.skipif(find_spec("optuna") is None, reason="optuna is not installed")


def plan_searched(root: Path, objective: str, **fields: Any) -> ExperimentPlan:
    """Two of four combinations, the baseline among them, judged by this objective."""
    spec = describe_chaos(root, n_clips=2, n_variants=1)
    axes = {"lora.rank": [1, 2], "train.lr": [1e-3, 1e-2]}
    changed = {
        "trials": {"grid": {"axes": axes, "name": "r{lora.rank}-{train.lr}"}},
        "baseline": "r1-0.001",
        "search": {"optuna": {"n_trials": 2, "objective": objective}, **fields},
    }
    return plan_experiment(ExperimentSpec.model_validate({**spec, **changed}))


def study_best(root: Path) -> dict[str, Any]:
    study = json.loads((root / "runs" / NAME / "study.json").read_text(encoding="utf-8"))
    return study["metrics"][0]["best"]


def test_a_searched_experiment_is_complete_with_what_was_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_searched(tmp_path, "encodec")
    assert live(plan, tmp_path) == 0
    results = json.loads((tmp_path / "runs" / NAME / "results.json").read_text(encoding="utf-8"))
    states = {trial["name"]: trial["state"] for trial in results["trials"]}
    assert states["zero-shot"] == states["r1-0.001"] == "done"
    assert sorted(states.values()) == ["done", "done", "done", "untried", "untried"]
    untried = [name for name, state in states.items() if state == "untried"]
    files = [tmp_path / "reports" / NAME / name for name in ("report.md", "details.md")]
    report = "".join(file.read_text(encoding="utf-8") for file in files)
    assert "A search (Optuna, by encodec on the selection tracks) tried 2 of 4 combinations" in report
    assert results["dataset"]["selection"]["n_tracks"] == 1
    for trial in results["trials"]:
        sides = [
            {score["provenance"].get("side") for score in trial.get(key, ())}
            for key in ("scores", "selection")
        ]
        assert sides == ([set(), set()] if trial["state"] == "untried" else [{None}, {"selection"}])
    best = study_best(tmp_path)
    assert (best["side"], best["n_candidates"]) == ("selection", 2)
    assert not any(name in report for name in untried)
    assert "What is missing" not in report
    study = json.loads((tmp_path / "runs" / NAME / "study.json").read_text(encoding="utf-8"))
    assert any("not of a balanced one" in note for note in study["notes"])
    assert not any("have no score" in note for metric in study["metrics"] for note in metric["notes"])
    before = sorted((tmp_path / "runs" / NAME / "trials").iterdir())
    assert live(plan, tmp_path) == 0
    assert sorted((tmp_path / "runs" / NAME / "trials").iterdir()) == before
    spec = tmp_path / "t.yaml"
    spec.write_text(json.dumps({**json.loads(plan.spec.model_dump_json(by_alias=True))}), encoding="utf-8")
    capsys.readouterr()
    assert cli.main(["plan", str(spec), "--runs-dir", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert said.count("not tried: it is not among the 2 that the search chose") == 2
    assert "4 fine-tuned trials (a search tries 2 of 4)" in said
    assert "; 0 to run, 3 done" in said
    assert "tracks to train on, 1 to select by (" in said


def test_a_search_and_early_stopping_go_together(tmp_path: Path) -> None:
    plan = plan_searched(tmp_path, "held_out_loss", early_stopping={"grace_steps": 4, "reduction": 2.0})
    assert live(plan, tmp_path) == 0
    results = json.loads((tmp_path / "runs" / NAME / "results.json").read_text(encoding="utf-8"))
    states = [trial["state"] for trial in results["trials"]]
    assert states.count("untried") == 2
    assert states.count("done") + states.count("stopped") == 3
