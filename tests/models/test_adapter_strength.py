"""The strength of an adapter: its ends are exact, its middle is PEFT's own, on every kind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.models import MusicModel, load_model
from lora_bench.models.adapter_kinds import ModulesToSaveWrapper
from lora_bench.models.adapter_strength import scale_low_rank
from lora_bench.models.decoding.decoder import generate_codes
from lora_bench.models.linears import PackedLinear
from lora_bench.models.lora import adapted_modules, read_linear
from lora_bench.models.records import DecoderWeights
from lora_bench.progress import SilentProgress
from lora_bench.spec.kinds import SETTINGS
from lora_bench.spec.schema import GenerationSpec, LoraSpec, ModelSpec

# kinds with layers that PEFT itself can scale, without the norms of DoRA
SCALED_BY_PEFT = ("lora", "rslora", "lora+", "loha", "lokr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_musicgen(tmp_path_factory.mktemp("model") / "tiny", TINY)


@pytest.fixture(scope="module")
def model(folder: Path) -> MusicModel:
    return load_model(ModelSpec(id=str(folder)), device="cpu")


def adapt(model: MusicModel, folder: Path, kind: str) -> None:
    """Load an adapter whose update is not zero."""
    targets = "decoder" if kind == "full" else "all"
    lora = LoraSpec.model_validate({"kind": kind, "rank": 4, "block_size": 8, "targets": targets})
    model.inject_lora(lora, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.adapter_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_adapter(folder)
    model.load_adapter(folder)


def list_weights(weights: DecoderWeights) -> list[torch.Tensor]:
    """Every tensor of a decoder, with low-rank updates folded in."""
    found: list[torch.Tensor] = [weights.embeddings, weights.norm.weight, weights.norm.bias]
    linears = [weights.heads] + ([] if weights.text_projection is None else [weights.text_projection])
    for layer in weights.layers:
        linears += [layer.self_qkv, layer.self_out, layer.cross_q, layer.cross_kv, layer.cross_out]
        linears += [layer.ffn_in, layer.ffn_out]
        for norm in (layer.self_norm, layer.cross_norm, layer.ffn_norm):
            found += [norm.weight, norm.bias]
    for linear in linears:
        folded = linear.folded()
        found += [folded.weight] + ([] if folded.bias is None else [folded.bias])
    return found


@pytest.mark.parametrize("kind", SETTINGS)
def test_weights_are_those_of_the_base_plus_a_share_of_the_change(
    model: MusicModel, tmp_path: Path, kind: str
) -> None:
    model.remove_adapter()
    base = list_weights(model.decoder_weights())
    adapt(model, tmp_path / "a", kind)
    whole = list_weights(model.decoder_weights())
    assert any(not torch.equal(one, other) for one, other in zip(base, whole, strict=True))
    for scale in (0.0, 0.5, 1.0, 1.5):
        model.adapter_scale = scale
        exact = base if scale == 0.0 else whole if scale == 1.0 else None
        for index, found in enumerate(list_weights(model.decoder_weights())):
            if exact is not None:
                assert torch.equal(found, exact[index])
            else:
                wanted = base[index].double() + scale * (whole[index].double() - base[index].double())
                assert torch.allclose(found.double(), wanted, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", SETTINGS)
def test_half_strength_gives_the_logits_of_pefts_own_scaled_model(
    model: MusicModel, folder: Path, tmp_path: Path, kind: str
) -> None:
    """By `scale_layer` where PEFT has it for the kind, else with the mean of base and merged weights."""
    adapt(model, tmp_path / "a", kind)
    reference: Any = copy.deepcopy(model.network)
    if kind in SCALED_BY_PEFT:
        for module in reference.modules():
            if hasattr(module, "scale_layer"):
                module.scale_layer(0.5)
    else:
        model.remove_adapter()
        base = {name: value.clone() for name, value in model.network.state_dict().items()}
        model.load_adapter(tmp_path / "a")
        merged: Any = copy.deepcopy(model.peft_model).merge_and_unload()
        for name, value in merged.state_dict().items():
            if value.is_floating_point():
                value.copy_((base[name] + value) / 2)
        reference = merged
    ids = torch.tensor([[5, 9, 2]])
    codes = torch.randint(0, 64, (4, 6))
    scaled = put_into_network(model, 0.5)
    with torch.no_grad():
        wanted = reference(input_ids=ids, decoder_input_ids=codes).logits
        found = scaled(input_ids=ids, decoder_input_ids=codes).logits
    assert torch.allclose(found, wanted, atol=2e-5)


def put_into_network(model: MusicModel, scale: float) -> Any:
    """Return a plain network with the weights that decoding reads; the adapter is removed."""
    adapted = adapted_modules(model.peft_model)
    linears = {n: read_linear(each, scale).folded() for n, each in adapted.items() if not is_other(each)}
    others = {
        name: (module.original_module, module.modules_to_save["default"])
        for name, module in adapted.items()
        if isinstance(module, ModulesToSaveWrapper) and is_other(module)
    }
    model.remove_adapter()
    network: Any = copy.deepcopy(model.network)
    with torch.no_grad():
        for name, linear in linears.items():
            network.get_submodule(name).weight.copy_(linear.weight)
            if linear.bias is not None:
                network.get_submodule(name).bias.copy_(linear.bias)
        for name, (base, trained) in others.items():
            for part, value in network.get_submodule(name).named_parameters():
                value.copy_(torch.lerp(base.get_parameter(part), trained.get_parameter(part), scale))
    return network


def is_other(module: torch.nn.Module) -> bool:
    return isinstance(module, ModulesToSaveWrapper) and not isinstance(
        module.modules_to_save["default"], torch.nn.Linear
    )


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_in_half_precision_the_update_stays_apart(folder: Path, tmp_path: Path, kind: str) -> None:
    model = load_model(ModelSpec(id=str(folder), dtype="bfloat16"), device="cpu")
    adapt(model, tmp_path / "a", kind)
    plain = model.decoder_weights().layers[0].self_qkv
    model.adapter_scale = 0.5
    half = model.decoder_weights().layers[0].self_qkv
    assert half.folded() is half
    assert half.up is not None
    assert torch.equal(half.weight, plain.weight)
    x = torch.randn(3, half.weight.shape[1]).bfloat16()
    y = torch.nn.functional.linear(x, half.weight).float()
    wanted = y + 0.5 * (plain(x).float() - y)
    assert torch.allclose(half(x).float(), wanted, atol=0.05, rtol=0.02)


def test_no_strength_gives_the_clips_of_zero_shot_and_full_strength_those_of_the_adapter(
    folder: Path, tmp_path: Path
) -> None:
    model = load_model(ModelSpec(id=str(folder), dtype="bfloat16"), device="cpu")
    sampling = GenerationSpec(clip_s=0.5)

    def generate() -> torch.Tensor:
        return generate_codes(model, "a song", [0, 1], 10, sampling, SilentProgress())

    zero_shot = generate()
    adapt(model, tmp_path / "a", "lora")
    plain = generate()
    assert not torch.equal(zero_shot, plain)
    model.adapter_scale = 0.0
    assert torch.equal(generate(), zero_shot)
    model.adapter_scale = 1.0
    assert torch.equal(generate(), plain)
    model.adapter_scale = 0.5
    model.load_adapter(tmp_path / "a")  # which begins with its own strength
    assert torch.equal(generate(), plain)


def test_a_row_that_the_blend_cancels_keeps_finite_numbers() -> None:
    weight, down, up = torch.eye(2), torch.ones(1, 2), torch.ones(2, 1)
    dora = PackedLinear(weight, None, down, up, torch.tensor([1.0 / 3.0, 1.0]))
    found = scale_low_rank(dora, 1.5).folded().weight
    base, whole = weight, dora.folded().weight
    assert torch.allclose(found, base + 1.5 * (whole - base), atol=1e-6)
