"""Runs of the base model alone: planned without an adapter, reported as such."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_experiment import results, run, write_music

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.cli.main import main
from lora_bench.errors import SpecError
from lora_bench.planning.plan import plan_file
from lora_bench.spec.loading import load_spec

SPEC = """
schema: 1
name: tiny
model: {id: ./model, dtype: bfloat16}
dataset: {path: music, captions: {text: chiptune}, clip_s: 2, split: {eval_frac: 0.5}}
prompts: ["chiptune game loop"]
generation: {n_clips: 2, clip_s: 0.5}
metrics: [encodec]
trials: {zero_shot_only: true}
"""
AXES = "trials: {zero_shot_only: true, grid: {axes: {generation.guidance: [1.0, 3.0], lora.rank: [2, 4]}}}"


def write(folder: Path, text: str) -> Path:
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    return folder / "tiny.yaml"


def test_the_base_model_alone_is_scored_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_random_musicgen(tmp_path / "model", TINY)
    assert run(tmp_path, "--quiet", spec=SPEC) == 0
    said = capsys.readouterr().out
    assert said.startswith("These are the scores of the base model alone: no adapter was asked for.\n")
    assert "Levels of encodec: zero-shot 0.0" in said
    assert [(trial["kind"], trial["state"]) for trial in results(tmp_path)["trials"]] == [
        ("zero-shot", "done")
    ]
    report = (tmp_path / "reports" / "tiny" / "report.md").read_text(encoding="utf-8")
    assert "# These are the scores of the base model alone: no adapter was asked for." in report
    assert "1 zero-shot row" in report
    assert "fine-tuned" not in report
    page = (tmp_path / "reports" / "tiny" / "report.html").read_text(encoding="utf-8")
    assert "<audio" in page or "data:audio" in page
    assert run(tmp_path, "--quiet", spec=SPEC) == 0


def test_axes_say_which_base_models_run_and_those_of_a_training_have_no_effect(tmp_path: Path) -> None:
    made = plan_file(load_spec(write(tmp_path, SPEC.replace("trials: {zero_shot_only: true}", AXES))))
    assert [trial.name for trial in made.trials] == ["zero-shot-1", "zero-shot-3"]
    assert {trial.kind for trial in made.trials} == {"zero-shot"}
    assert made.notes == (
        "`lora.rank` of guidance1-r2, guidance1-r4, guidance3-r2, guidance3-r4 has no effect: trials.zero_shot_only trains no adapter",
    )


def test_settings_of_a_training_that_variants_state_are_named(tmp_path: Path) -> None:
    variants = (
        "trials: {zero_shot_only: true, variants: [{name: plain}, {name: slow, train.lr: 0.1, lora: {rank: 2}}, "
        "{name: calm, generation.guidance: 1.0}]}"
    )
    made = plan_file(load_spec(write(tmp_path, SPEC.replace("trials: {zero_shot_only: true}", variants))))
    assert made.notes == tuple(
        f"`{field}` of slow has no effect: trials.zero_shot_only trains no adapter"
        for field in ("train.lr", "lora.rank")
    )


def test_validate_counts_the_base_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_music(tmp_path / "music")
    save_random_musicgen(tmp_path / "model", TINY)
    assert main(["validate", str(write(tmp_path, SPEC))]) == 0
    assert "ok, 1 zero-shot trial alone, 1 prompt, 2 clips each, 1 metric" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("search: {early_stopping: {grace_steps: 1}}", "`search`"),
        ("baseline: x\nablations: {low: {train.lr: 0.1}}", "`baseline` and `ablations`"),
    ],
)
def test_what_needs_an_adapter_is_refused(tmp_path: Path, more: str, named: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, f"{SPEC}{more}\n"))
    assert any(
        f"trials.zero_shot_only leaves no adapter to compare, but {named} would need one" in item.message
        for item in caught.value.problems
    ), [item.message for item in caught.value.problems]


def test_the_unused_field_is_absent_from_a_written_spec(tmp_path: Path) -> None:
    plain = load_spec(write(tmp_path, SPEC.replace("zero_shot_only: true", "variants: []"))).spec
    assert "zero_shot_only" not in plain.model_dump_json()
    assert len(plan_file(load_spec(tmp_path / "tiny.yaml")).trials) == 2
