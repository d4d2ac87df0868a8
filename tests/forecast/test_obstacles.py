"""What `plan` knows of models that no backend can run, without loading them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.random_model import TINY, build_random_musicgen, build_tokenizer
from lora_bench.cli.main import main
from lora_bench.forecast import find_obstacle
from lora_bench.models.bridges.exports import write_export
from lora_bench.models.bridges.parts import take_apart
from lora_bench.spec.schema import ModelSpec

SPEC = """
schema: 1
name: t
model: {{id: {folder}, backend: {backend}}}
dataset: {{builtin: chiptune}}
prompts: [a]
trials: {{variants: [{{name: r4, lora: {{rank: 4}}}}]}}
"""
MELODY = {
    "conditioners": {
        "self_wav": {"model": "chroma_stem"},
        "description": {"model": "t5", "t5": {"name": "t5-base", "finetune": False}},
    },
    "fuser": {"cross": [], "prepend": ["self_wav", "description"], "sum": [], "input_interpolate": []},
}


@pytest.fixture(scope="module")
def export_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_export(take_apart(build_random_musicgen(TINY), build_tokenizer()), folder)
    return folder


@pytest.fixture
def melody_folder(export_folder: Path, tmp_path: Path) -> Path:
    """An export whose config says melody, as audiocraft's own does."""
    package = torch.load(export_folder / "state_dict.bin", weights_only=True)
    package["xp.cfg"] = yaml.safe_dump(yaml.safe_load(package["xp.cfg"]) | MELODY, sort_keys=False)
    torch.save(package, tmp_path / "state_dict.bin")
    return tmp_path


def save_config(folder: Path, kind: str) -> ModelSpec:
    (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    return ModelSpec(id=str(folder))


def test_nothing_speaks_against_models_that_are_supported_or_not_here(
    export_folder: Path, tmp_path: Path
) -> None:
    assert find_obstacle(ModelSpec()) is None
    assert find_obstacle(ModelSpec(id="facebook/musicgen-small")) is None
    assert find_obstacle(ModelSpec(id=str(tmp_path / "nowhere"))) is None
    assert find_obstacle(save_config(tmp_path, "musicgen")) is None
    pytest.importorskip("audiocraft", reason="the audiocraft extra is not installed")
    assert find_obstacle(ModelSpec(id=str(export_folder), backend="audiocraft")) is None


def test_a_melody_model_is_refused_on_audiocraft_only(tmp_path: Path) -> None:
    pytest.importorskip("audiocraft", reason="the audiocraft extra is not installed")
    model = save_config(tmp_path, "musicgen_melody")
    assert find_obstacle(model) is None
    found = find_obstacle(model.model_copy(update={"backend": "audiocraft"}))
    assert (
        found
        == "it is a melody model, which runs in transformers' form only; leave out model.backend audiocraft"
    )


def test_a_model_of_another_kind_is_named(tmp_path: Path) -> None:
    assert "is of type 't5'" in str(find_obstacle(save_config(tmp_path, "t5")))


def test_audiocrafts_form_on_the_other_backend_is_named(export_folder: Path) -> None:
    assert "use model.backend audiocraft" in str(find_obstacle(ModelSpec(id=str(export_folder))))


def test_a_missing_audiocraft_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "audiocraft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "audiocraft", None)
    assert "not installed" in str(find_obstacle(ModelSpec(backend="audiocraft")))
    assert find_obstacle(ModelSpec()) is None


def test_plan_warns_of_a_melody_export_once(
    melody_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("audiocraft", reason="the audiocraft extra is not installed")
    spec = tmp_path / "t.yaml"
    spec.write_text(SPEC.format(folder=melody_folder, backend="audiocraft"), encoding="utf-8")
    assert main(["plan", str(spec), "--runs-dir", str(tmp_path / "runs")]) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    stated = (
        f"warning: {melody_folder}: its conditioners are self_wav (chroma_stem), description (t5), and only"
    )
    assert warnings[0].startswith(stated)
    assert warnings[0].endswith("; its trials would fail")
