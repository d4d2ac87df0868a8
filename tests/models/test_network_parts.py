"""Parts of a checkpoint are what transformers reads when it reads all; models do without encoders while they may."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.older_names import give_older_names
from transformers import MusicgenForConditionalGeneration

from benchmarks.random_model import TINY, build_random_musicgen, build_tokenizer
from lora_bench.errors import ModelError
from lora_bench.models import load_model
from lora_bench.models.base import MusicModel
from lora_bench.models.model_files import hash_weights
from lora_bench.models.model_info import describe_network
from lora_bench.models.network_parts import ENCODERS, load_encoder, load_network, load_without_encoders
from lora_bench.models.pocket import pocket_folder
from lora_bench.models.quiet import quiet_transformers
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import LoraSpec, ModelSpec

WEIGHTS = "model.safetensors"
TEXTS = ["a song", "a much longer description of a song"]
# as published checkpoints name what weight norm keeps


def copy_with(
    folder: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> Path:
    copy = Path(shutil.copytree(folder, to))
    save_file(change(load_file(copy / WEIGHTS)), copy / WEIGHTS, metadata={"format": "pt"})
    return copy


def without(*names: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.fixture(params=["tiny", "stereo", "pocket", "older names", "pickled", "several files"])
def checkpoint(
    request: pytest.FixtureRequest, tiny_folder: Path, stereo_folder: Path, tmp_path: Path
) -> Path:
    """Every form that weights come in."""
    copy = tmp_path / "copy"
    match request.param:
        case "stereo":
            return stereo_folder
        case "pocket":
            return pocket_folder()
        case "older names":
            return copy_with(tiny_folder, copy, give_older_names)
        case "pickled":
            shutil.copytree(tiny_folder, copy)
            torch.save(give_older_names(load_file(copy / WEIGHTS)), copy / "pytorch_model.bin")
            (copy / WEIGHTS).unlink()
            return copy
        case "several files":
            shutil.copytree(tiny_folder, copy)
            (copy / WEIGHTS).unlink()
            with quiet_transformers():
                read_plainly(tiny_folder).save_pretrained(copy, max_shard_size="100KB")
            assert len(list(copy.glob("*.safetensors"))) > 2
            return copy
        case _:
            return tiny_folder


def read_plainly(folder: Path) -> Any:
    with quiet_transformers():
        return MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def assert_equal_tensors(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    theirs = {**expected.state_dict(), **dict(expected.named_buffers())}
    ours = {**found.state_dict(), **dict(found.named_buffers())}
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name


def test_parts_are_bit_for_bit_what_transformers_reads_in_one(checkpoint: Path) -> None:
    expected = read_plainly(checkpoint)
    network: Any = load_without_encoders(checkpoint, "copy")[0]
    assert type(network) is MusicgenForConditionalGeneration
    assert network.text_encoder is None
    assert network.audio_encoder is None
    assert not [name for name in network.state_dict() if name.startswith(ENCODERS)]
    for part in ENCODERS:
        setattr(network, part, load_encoder(checkpoint, "copy", hash_weights(checkpoint), part))
    assert_equal_tensors(network, expected)
    assert network.text_encoder.encoder.embed_tokens.weight is network.text_encoder.shared.weight
    assert network.all_tied_weights_keys == expected.all_tied_weights_keys
    assert_equal_tensors(load_network(checkpoint, "copy")[0], expected)


@pytest.mark.parametrize(
    "lacking",
    [
        "text_encoder.encoder.block.1.layer.1.DenseReluDense.wi.weight",
        "audio_encoder.encoder.layers.0.conv.bias",
    ],
)
def test_lacking_tensors_of_an_encoder_are_told_when_the_decoder_is_loaded(
    tiny_folder: Path, tmp_path: Path, lacking: str
) -> None:
    copy = copy_with(tiny_folder, tmp_path / "copy", without(lacking))
    with pytest.raises(ModelError, match=rf"lack 1 tensors, first {re.escape(lacking)}"):
        load_model(ModelSpec(id=str(copy)), device="cpu")


def test_one_name_of_a_tensor_with_two_is_enough(tiny_folder: Path, tmp_path: Path) -> None:
    shared, tied = "text_encoder.shared.weight", "text_encoder.encoder.embed_tokens.weight"

    def swap(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {tied if name == shared else name: tensor for name, tensor in tensors.items()}

    copy = copy_with(tiny_folder, tmp_path / "copy", swap)
    load_without_encoders(copy, "copy")
    text_encoder: Any = load_encoder(copy, "copy", hash_weights(copy), "text_encoder")
    assert torch.equal(text_encoder.shared.weight, load_file(tiny_folder / WEIGHTS)[shared])


class Reads:
    """Which encoders a model has read, in order."""

    def __init__(self, patch: pytest.MonkeyPatch, module: str) -> None:
        self.parts: list[str] = []

        def read(folder: Path, name: str, weights_hash: str, part: str) -> torch.nn.Module:
            self.parts.append(part)
            return load_encoder(folder, name, weights_hash, part)

        patch.setattr(f"lora_bench.models.{module}.load_encoder", read)


def test_an_encoder_is_read_when_it_is_first_used_and_once(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch, "loading")
    model = load_model(ModelSpec(id=str(tiny_folder)), device="cpu")
    model.inject_lora(LoraSpec(targets="all"), seed=0)
    assert reads.parts == []
    model.encode_text(TEXTS)
    model.encode_text(TEXTS)
    assert reads.parts == ["text_encoder"]
    model.encode_audio(np.zeros((1, 1, 320), dtype=np.float32))
    assert reads.parts == ["text_encoder", "audio_encoder"]
    assert not [
        name
        for name, value in model.network.named_parameters()
        if value.requires_grad and "lora_" not in name
    ]
    assert reads.parts == ["text_encoder", "audio_encoder"]


def encode_all(model: MusicModel) -> list[torch.Tensor]:
    audio = np.random.default_rng(0).normal(0, 0.2, (2, 1, 320)).astype(np.float32)
    codes = model.encode_audio(audio)
    latents, decoded = model.audio_latents(audio), model.decode_audio(codes)
    return [*model.encode_text(TEXTS), codes, torch.from_numpy(latents), torch.from_numpy(decoded)]


@pytest.mark.parametrize("backend", ["transformers", "audiocraft"])
def test_released_encoders_come_back_as_they_were(
    backend: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "audiocraft":
        pytest.importorskip("audiocraft", reason="the audiocraft extra is not installed")
    reads = Reads(monkeypatch, "loading" if backend == "transformers" else "audiocraft_backend.loading")
    spec = ModelSpec.model_validate({"id": str(tiny_folder), "backend": backend})
    model = load_model(spec, device="cpu")
    before = encode_all(model)
    reads.parts.clear()
    model.release_encoders()
    model.inject_lora(LoraSpec(targets="all"), seed=0)
    model.set_training(True)
    assert reads.parts == []
    for found, expected in zip(encode_all(model), before, strict=True):
        assert torch.equal(found, expected)
    assert sorted(reads.parts) == sorted(ENCODERS)


def test_training_and_adapters_do_not_depend_on_the_encoders(tiny_folder: Path, tmp_path: Path) -> None:
    lora = LoraSpec(rank=4, targets="all", dropout=0.0)  # 25 modules: PEFT shortens long lists of names
    codes = torch.randint(0, 64, (2, 4, 20), generator=torch.Generator().manual_seed(0))
    losses: list[float] = []
    for place in ("whole", "released"):
        model = load_model(ModelSpec(id=str(tiny_folder)), device="cpu")
        states = model.encode_text(TEXTS)
        if place == "whole":
            assert model.network.audio_encoder is not None
        else:
            model.release_encoders()
        names = model.linear_module_names()
        assert len(names) == 25
        model.inject_lora(lora, seed=0)
        model.set_training(True)
        loss = model.training_loss(codes, torch.tensor([20, 20]), list(states))
        loss.backward()
        with torch.no_grad():
            for parameter in model.adapter_parameters().values():
                parameter.sub_(parameter.grad if parameter.grad is not None else 0.0)
        losses.append(model.training_loss(codes, torch.tensor([20, 20]), list(states)).item())
        model.save_adapter(tmp_path / place)
        model.load_adapter(tmp_path / place)
        model.decoder_weights()
    assert losses[0] == losses[1]
    for file in ("adapter_config.json", "adapter_model.safetensors", "lora_bench.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "released" / file).read_bytes()


def test_a_network_made_in_memory_keeps_its_encoders() -> None:
    network: Any = build_random_musicgen(TINY)
    info = describe_network(network.config, name="random", weights_hash="random", trained=False)
    device, dtype = torch.device("cpu"), torch.float32
    model = TransformersMusicGen(network, build_tokenizer(), info, device=device, dtype=dtype)
    codec = network.audio_encoder
    model.release_encoders()
    assert model.network.audio_encoder is codec
    assert len(model.encode_text(TEXTS)) == 2


def test_an_encoder_of_other_files_than_the_decoders_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    model = load_model(ModelSpec(id=str(copy)), device="cpu")
    data = bytearray((copy / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (copy / WEIGHTS).write_bytes(data)
    with pytest.raises(
        ModelError, match=r"copy have changed since the decoder was loaded, so its text_encoder"
    ):
        model.encode_text(TEXTS)
    shutil.rmtree(copy)
    with pytest.raises(ModelError, match=r"its audio_encoder is to be read now, but .*copy cannot be"):
        model.encode_audio(np.zeros((1, 1, 320), dtype=np.float32))
