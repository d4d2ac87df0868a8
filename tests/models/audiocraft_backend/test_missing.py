"""Without audiocraft: a clear word, and everything else goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lora_bench.errors import ModelError
from lora_bench.models import load_model
from lora_bench.models.audiocraft_library import require_audiocraft
from lora_bench.spec.schema import ModelSpec


def test_missing_audiocraft_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "audiocraft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "audiocraft", None)
    with pytest.raises(
        ModelError, match=r"model\.backend: audiocraft.*`uv sync --inexact --extra audiocraft`"
    ):
        load_model(ModelSpec(backend="audiocraft"), device="cpu")


def test_audiocraft_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "audiocraft"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('compiled for another torch')\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "audiocraft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot be imported \(compiled for another torch\).*uv sync"):
        require_audiocraft()
