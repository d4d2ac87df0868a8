"""`doctor --model`: what a model is, and what it lacks, without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lora_bench.cli.model_rehearsal import rehearse_model
from lora_bench.models.bridges.conversion import convert


def told(model_id: str) -> dict[str, str]:
    return {finding.name: finding.detail for finding in rehearse_model(model_id)}


def test_a_folder_is_loaded_and_described(tiny_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    (copy / "README.md").write_text("---\ntags: [music]\nlicense: cc-by-nc-4.0\n---\nA card.\n")
    found = told(str(copy))
    assert found["licence"] == "cc-by-nc-4.0"
    assert found["weights"].startswith("model.safetensors, 0.00 GiB, F32")
    assert found["loading"] == "loads offline, as in a run"
    assert "decoder " in found["parameters"]
    convert(str(copy), tmp_path / "export", library=None, adapter=None, base=None)
    export = told(str(tmp_path / "export"))
    assert export["identity"] == found["identity"]
    assert export["licence"] == "unknown (no README.md)"


def test_what_does_not_load_is_said_and_is_a_failure(tiny_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"nothing")
    *_, last = rehearse_model(str(copy))
    assert (last.name, last.ok, last.essential) == ("loading", False, True)
    assert "cannot be loaded" in last.detail


@pytest.mark.parametrize("model_id", ["facebook/musicgen-large", "someone/unheard-of"])
def test_a_model_that_is_not_cached_says_what_would_be_fetched(model_id: str) -> None:
    found = told(model_id)
    assert f"hf download {model_id}" in found[model_id]
    assert "config.json" in found["download"]
    assert ("GiB" in found["download"]) == (model_id == "facebook/musicgen-large")
    assert found["licence"].startswith("unknown")
