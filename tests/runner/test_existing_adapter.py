"""Runs of adapters that exist already: scored without a training, noticed when replaced, refused when they do not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_experiment import results, run, write_music

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.cli.main import main
from lora_bench.models import load_model
from lora_bench.planning.plan import plan_file
from lora_bench.planning.run_folder import RunFolder
from lora_bench.results.run_files import PlannedTrial
from lora_bench.results.trial import gather_trial
from lora_bench.runner.existing_adapter import take_adapter
from lora_bench.runner.freshness import inputs_key
from lora_bench.spec.loading import load_spec
from lora_bench.spec.schema import LoraSpec, ModelSpec
from lora_bench.store import to_jsonable

WEIGHTS = "adapter_model.safetensors"
SPEC = """
schema: 1
name: tiny
model: {id: ./model}
dataset: {path: music, captions: {text: chiptune}, clip_s: 2, split: {eval_frac: 0.5}}
prompts: ["chiptune game loop"]
generation: {n_clips: 3, clip_s: 2}
metrics: [mfcc20]
trials: {variants: [{name: mine, lora: {path: adapter}}]}
"""


def save_adapter(place: Path, seed: int, **settings: Any) -> None:
    if not (place / "model").is_dir():
        save_random_musicgen(place / "model", TINY)
    model = load_model(ModelSpec(id=str(place / "model")), device="cpu")
    model.inject_lora(LoraSpec.model_validate({"rank": 4, **settings}), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.adapter_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    model.save_adapter(place / "adapter")


def read_codes(place: Path) -> bytes:
    (folder,) = (place / "runs" / "tiny" / "trials").glob("mine-*")
    return b"".join(path.read_bytes() for path in sorted((folder / "codes").rglob("*.npy")))


@pytest.mark.slow
def test_an_existing_adapter_is_scored_compared_and_reported_and_its_replacement_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_adapter(tmp_path, seed=0)
    before = {path: path.read_bytes() for path in (tmp_path / "adapter").iterdir()}
    assert run(tmp_path, "--quiet", spec=SPEC) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "adapter").iterdir()} == before
    trial = results(tmp_path)["trials"][1]
    assert trial["lora"] == {
        "path": (tmp_path / "adapter").as_posix(), "kind": "lora", "rank": 4, "alpha": 8, "targets": "attention",
    }  # fmt: skip
    assert (trial["train"], trial["train_seed"], trial["trainable_params"]) == (None, None, 0)
    assert trial["n_params"] == 8192
    assert "train" not in trial["wall_s"]
    assert results(tmp_path)["contrasts"][0]["against"] == "zero-shot"
    details = (tmp_path / "reports" / "tiny" / "details.md").read_text(encoding="utf-8")
    assert "existing adapter of kind lora" in details
    assert re.search(r"\| mine \| .*\| this adapter \|", details)
    report = (tmp_path / "reports" / "tiny" / "report.md").read_text(encoding="utf-8")
    assert "1 existing adapter" in report
    assert "training seed" not in report.partition("## Effects")[0]

    folder = tmp_path / "runs" / "tiny"
    assert main(["export", str(folder), "--trial", "mine", "--to", str(tmp_path / "out")]) == 0
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "The adapter was not trained in this run" in card

    first = read_codes(tmp_path)
    save_adapter(tmp_path, seed=1, kind="loha")
    capsys.readouterr()
    options = ["--runs-dir", str(tmp_path / "runs")]
    assert main(["plan", str(tmp_path / "tiny.yaml"), *options]) == 0
    assert "done before, now the adapter's files have changed" in capsys.readouterr().out
    assert run(tmp_path, "--quiet", spec=SPEC) == 0
    assert read_codes(tmp_path) != first
    assert results(tmp_path)["trials"][1]["lora"]["kind"] == "loha"


def test_a_trial_takes_a_copy_and_another_one_when_the_files_change(tmp_path: Path) -> None:
    save_adapter(tmp_path, seed=0)
    (tmp_path / "tiny.yaml").write_text(SPEC, encoding="utf-8")
    trial = plan_file(load_spec(tmp_path / "tiny.yaml")).trials[1]
    model = load_model(trial.model, device="cpu")
    folder = RunFolder(tmp_path / "runs" / "tiny").trial(trial.id)
    assert trial.existing_adapter is not None
    keys: list[str] = []
    for seed, kind in ((0, "lora"), (1, "loha")):
        save_adapter(tmp_path, seed, kind=kind)
        before = {path: path.read_bytes() for path in (tmp_path / "adapter").iterdir()}
        keys.append(inputs_key(trial))
        take_adapter(trial, trial.existing_adapter, model, folder.path)
        assert {path: path.read_bytes() for path in (tmp_path / "adapter").iterdir()} == before
        assert (folder.adapter / WEIGHTS).read_bytes() == before[tmp_path / "adapter" / WEIGHTS]
        planned = PlannedTrial.model_validate(to_jsonable(trial))
        result = gather_trial(folder, planned, {}, trial.zero_shot)
        n_params = sum(parameter.numel() for parameter in model.adapter_parameters().values())
        assert (result.trainable_params, result.n_params) == (0, n_params)
        assert (result.lora or {})["kind"] == kind
        assert (result.lora or {})["targets"] == "attention"
        assert result.adapter is not None
    assert keys[0] != keys[1]
    assert keys[1] == inputs_key(trial)


def test_adapters_that_do_not_fit_are_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_music(tmp_path / "music")
    save_adapter(tmp_path, seed=0)
    (tmp_path / "plain").mkdir()
    text = SPEC.replace("./model", "pocket").replace("[{", "[{name: empty, lora: {path: plain}}, {")
    assert run(tmp_path, spec=text) == 2
    said = capsys.readouterr().err
    assert "tiny.yaml:9:" in said
    assert "adapter_config.json is missing; expected an adapter as PEFT's save_pretrained writes it" in said
    assert re.search(
        r"16 of its 16 modules are not in pocket, or have other sizes there: `decoder.model", said
    )
    assert not (tmp_path / "runs").exists()


def test_a_merging_kind_needs_float32_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_music(tmp_path / "music")
    save_adapter(tmp_path, seed=0, kind="loha")
    text = SPEC.replace("{id: ./model}", "{id: ./model, dtype: bfloat16}")
    assert run(tmp_path, spec=text) == 2
    assert "the update of kind `loha` is merged into the weights" in capsys.readouterr().err
