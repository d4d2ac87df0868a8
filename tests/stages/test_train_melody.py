"""Training a melody model: resumed, checkpointed and in smaller passes it is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.melody_model import save_random_melody
from support.tiny_data import make_manifest
from support.training import StopAt

from benchmarks.random_model import TINY
from lora_bench.models import load_model
from lora_bench.models.base import MusicModel
from lora_bench.models.token_set import TokenSet
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import LoraSpec, ModelSpec, TrainSpec
from lora_bench.stages.tokens import encode_dataset
from lora_bench.stages.train import train_adapter
from lora_bench.store import Store

LORA = LoraSpec(rank=2, targets="attention+ffn", dropout=0.3)
TRAIN = TrainSpec(steps=6, lr=5e-3, batch_size=4, caption_dropout=0.5, eval_every=3, checkpoint_every=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MusicModel:
    folder = save_random_melody(tmp_path_factory.mktemp("model"), TINY)
    return load_model(ModelSpec(id=str(folder)), device="cpu")


@pytest.fixture(scope="module")
def tokens(model: MusicModel, tmp_path_factory: pytest.TempPathFactory) -> TokenSet:
    place = tmp_path_factory.mktemp("tokens")
    return encode_dataset(make_manifest(place / "data"), model, Store(place / "cache"), SilentProgress())


def train(
    model: MusicModel, tokens: TokenSet, folder: Path, lora: LoraSpec, spec: TrainSpec
) -> dict[str, torch.Tensor]:
    train_adapter(tokens, model, lora, spec, 0, folder, SilentProgress())
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_a_run_that_was_interrupted_resumes_bit_for_bit(
    model: MusicModel, tokens: TokenSet, tmp_path: Path
) -> None:
    whole = train(model, tokens, tmp_path / "whole", LORA, TRAIN)
    with pytest.raises(KeyboardInterrupt):
        train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path / "parts", StopAt(5, KeyboardInterrupt()))
    assert not (tmp_path / "parts" / "adapter").exists()
    resumed = train(model, tokens, tmp_path / "parts", LORA, TRAIN)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    assert any(bool(tensor.any()) for name, tensor in whole.items() if "lora_B" in name)


def test_checkpointing_changes_no_adapter(model: MusicModel, tokens: TokenSet, tmp_path: Path) -> None:
    whole = train(model, tokens, tmp_path / "whole", LORA, TRAIN)
    less = TRAIN.model_copy(update={"gradient_checkpointing": True})
    found = train(model, tokens, tmp_path / "less", LORA, less)
    assert all(torch.allclose(found[name], tensor, atol=1e-6) for name, tensor in whole.items())


def test_smaller_passes_give_the_same_losses(
    model: MusicModel, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dropped caption is replaced by as many zeros as it had states, however long the others of a pass are."""
    lora, spec = LORA.model_copy(update={"dropout": 0.0}), TRAIN.model_copy(update={"steps": 3})
    whole = train(model, tokens, tmp_path / "whole", lora, spec)
    original = model.training_loss

    def fail_beyond_one(codes: torch.Tensor, *others: object) -> torch.Tensor:
        if len(codes) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return original(codes, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "training_loss", fail_beyond_one)
    found = train(model, tokens, tmp_path / "small", lora, spec)
    assert all(torch.allclose(found[name], tensor, atol=1e-4) for name, tensor in whole.items())
