from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import MusicgenForConditionalGeneration

from lora_bench.errors import ModelError, NoModulesMatchedError
from lora_bench.models import load_model
from lora_bench.models.linears import PackedLinear, pack_linears
from lora_bench.models.lora import read_linear
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import LoraSpec, ModelSpec

AddAdapter = Callable[[TransformersMusicGen, LoraSpec], None]
VARIANTS = [
    LoraSpec(rank=4, targets="all"),
    LoraSpec(rank=4, targets="all", alpha=1.0),
    LoraSpec(rank=4, targets="all", use_rslora=True),
    LoraSpec(rank=4, targets="all", use_dora=True),
    LoraSpec(rank=3, targets=["q_proj", "fc2", "lm_heads.1"], use_dora=True, use_rslora=True),
]
IDS = ["lora", "alpha", "rslora", "dora", "partial dora"]


def logits_of(network: nn.Module, model: TransformersMusicGen) -> torch.Tensor:
    """What transformers' own forward says, [K, T, V]."""
    tokens = torch.arange(20).view(4, 5) % model.info.codebook_size
    ids = model._tokenizer(["a song"], return_tensors="pt")
    with torch.no_grad():
        return network(**ids, decoder_input_ids=tokens).logits


def test_matched_modules_and_parameters_are_counted(tiny: TransformersMusicGen) -> None:
    injection = tiny.inject_lora(LoraSpec(rank=4, targets="attention+conditioning"), seed=0)
    assert injection.matched_modules == {"self_attention": 8, "cross_attention": 8, "conditioning": 1}
    # rank * (inputs + outputs) for sixteen 64 x 64 layers and one of 32 x 64
    assert injection.trainable_params == 16 * 4 * (64 + 64) + 4 * (32 + 64)
    trainable = [p.numel() for p in tiny.network.parameters() if p.requires_grad]
    assert sum(trainable) == injection.trainable_params


def test_all_never_touches_text_encoder_and_codec(tiny: TransformersMusicGen) -> None:
    injection = tiny.inject_lora(LoraSpec(rank=2, targets="all"), seed=0)
    assert sum(injection.matched_modules.values()) == len(tiny.linear_module_names())
    adapted = [name for name, _ in tiny.network.named_modules() if "lora_A" in name]
    assert adapted
    assert not [name for name in adapted if name.startswith(("text_encoder", "audio_encoder"))]


def test_text_encoder_names_match_nothing(tiny: TransformersMusicGen) -> None:
    with pytest.raises(NoModulesMatchedError, match="text encoder and codec are never adapted"):
        tiny.inject_lora(LoraSpec(targets=["SelfAttention.q"]), seed=0)
    assert tiny.adapter_parameters() == {}


def test_packed_projection_of_audiocraft_is_refused_and_not_skipped(tiny: TransformersMusicGen) -> None:
    with pytest.raises(NoModulesMatchedError, match="'in_proj_weight' matches no module"):
        tiny.inject_lora(LoraSpec(targets=["out_proj", "in_proj_weight"]), seed=0)


def test_conditioning_of_a_model_without_projection_is_an_error(stereo: TransformersMusicGen) -> None:
    with pytest.raises(NoModulesMatchedError, match="'conditioning' matches no module"):
        stereo.inject_lora(LoraSpec(targets="attention+conditioning"), seed=0)


@pytest.mark.parametrize("lora", VARIANTS, ids=IDS)
def test_fresh_adapter_changes_nothing(tiny: TransformersMusicGen, lora: LoraSpec) -> None:
    base = logits_of(tiny.network, tiny)
    tiny.inject_lora(lora, seed=0)
    torch.testing.assert_close(logits_of(tiny.network, tiny), base, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lora", VARIANTS, ids=IDS)
def test_removing_an_adapter_gives_the_base_back_bit_for_bit(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, lora: LoraSpec
) -> None:
    base = logits_of(tiny.network, tiny)
    names = list(tiny.network.state_dict())
    add_adapter(tiny, lora)
    assert not torch.allclose(logits_of(tiny.network, tiny), base, atol=1e-3)
    tiny.remove_adapter()
    assert torch.equal(logits_of(tiny.network, tiny), base)
    assert list(tiny.network.state_dict()) == names


@pytest.mark.parametrize("lora", VARIANTS, ids=IDS)
def test_saved_adapter_loads_with_plain_peft_and_gives_equal_logits(
    tiny: TransformersMusicGen, tiny_folder: Path, add_adapter: AddAdapter, lora: LoraSpec, tmp_path: Path
) -> None:
    add_adapter(tiny, lora)
    expected = logits_of(tiny.network, tiny)
    tiny.save_adapter(tmp_path / "adapter")
    fresh = MusicgenForConditionalGeneration.from_pretrained(tiny_folder)
    plain = peft.PeftModel.from_pretrained(fresh, str(tmp_path / "adapter"))
    assert torch.equal(logits_of(plain, tiny), expected)


def test_saved_adapter_comes_back_equal_and_may_replace_another(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, tmp_path: Path
) -> None:
    add_adapter(tiny, LoraSpec(rank=4, targets="ffn"))
    expected = logits_of(tiny.network, tiny)
    tiny.save_adapter(tmp_path / "adapter")
    tiny.inject_lora(LoraSpec(rank=8, targets="all"), seed=5)
    tiny.load_adapter(tmp_path / "adapter")
    assert torch.equal(logits_of(tiny.network, tiny), expected)


@pytest.mark.parametrize("lora", VARIANTS, ids=IDS)
def test_folded_weights_equal_the_unmerged_adapter(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, lora: LoraSpec
) -> None:
    add_adapter(tiny, lora)
    for name in tiny.linear_module_names():
        module = tiny.network.get_submodule(name)
        x = torch.randn(3, module.in_features, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(
                pack_linears([read_linear(module)])(x), module(x), rtol=1e-5, atol=1e-5, msg=name
            )


@pytest.mark.parametrize("lora", VARIANTS, ids=IDS)
def test_folded_weights_equal_pefts_merge(
    tiny: TransformersMusicGen, tiny_folder: Path, add_adapter: AddAdapter, lora: LoraSpec, tmp_path: Path
) -> None:
    add_adapter(tiny, lora)
    tiny.save_adapter(tmp_path / "adapter")
    fresh = MusicgenForConditionalGeneration.from_pretrained(tiny_folder)
    merged = peft.PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")).merge_and_unload()
    for name in tiny.linear_module_names():
        folded = pack_linears([read_linear(tiny.network.get_submodule(name))]).folded().weight
        torch.testing.assert_close(folded, merged.get_submodule(name).weight, rtol=1e-5, atol=1e-6, msg=name)


def test_half_precision_keeps_an_update_smaller_than_the_grid_of_the_weight() -> None:
    weight = torch.ones(4, 4, dtype=torch.bfloat16)
    down, up = torch.full((1, 4), 0.01), torch.full((4, 1), 0.01)
    layer = pack_linears([PackedLinear(weight, None, down, up), PackedLinear(weight)])
    assert torch.equal((weight.float() + up @ down).to(weight.dtype), weight)  # folding loses it
    y = layer(torch.ones(1, 4, dtype=torch.float32).to(torch.bfloat16))
    assert y.shape == (1, 8)
    assert layer.up is not None
    assert layer.down is not None
    torch.testing.assert_close(layer.up @ (layer.down @ torch.ones(4)), torch.tensor([4e-4] * 4 + [0.0] * 4))


@pytest.mark.parametrize("dora", [False, True])
def test_packed_half_layers_equal_their_parts(dora: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    parts = [
        PackedLinear(
            draw(6, 5).bfloat16(), None, draw(2, 5), draw(6, 2), draw(6).abs() + 0.5 if dora else None
        ),
        PackedLinear(draw(4, 5).bfloat16()),
        PackedLinear(draw(3, 5).bfloat16(), None, draw(1, 5), draw(3, 1)),
    ]
    x = draw(7, 5).bfloat16()
    exact = torch.cat(
        [
            x.float()
            @ pack_linears([PackedLinear(p.weight.float(), None, p.down, p.up, p.scale)]).folded().weight.T
            for p in parts
        ],
        dim=1,
    )
    torch.testing.assert_close(pack_linears(parts)(x).float(), exact, rtol=2e-2, atol=2e-2)


def test_alpha_scales_the_update_linearly_from_zero_to_one(
    tiny: TransformersMusicGen, add_adapter: AddAdapter
) -> None:
    name = tiny.linear_module_names()[0]
    base = tiny.network.get_submodule(name).weight.clone()
    deltas: list[torch.Tensor] = []
    for alpha in (1.0, 2.0, 4.0):
        add_adapter(tiny, LoraSpec(rank=4, targets="all", alpha=alpha))
        deltas.append(pack_linears([read_linear(tiny.network.get_submodule(name))]).folded().weight - base)
        tiny.remove_adapter()
    assert float(deltas[0].abs().max()) > 1e-4
    for factor, delta in zip((2, 4), deltas[1:], strict=True):
        torch.testing.assert_close(delta, factor * deltas[0], rtol=1e-3, atol=1e-6)


def test_initial_adapter_depends_on_seed_and_module_only(tiny: TransformersMusicGen) -> None:
    def start(targets: str, seed: int) -> dict[str, torch.Tensor]:
        tiny.inject_lora(LoraSpec(rank=4, targets=targets), seed=seed)
        return {name: parameter.detach().clone() for name, parameter in tiny.adapter_parameters().items()}

    alone, among, other = start("self_attention", 0), start("all", 0), start("self_attention", 1)
    assert set(alone) < set(among)
    for name, parameter in alone.items():
        assert torch.equal(parameter, among[name])
        assert torch.equal(parameter, other[name]) == ("lora_B" in name)


def test_initial_a_has_pefts_own_distribution(tiny: TransformersMusicGen) -> None:
    tiny.inject_lora(LoraSpec(rank=64, targets="all"), seed=0)
    a = torch.cat(
        [p.flatten() * p.shape[1] ** 0.5 for n, p in tiny.adapter_parameters().items() if "lora_A" in n]
    )
    # uniform within 1 / sqrt(inputs)
    assert float(a.abs().max()) <= 1.0
    assert abs(float(a.std()) - 3**-0.5) < 0.01


def test_adapter_weights_are_float32_whatever_the_decoder_is(tiny_folder: Path) -> None:
    model = load_model(ModelSpec(id=str(tiny_folder), dtype="bfloat16"), device="cpu")
    model.inject_lora(LoraSpec(rank=2, targets="all", use_dora=True), seed=0)
    assert {p.dtype for p in model.adapter_parameters().values()} == {torch.float32}
    assert model.network.decoder.lm_heads[0].weight.dtype == torch.bfloat16
    assert {p.dtype for p in model.network.text_encoder.parameters()} == {torch.float32}
    assert {p.dtype for p in model.network.audio_encoder.parameters()} == {torch.float32}


def test_injecting_does_not_touch_the_global_generator(tiny: TransformersMusicGen) -> None:
    before = torch.get_rng_state()
    tiny.inject_lora(LoraSpec(rank=2, targets="all"), seed=7)
    assert torch.equal(torch.get_rng_state(), before)


def test_saved_files_are_the_same_every_time_and_name_no_path(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, tmp_path: Path
) -> None:
    add_adapter(tiny, LoraSpec(rank=4, targets="all"))
    for name in ("a", "b"):
        tiny.save_adapter(tmp_path / name)
    tiny.save_adapter(tmp_path / "a")  # replaces
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["lora_alpha"] == 8.0
    assert load_file(tmp_path / "a" / "adapter_model.safetensors").keys()


def test_adapter_of_a_hub_model_names_it(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "_hub_id", "facebook/musicgen-small")
    add_adapter(tiny, LoraSpec(rank=4))
    tiny.save_adapter(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "facebook/musicgen-small"


def test_failed_save_leaves_the_old_adapter(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_adapter(tiny, LoraSpec(rank=4))
    tiny.save_adapter(tmp_path / "adapter")
    old = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    add_adapter(tiny, LoraSpec(rank=8))

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(peft.PeftModel, "save_pretrained", fail)
    with pytest.raises(Exception, match="the disk is full"):
        tiny.save_adapter(tmp_path / "adapter")
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == old


def test_saving_without_an_adapter_is_an_error(tiny: TransformersMusicGen, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no adapter to save"):
        tiny.save_adapter(tmp_path / "adapter")


def test_folder_without_an_adapter_is_named(tiny: TransformersMusicGen, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter_config\.json is missing, expected an adapter folder"):
        tiny.load_adapter(tmp_path)


def test_adapter_of_other_weights_is_refused(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, tmp_path: Path
) -> None:
    add_adapter(tiny, LoraSpec(rank=4))
    tiny.save_adapter(tmp_path / "adapter")
    notes = tmp_path / "adapter" / "lora_bench.json"
    notes.write_text(notes.read_text().replace(tiny.info.weights_hash, "0" * 64))
    with pytest.raises(ModelError, match=r"was trained on .* load the model that it was trained on"):
        tiny.load_adapter(tmp_path / "adapter")


def test_adapter_that_does_not_fit_is_refused_and_leaves_the_base(
    tiny: TransformersMusicGen, stereo: TransformersMusicGen, add_adapter: AddAdapter, tmp_path: Path
) -> None:
    base = logits_of(tiny.network, tiny)
    add_adapter(stereo, LoraSpec(rank=4, targets="heads"))  # heads 4 to 7 do not exist in mono
    stereo.save_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "lora_bench.json").unlink()
    with pytest.raises(ModelError, match=r"adapter weights do not fit the model|does not fit the model"):
        tiny.load_adapter(tmp_path / "adapter")
    assert torch.equal(logits_of(tiny.network, tiny), base)
    assert not [name for name, _ in tiny.network.named_modules() if "lora" in name]


def test_adapter_of_another_width_is_refused_and_leaves_the_base(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, tmp_path: Path
) -> None:
    add_adapter(tiny, LoraSpec(rank=4))
    tiny.save_adapter(tmp_path / "adapter")
    tiny.remove_adapter()
    base = logits_of(tiny.network, tiny)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 8'))
    with pytest.raises(ModelError, match="does not fit the model"):
        tiny.load_adapter(tmp_path / "adapter")
    assert torch.equal(logits_of(tiny.network, tiny), base)
    assert not [name for name, _ in tiny.network.named_modules() if "lora" in name]


def test_damaged_adapter_weights_are_refused(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, tmp_path: Path
) -> None:
    add_adapter(tiny, LoraSpec(rank=4))
    tiny.save_adapter(tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="does not fit the model"):
        tiny.load_adapter(tmp_path / "adapter")
    shutil.rmtree(tmp_path / "adapter")
