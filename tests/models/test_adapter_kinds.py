"""Every kind of adapter: what is trained is what is saved, merged, decoded and forecast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import peft
import pytest
import torch
from torch import nn
from transformers import MusicgenForConditionalGeneration

from lora_bench.errors import ModelError
from lora_bench.forecast.adapters import size_adapter
from lora_bench.forecast.kinds import factorize
from lora_bench.forecast.shapes import find_shape
from lora_bench.models import load_model
from lora_bench.models.adapter_kinds import unwrap
from lora_bench.models.decoding.decoder import generate_codes
from lora_bench.models.linears import pack_linears
from lora_bench.models.lora import adapted_modules, read_linear
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.kinds import SETTINGS
from lora_bench.spec.schema import GenerationSpec, LoraSpec, ModelSpec

AddAdapter = Callable[[TransformersMusicGen, LoraSpec], None]
GREEDY = GenerationSpec(guidance=3.0, top_k=1)
KINDS = [
    LoraSpec(kind="lora", rank=4, targets="all"),
    LoraSpec(kind="dora", rank=4, targets="all"),
    LoraSpec(kind="rslora", rank=4, targets="all"),
    LoraSpec(kind="lora+", rank=4, targets="all"),
    LoraSpec(kind="pissa", rank=4, targets="all"),
    LoraSpec(kind="olora", rank=4, targets="all"),
    LoraSpec(kind="eva", rank=4, targets="all"),
    LoraSpec(kind="loha", rank=4, targets="all"),
    LoraSpec(kind="lokr", rank=4, targets="all"),
    LoraSpec(kind="lokr", rank=2, factor=4, targets="all"),
    LoraSpec(kind="oft", block_size=16, targets="all"),
    LoraSpec(kind="vera", rank=4, targets="all"),
    LoraSpec(kind="ia3", targets="all"),
    LoraSpec(kind="miss", rank=4, targets="all"),
    LoraSpec(kind="miss", rank=5, targets="all"),
    LoraSpec(kind="delora", rank=4, targets="all"),
    LoraSpec(kind="full", targets="attention+conditioning"),
    LoraSpec(kind="full", targets="decoder"),
]
by_kind = pytest.mark.parametrize("lora", KINDS, ids=lambda lora: f"{lora.kind}-{lora.targets}-{lora.rank}")


def logits_of(network: nn.Module, model: TransformersMusicGen) -> torch.Tensor:
    tokens = torch.arange(20).view(4, 5) % model.info.codebook_size
    ids = model._tokenizer(["a song"], return_tensors="pt")
    with torch.no_grad():
        return network(**ids, decoder_input_ids=tokens).logits


def decode(model: TransformersMusicGen) -> torch.Tensor:
    return generate_codes(model, "a song with drums", [0], 12, GREEDY, SilentProgress())


def test_every_kind_is_here() -> None:
    assert {lora.kind for lora in KINDS} == set(SETTINGS)


@by_kind
def test_fresh_adapter_of_a_kind_changes_nothing(tiny: TransformersMusicGen, lora: LoraSpec) -> None:
    base = logits_of(tiny.network, tiny)
    tiny.inject_lora(lora, seed=0)
    torch.testing.assert_close(logits_of(tiny.network, tiny), base, rtol=1e-4, atol=1e-5)


@by_kind
def test_zero_shot_after_an_adapter_is_that_from_before_bit_for_bit(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, lora: LoraSpec
) -> None:
    weights = {name: value.clone() for name, value in tiny.network.state_dict().items()}
    logits, codes = logits_of(tiny.network, tiny), decode(tiny)
    add_adapter(tiny, lora)
    tuned = decode(tiny)
    tiny.remove_adapter()
    assert torch.equal(logits_of(tiny.network, tiny), logits)
    assert torch.equal(decode(tiny), codes)
    assert not torch.equal(tuned, codes)
    found = tiny.network.state_dict()
    assert list(found) == list(weights)
    assert all(torch.equal(found[name], value) for name, value in weights.items())


@by_kind
def test_decoding_reads_the_same_function_as_the_module(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, lora: LoraSpec
) -> None:
    add_adapter(tiny, lora)
    for name in tiny.linear_module_names():
        module = tiny.network.get_submodule(name)
        x = torch.randn(
            3, cast("nn.Linear", unwrap(module)).in_features, generator=torch.Generator().manual_seed(0)
        )
        with torch.no_grad():
            expected, found = module(x), pack_linears([read_linear(module)])(x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=name)


@by_kind
def test_plain_peft_loads_a_kind_and_merges_to_the_weights_that_are_decoded(
    tiny: TransformersMusicGen, tiny_folder: Path, add_adapter: AddAdapter, lora: LoraSpec, tmp_path: Path
) -> None:
    add_adapter(tiny, lora)
    expected = logits_of(tiny.network, tiny)
    tiny.save_adapter(tmp_path / "adapter")
    fresh = MusicgenForConditionalGeneration.from_pretrained(tiny_folder)
    plain = peft.PeftModel.from_pretrained(fresh, str(tmp_path / "adapter"))
    torch.testing.assert_close(logits_of(plain, tiny), expected, rtol=1e-4, atol=1e-4)
    merged = plain.merge_and_unload()
    for name in tiny.linear_module_names():
        folded = pack_linears([read_linear(tiny.network.get_submodule(name))]).folded().weight
        torch.testing.assert_close(folded, merged.get_submodule(name).weight, rtol=1e-5, atol=1e-5, msg=name)


@by_kind
def test_saved_adapter_of_a_kind_makes_the_same_clips_when_it_is_loaded(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, lora: LoraSpec, tmp_path: Path
) -> None:
    add_adapter(tiny, lora)
    tiny.save_adapter(tmp_path / "adapter")
    logits, codes = logits_of(tiny.network, tiny), decode(tiny)
    tiny.inject_lora(LoraSpec(rank=2), seed=3)
    tiny.load_adapter(tmp_path / "adapter")
    assert torch.equal(logits_of(tiny.network, tiny), logits)
    assert torch.equal(decode(tiny), codes)


@by_kind
def test_parameters_and_modules_of_a_kind_are_those_that_plan_forecasts(
    tiny: TransformersMusicGen, tiny_folder: Path, lora: LoraSpec, tmp_path: Path
) -> None:
    shape = find_shape(ModelSpec(id=str(tiny_folder)))
    assert shape is not None
    forecast = size_adapter(shape, lora)
    injected = tiny.inject_lora(lora, seed=0)
    assert forecast.problem is None
    assert dict(forecast.matched_modules) == dict(injected.matched_modules)
    assert forecast.trainable_params == injected.trainable_params
    trainable = sum(value.numel() for value in tiny.network.parameters() if value.requires_grad)
    assert trainable == injected.trainable_params
    tiny.save_adapter(tmp_path / "adapter")
    n_bytes = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert forecast.n_bytes == pytest.approx(n_bytes, rel=0.15)


@by_kind
def test_initial_values_depend_on_seed_and_name_alone(tiny: TransformersMusicGen, lora: LoraSpec) -> None:
    def draw(targets: str, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(torch.seed())
        tiny.inject_lora(lora.model_copy(update={"targets": targets}), seed)
        return {name: value.detach().clone() for name, value in tiny.adapter_parameters().items()}

    alone, among = draw("ffn", 1), draw("attention+ffn", 1)
    assert alone
    assert all(torch.equal(value, among[name]) for name, value in alone.items())
    if lora.kind in {"lora", "dora", "rslora", "lora+", "eva", "loha", "lokr", "delora"}:
        other = draw("ffn", 2)
        assert not all(torch.equal(value, other[name]) for name, value in alone.items())


def test_whole_decoder_of_full_fine_tuning_leaves_out_nothing_but_the_frozen_encoders(
    tiny: TransformersMusicGen,
) -> None:
    tiny.inject_lora(LoraSpec(kind="full", targets="decoder"), seed=0)
    peft_model = tiny.peft_model
    copied = set(adapted_modules(peft_model))
    tiny.remove_adapter()
    owners = {
        name
        for name, module in tiny.network.named_modules()
        if list(module.parameters(recurse=False)) and not name.startswith(("text_encoder", "audio_encoder"))
    }
    assert copied == owners


def test_a_kind_that_is_merged_needs_float32_weights(tiny_folder: Path) -> None:
    model = load_model(ModelSpec(id=str(tiny_folder), dtype="bfloat16"), device="cpu")
    model.inject_lora(LoraSpec(kind="pissa", rank=2), seed=0)
    with pytest.raises(ModelError, match=r"lora.kind ia3: .*set model.dtype: float32"):
        model.inject_lora(LoraSpec(kind="ia3"), seed=0)


@pytest.mark.parametrize("factor", [None, 2, 3, 4, 8, 16])
def test_factors_of_lokr_are_those_of_peft(factor: int | None) -> None:
    from peft.tuners.lokr.layer import factorization

    for size in (32, 48, 64, 127, 128, 256, 1000, 1024, 1536, 2048, 4096, 8192):
        assert factorize(size, factor) == factorization(size, -1 if factor is None else factor)
