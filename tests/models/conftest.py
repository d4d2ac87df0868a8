from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.random_model import TINY, TINY_STEREO, save_random_musicgen
from lora_bench.audio.librosa_import import load_librosa
from lora_bench.models import load_model
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import LoraSpec, ModelSpec

load_librosa()  # the tests import audiocraft themselves, and it imports librosa


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_musicgen(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="session")
def stereo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_musicgen(tmp_path_factory.mktemp("stereo"), TINY_STEREO)


@pytest.fixture(scope="session")
def _tiny(tiny_folder: Path) -> TransformersMusicGen:
    return load_model(ModelSpec(id=str(tiny_folder)), device="cpu")


@pytest.fixture
def tiny(_tiny: TransformersMusicGen) -> TransformersMusicGen:
    """A tiny model without an adapter."""
    _tiny.remove_adapter()
    _tiny.set_training(False)
    return _tiny


@pytest.fixture(scope="session")
def _stereo(stereo_folder: Path) -> TransformersMusicGen:
    return load_model(ModelSpec(id=str(stereo_folder)), device="cpu")


@pytest.fixture
def stereo(_stereo: TransformersMusicGen) -> TransformersMusicGen:
    _stereo.remove_adapter()
    return _stereo


@pytest.fixture
def add_adapter() -> Callable[[TransformersMusicGen, LoraSpec], None]:
    """Injects an adapter whose update is not zero."""

    def add(model: TransformersMusicGen, lora: LoraSpec) -> None:
        model.inject_lora(lora, seed=0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.adapter_parameters().values():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)

    return add


@pytest.fixture
def by_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders whose steps are not compiled, as for shapes that the compiled ones do not have."""
    monkeypatch.setattr("lora_bench.models.decoding.small_batch_step.can_stream", lambda _: False)
