"""Training of every kind of adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_data import Recorder, load_tiny, make_manifest
from support.training import StopAt, assert_same_adapter, without_times

from lora_bench.models.token_set import TokenSet
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.kinds import SETTINGS
from lora_bench.spec.schema import LoraSpec, TrainSpec
from lora_bench.stages.tokens import encode_dataset
from lora_bench.stages.train import train_adapter
from lora_bench.stages.train.optimizer import make_optimizer, set_rate
from lora_bench.store import Store

TRAIN = TrainSpec(steps=4, lr=1e-2, batch_size=2, caption_dropout=0.5, eval_every=4, checkpoint_every=2)
KINDS = [
    LoraSpec.model_validate(
        {"kind": kind, "rank": 2, "targets": "attention", "dropout": 0.3, "block_size": 16}
    )
    for kind in SETTINGS
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TransformersMusicGen:
    return load_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokens(model: TransformersMusicGen, tmp_path_factory: pytest.TempPathFactory) -> TokenSet:
    place = tmp_path_factory.mktemp("tokens")
    return encode_dataset(make_manifest(place / "data"), model, Store(place / "cache"), SilentProgress())


@pytest.mark.parametrize("lora", KINDS, ids=lambda lora: lora.kind)
def test_an_interrupted_training_of_a_kind_ends_in_the_same_adapter(
    model: TransformersMusicGen, tokens: TokenSet, lora: LoraSpec, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = train_adapter(tokens, model, lora, TRAIN, 0, whole, SilentProgress())
    first, last = result.curve[0], result.curve[-1]
    assert last.eval_loss is not None
    assert last.eval_loss != first.eval_loss
    with pytest.raises(KeyboardInterrupt):
        train_adapter(tokens, model, lora, TRAIN, 0, parts, StopAt(3, KeyboardInterrupt()))
    train_adapter(tokens, model, lora, TRAIN, 0, parts, SilentProgress())
    assert_same_adapter(whole, parts)
    assert without_times(whole) == without_times(parts)
    notes = json.loads((whole / "adapter" / "lora_bench.json").read_text())
    assert notes["lora"].get("kind", "lora") == lora.kind


def test_a_training_of_eva_begins_with_directions_of_its_own_slices_wherever_it_was_interrupted(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path
) -> None:
    lora, recorder = LoraSpec(kind="eva", rank=2, targets="attention"), Recorder()
    slow = TRAIN.model_copy(update={"lr": 1e-12})
    train_adapter(tokens, model, lora, slow, 0, tmp_path / "whole", recorder)
    n_slices = len(tokens.find_split("train"))
    assert recorder.messages == [
        f"lora.kind eva: initial values from the inputs of {n_slices} training slices"
    ]
    found = load_file(tmp_path / "whole" / "adapter" / "adapter_model.safetensors")
    downs = [value for name, value in found.items() if "lora_A" in name]
    assert len(downs) == 16
    for value in downs:
        torch.testing.assert_close(value @ value.T, torch.eye(2), rtol=0, atol=1e-4)
    with pytest.raises(KeyboardInterrupt):  # before the first checkpoint
        train_adapter(tokens, model, lora, slow, 0, tmp_path / "parts", StopAt(1, KeyboardInterrupt()))
    train_adapter(tokens, model, lora, slow, 0, tmp_path / "parts", SilentProgress())
    assert_same_adapter(tmp_path / "whole", tmp_path / "parts")


def test_rates_of_lora_plus_differ_by_its_ratio(model: TransformersMusicGen) -> None:
    lora = LoraSpec(kind="lora+", rank=2, lr_ratio=8.0)
    model.inject_lora(lora, seed=0)
    optimizer = make_optimizer(model, model.adapter_parameters().values(), lora, TRAIN)
    set_rate(optimizer, 1e-3)
    names = {id(value): name for name, value in model.adapter_parameters().items()}
    rates = {
        names[id(value)].rpartition(".lora_")[2][0]: group["lr"]
        for group in optimizer.param_groups
        for value in group["params"]
    }
    assert rates == {"A": 1e-3, "B": pytest.approx(8e-3)}
    model.remove_adapter()


def test_dora_by_name_and_by_flag_are_one_adapter(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path
) -> None:
    by_name, by_flag = LoraSpec(kind="dora", rank=2), LoraSpec(rank=2, use_dora=True)
    train_adapter(tokens, model, by_name, TRAIN, 0, tmp_path, SilentProgress())
    before = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    written = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    train_adapter(tokens, model, by_flag, TRAIN, 0, tmp_path, SilentProgress())
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == written
    found = {name for name in model.adapter_parameters() if "magnitude" in name}
    assert found
    assert all(torch.isfinite(value).all() for value in before.values())
