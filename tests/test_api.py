"""The functions that the package shows to Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_experiment import SPEC, write_music

import lora_bench
from lora_bench.errors import SpecError


def test_five_lines_run_an_experiment(tmp_path: Path) -> None:
    write_music(tmp_path / "music")
    (tmp_path / "tiny.yaml").write_text(SPEC, encoding="utf-8")
    plan = lora_bench.plan_experiment(
        lora_bench.load_spec(tmp_path / "tiny.yaml", ["metrics=[mfcc20-seed]", "generation.n_clips=2"])
    )
    outcome = lora_bench.run_experiment(plan, runs_dir=tmp_path / "runs", reports_dir=tmp_path / "reports")
    assert outcome.is_complete
    assert (outcome.run_folder / "results.json").is_file()
    assert outcome.report.is_file()
    table = lora_bench.load_results(outcome.run_folder)
    results = json.loads((outcome.run_folder / "results.json").read_text(encoding="utf-8"))
    scores = {
        (trial["id"], score["metric"], score["prompt"]): score["value"]
        for trial in results["trials"]
        for score in trial["scores"]
    }
    found_scores = {
        (row["trial_id"], row["metric"], row["prompt"]): row["value"]
        for row in table.astype(object).where(table.notna(), None).to_dict("records")
    }
    assert {place: value for place, value in found_scores.items() if value is not None} == scores
    assert len(scores) >= 4
    assert table.equals(lora_bench.load_results(outcome.report.parent))
    found = lora_bench.score_folders(tmp_path / "music", tmp_path / "music", ["mfcc20-seed"])
    assert found.scores[0].metric == "mfcc20-seed"
    assert found.scores[0].value == pytest.approx(0.0, abs=1e-6)
    assert found.checks is not None
    assert found.checks.guards.generated is not None
    assert list(found.to_json())[:4] == ["schema", "reference", "generated", "clip_s"]


def test_shipped_specs_load_by_name_and_wrong_ones_say_where(tmp_path: Path) -> None:
    assert lora_bench.plan_experiment(lora_bench.load_spec("quickstart")).name == "quickstart"
    (tmp_path / "x.yaml").write_text("schema: 1\nname: x\nprompt: [a]\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"x\.yaml:3:1: .*did you mean `prompts`"):
        lora_bench.load_spec(tmp_path / "x.yaml")


def test_importing_the_package_and_its_functions_starts_light() -> None:
    code = (
        "import sys, lora_bench; lora_bench.plan_experiment(lora_bench.load_spec('quickstart'));"
        "print([name for name in ('torch', 'ray', 'transformers', 'librosa') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_name_of_the_package_is_there_and_another_is_an_attribute_error() -> None:
    assert all(getattr(lora_bench, name) for name in lora_bench.__all__)
    assert lora_bench.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        lora_bench.load  # noqa: B018
