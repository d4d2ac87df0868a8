"""The presets per GPU size keep the memory that they state, by the estimate from shapes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import ROOT

from benchmarks.gpu_presets import write_table
from lora_bench.forecast import Forecaster, History, StagePeaks
from lora_bench.forecast.cards import Card
from lora_bench.forecast.stage_memory import CONTEXT_GIB
from lora_bench.planning.plan import plan_file
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.spec import load_spec

BASES = ROOT / "specs" / "base"
SIZES_GB = (12, 24, 48, 80)
MARGIN = 1.2
"""Of the estimate of training: for what allocators hold in vain, and the workspaces of CUDA's libraries."""
SMALL_STUDIES = ("maplestory.yaml", "musicgen_small/rank_ablation.yaml")
"""Shipped specs for a GPU of 12 GB or more."""
EFFECTIVE_BATCH = 8
OWN = """
schema: 1
extends: [{parents}]
dataset: {{path: music}}
prompts: [calm music]
trials: {{variants: [{{name: large, lora: {{rank: 64, targets: all}}}}]}}
"""


def read_text(size_gb: int) -> str:
    return (BASES / f"gpu_{size_gb}gb.yaml").read_text(encoding="utf-8")


def plan_preset(folder: Path, size_gb: int, overrides: str = "", *, over: str = "") -> TrialPlan:
    """A trial with the largest adapter that the presets speak of, in a spec that extends one."""
    parents = [str(BASES / name) for name in (over, f"gpu_{size_gb}gb.yaml") if name]
    spec = folder / "own.yaml"
    spec.write_text(OWN.format(parents=", ".join(parents)), encoding="utf-8")
    plan = plan_file(load_spec(spec, [text.strip() for text in overrides.split("-o") if text.strip()]))
    assert plan.spec.resources.gpu == 1
    (trial,) = [trial for trial in plan.trials if trial.kind == "fine-tuned" and trial.train_seed == 0]
    return trial


def estimate(trial: TrialPlan, size_gb: int) -> StagePeaks:
    found = Forecaster(History(()), card=Card("preset", size_gb, 1, 1, 1)).predict(trial)
    assert found.memory_origin == "shapes"
    assert found.stages is not None
    return found.stages


def fits(stages: StagePeaks, size_gb: int) -> bool:
    """Whether training keeps its margin; other stages choose their batches by the free memory, or halve them."""
    assert stages.training is not None
    is_trained = stages.training <= compute_budget_gib(size_gb)
    return is_trained and stages.peak_gib + CONTEXT_GIB <= size_gb * 1e9 / 2**30


def compute_budget_gib(size_gb: int) -> float:
    """What the estimate may be: decimal gigabytes, which no GPU of that name falls below."""
    return (size_gb * 1e9 / 2**30 - CONTEXT_GIB) / MARGIN


def test_presets_are_counted() -> None:
    assert {path.name for path in BASES.glob("gpu_*.yaml")} == {f"gpu_{size}gb.yaml" for size in SIZES_GB}


@pytest.mark.parametrize("size_gb", SIZES_GB)
def test_a_preset_keeps_its_memory_and_states_it(size_gb: int, tmp_path: Path) -> None:
    found = estimate(plan_preset(tmp_path, size_gb), size_gb)
    assert fits(found, size_gb)
    text = " ".join(read_text(size_gb).split()).replace("# ", "")
    assert f"Memory: {found.training:.1f} GiB at most in training" in text
    assert (
        f"decoded {found.n_clips} at once, {found.decoding:.1f} GiB, and come to {found.sound:.1f} GiB"
        in text
    )


@pytest.mark.parametrize("size_gb", SIZES_GB)
def test_what_a_preset_says_also_fits_does(size_gb: int, tmp_path: Path) -> None:
    alternatives = re.findall(r"^#   (-o model.*)$", read_text(size_gb), re.MULTILINE)
    assert alternatives
    for overrides in alternatives:
        trial = plan_preset(tmp_path, size_gb, overrides)
        assert fits(estimate(trial, size_gb), size_gb), overrides
        assert trial.train is not None
        assert trial.train.batch_size * trial.train.grad_accumulation == EFFECTIVE_BATCH


@pytest.mark.parametrize("size_gb", SIZES_GB)
def test_a_preset_checkpoints_another_model_where_it_must(size_gb: int, tmp_path: Path) -> None:
    """On its own GPU a preset's own model does without."""
    needed = {12: "medium", 24: "large"}
    forecaster = Forecaster(History(()), card=Card("preset", size_gb, 1, 1, 1))
    alternatives = re.findall(r"^#   (-o model.*)$", read_text(size_gb), re.MULTILINE)
    for overrides in ("", *alternatives):
        found = forecaster.predict(plan_preset(tmp_path, size_gb, overrides)).checkpointing
        assert found is not None
        model = re.search(r"musicgen-(\w+)", overrides)
        assert found.is_on is (model is not None and model[1] == needed.get(size_gb)), overrides


@pytest.mark.parametrize("name", SMALL_STUDIES)
def test_studies_on_musicgen_small_fit_into_12_gb_and_do_not_checkpoint_on_80(name: str) -> None:
    trials = plan_file(load_spec(ROOT / "specs" / name, [])).trials
    for size_gb, is_on in ((12, name == "maplestory.yaml"), (80, False)):
        forecaster = Forecaster(History(()), card=Card("card", size_gb, 1, 1, 1))
        found = [forecaster.predict(trial) for trial in trials if trial.train is not None]
        assert found
        assert {each.checkpointing.is_on for each in found if each.checkpointing is not None} == {is_on}
        assert all(each.stages is not None and fits(each.stages, size_gb) for each in found)


@pytest.mark.parametrize("size_gb", SIZES_GB)
def test_results_are_comparable_between_presets(size_gb: int, tmp_path: Path) -> None:
    trial, first = plan_preset(tmp_path, size_gb), plan_preset(tmp_path, SIZES_GB[0])
    assert trial.train is not None
    assert first.train is not None
    assert trial.train.batch_size * trial.train.grad_accumulation == EFFECTIVE_BATCH
    passes = {"batch_size": 1, "grad_accumulation": 1}
    assert trial.train.model_copy(update=passes) == first.train.model_copy(update=passes)
    assert (trial.model.dtype, trial.dataset.clip_s) == (first.model.dtype, first.dataset.clip_s)


@pytest.mark.parametrize("size_gb", SIZES_GB)
def test_a_preset_over_a_study_decides_on_model_and_passes(size_gb: int, tmp_path: Path) -> None:
    alone, over = (
        plan_preset(tmp_path, size_gb),
        plan_preset(tmp_path, size_gb, over="musicgen_small_study.yaml"),
    )
    assert over.model.id == alone.model.id
    assert over.train is not None
    assert alone.train is not None
    assert over.train.batch_size == alone.train.batch_size
    assert over.train.gradient_checkpointing == alone.train.gradient_checkpointing
    assert over.train.steps == 600  # the study's


def test_the_table_of_the_documents_is_that_of_the_forecast() -> None:
    assert write_table() in (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("size_gb", SIZES_GB)
def test_a_preset_says_that_it_is_an_estimate(size_gb: int) -> None:
    text = read_text(size_gb)
    assert "ESTIMATE FROM SHAPES" in text
    assert "NO GPU HAS RUN THIS PRESET" in text
    assert f"{MARGIN:g} times" in text
