"""Weights, configs and adapters between transformers and audiocraft, and audiocraft's files."""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import (
    AutoProcessor,
    EncodecConfig,
    MusicgenForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

if find_spec("audiocraft") is None:  # one that is installed but broken is an error
    pytest.skip("the audiocraft extra is not installed", allow_module_level=True)

from audiocraft.models import builders, loaders
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes, T5Conditioner
from omegaconf import OmegaConf

from lora_bench.cli.main import main
from lora_bench.errors import ModelError, UsageError
from lora_bench.models import load_model
from lora_bench.models.audiocraft_backend.attention import split_attentions
from lora_bench.models.audiocraft_backend.networks import GivenT5Conditioner, build_lm
from lora_bench.models.base import MusicModel
from lora_bench.models.bridges.adapters import rename_adapter
from lora_bench.models.bridges.configs import (
    codec_config_from_audiocraft,
    codec_config_to_audiocraft,
    decoder_config_from_audiocraft,
    join_configs,
    look_up,
    parse_config,
)
from lora_bench.models.bridges.conversion import convert, write_merged
from lora_bench.models.bridges.exports import read_package
from lora_bench.models.bridges.parts import take_apart
from lora_bench.models.bridges.tensors import (
    codec_to_audiocraft,
    codec_to_transformers,
    decoder_to_audiocraft,
    decoder_to_transformers,
)
from lora_bench.models.decoding.decoder import generate_codes
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec, ModelSpec

PROMPT = "a song with drums"
GREEDY = GenerationSpec(guidance=3.0, top_k=1)
# The config of facebook/musicgen-small as audiocraft writes it into an export, as far as anybody reads it;
# the other sizes and the stereo models change what `published` changes.
PUBLISHED = """
lm_model: transformer_lm
sample_rate: 32000
channels: 1
compression_model_checkpoint: //pretrained/facebook/encodec_32khz
codebooks_pattern: {modeling: delay, delay: {delays: [0, 1, 2, 3], flatten_first: 0, empty_initial: 0}}
transformer_lm:
  {n_q: 4, card: 2048, dim: 1024, num_heads: 16, num_layers: 24, hidden_scale: 4, dropout: 0.0,
   activation: gelu, norm_first: true, bias_ff: false, bias_attn: false, bias_proj: false, past_context: null,
   causal: true, custom: false, memory_efficient: true, attention_as_float32: false, layer_scale: null,
   positional_embedding: sin, xpos: false, norm: layer_norm, cross_attention: false, qk_layer_norm: false,
   qk_layer_norm_cross: false, attention_dropout: null, kv_repeat: 1, two_step_cfg: false}
conditioners: {description: {model: t5, t5: {name: t5-base, finetune: false, word_dropout: 0.0}}}
fuser:
  {cross_attention_pos_emb: false, cross_attention_pos_emb_scale: 1, sum: [], prepend: [],
   cross: [description], input_interpolate: []}
interleave_stereo_codebooks: {use: false, per_timestep: false}
dataset: {segment_duration: 30}
"""
SIZES = {"small": (24, 1024, 16), "medium": (48, 1536, 24), "large": (48, 2048, 32)}


def published(size: str, *, is_stereo: bool = False) -> dict[str, Any]:
    config = parse_config(PUBLISHED)
    n_layers, dim, n_heads = SIZES[size]
    config["transformer_lm"] |= {"num_layers": n_layers, "dim": dim, "num_heads": n_heads}
    if is_stereo:
        config["transformer_lm"]["n_q"] = 8
        config["interleave_stereo_codebooks"]["use"] = True
        config["codebooks_pattern"]["delay"]["delays"] = [0, 0, 1, 1, 2, 2, 3, 3]
    return config


@pytest.fixture(scope="module")
def export_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "audiocraft"
    convert(str(tiny_folder), folder, library=None, adapter=None, base=None)
    return folder


@pytest.fixture
def adapter_folder(tiny: TransformersMusicGen, add_adapter: Any, tmp_path: Path) -> Path:
    add_adapter(tiny, LoraSpec(rank=2, targets="all"))
    tiny.save_adapter(tmp_path / "adapter")
    return tmp_path / "adapter"


def loss_of(model: MusicModel) -> torch.Tensor:
    codes = torch.randint(0, 64, (1, model.info.n_codebooks, 9), generator=torch.Generator().manual_seed(3))
    return model.training_loss(codes, torch.tensor([9]), model.encode_text([PROMPT])).detach()


def greedy_codes(model: MusicModel) -> torch.Tensor:
    return generate_codes(model, PROMPT, [0], 16, GREEDY, SilentProgress())


def own_greedy_codes(lm: LMModel) -> torch.Tensor:
    """What audiocraft's own generation gives."""
    conditions = [ConditioningAttributes(text={"description": PROMPT})]
    return lm.generate(conditions=conditions, num_samples=1, max_gen_len=16, use_sampling=False, cfg_coef=3.0)


# weights


@pytest.mark.parametrize("kind", ["tiny", "stereo"])
def test_weights_come_back_from_audiocrafts_names_bit_for_bit(
    kind: str, request: pytest.FixtureRequest
) -> None:
    parts = take_apart(request.getfixturevalue(kind).network, request.getfixturevalue(kind)._tokenizer)
    decoder = decoder_to_transformers(decoder_to_audiocraft(parts.decoder_state))
    codec = codec_to_transformers(codec_to_audiocraft(parts.codec_state))
    for back, state in ((decoder, parts.decoder_state), (codec, parts.codec_state)):
        assert back.keys() == state.keys()
        assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_a_weight_that_has_no_place_is_named() -> None:
    with pytest.raises(ModelError, match=r"decoder\.extra\.weight: audiocraft has no place"):
        decoder_to_audiocraft({"decoder.extra.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"conditioners\.self_wav.*transformers has no place"):
        decoder_to_transformers({"condition_provider.conditioners.self_wav.x": torch.zeros(1)})


# configs


@pytest.mark.parametrize(("size", "is_stereo"), [("small", False), ("medium", False), ("large", True)])
def test_published_shapes_give_the_same_weights_in_both_libraries(size: str, is_stereo: bool) -> None:
    config = published(size, is_stereo=is_stereo)
    codec = EncodecConfig(sampling_rate=32_000, upsampling_ratios=[8, 5, 4, 4], audio_channels=1)
    text = T5Config(d_model=768, num_layers=1, d_ff=64, vocab_size=32)
    decoder = decoder_config_from_audiocraft(config, 50.0, size)
    config |= {"device": "meta", "dtype": "float32", "attribute_dropout": {}}
    config["classifier_free_guidance"] = {"training_dropout": 0.3, "inference_coef": 3.0}
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        network = MusicgenForConditionalGeneration(join_configs(decoder, codec, text))
        encoder = T5EncoderModel(text)
        patch.setattr(
            builders, "T5Conditioner", lambda output_dim, **_: GivenT5Conditioner(encoder, None, output_dim)
        )
        lm = builders.get_lm_model(OmegaConf.create(config))
    ours = decoder_to_audiocraft(take_apart(network, None).decoder_state)
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in lm.state_dict().items()
    }
    assert decoder.max_position_embeddings == 1503
    assert lm.num_codebooks == (8 if is_stereo else 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformer_lm": {"bias_attn": True}}, r"transformer_lm\.bias_attn is True, and only False"),
        ({"transformer_lm": {"positional_embedding": "rope"}}, r"positional_embedding is 'rope'"),
        ({"codebooks_pattern": {"modeling": "parallel"}}, r"codebooks_pattern\.modeling is 'parallel'"),
        ({"codebooks_pattern": {"delay": {"delays": [0, 0, 1, 1]}}}, r"delays are \[0, 0, 1, 1\], expected"),
        ({"conditioners": {"self_wav": {"model": "chroma_stem"}}}, r"self_wav \(chroma_stem\).*melody"),
        (
            {"fuser": {"cross": [], "prepend": ["description"]}},
            r"only `description \(t5\)` by cross-attention",
        ),
        ({"lm_model": "transformer_lm_magnet"}, r"lm_model is 'transformer_lm_magnet'"),
    ],
)
def test_what_is_not_supported_is_named(change: dict[str, Any], message: str) -> None:
    config = OmegaConf.to_container(OmegaConf.merge(published("small"), change))
    with pytest.raises(ModelError, match=message):
        decoder_config_from_audiocraft(config, 50.0, "some model")


def test_melody_models_are_refused_on_audiocraft_when_the_spec_is_read() -> None:
    with pytest.raises(ValueError, match="is a melody model, and backend is `audiocraft`"):
        ModelSpec(id="facebook/musicgen-stereo-melody-large", backend="audiocraft")
    with pytest.raises(ValueError, match="not a text-to-music MusicGen"):
        ModelSpec(id="facebook/musicgen-style")
    ModelSpec(id="facebook/musicgen-stereo-melody-large")
    ModelSpec(id="facebook/musicgen-stereo-large", backend="audiocraft")


@settings(deadline=None, max_examples=40)
@given(
    n_codebooks=st.integers(1, 16),
    size=st.sampled_from([2, 64, 400, 1024, 2048]),
    ratios=st.lists(st.integers(2, 8), min_size=1, max_size=4),
    rate_hz=st.integers(8000, 48_000),
)
def test_codec_config_comes_back_with_its_number_of_codebooks(
    n_codebooks: int, size: int, ratios: list[int], rate_hz: int
) -> None:
    shape = {"sample_rate": rate_hz, "channels": 1, "autoencoder": "seanet", "quantizer": "rvq"}
    config = {
        "compression_model": "encodec",
        "encodec": shape,
        "seanet": {"ratios": ratios, "norm": "weight_norm", "n_filters": 4, "lstm": 1},
        "rvq": {"n_q": n_codebooks, "bins": size},
    }
    made = codec_config_from_audiocraft(config, "codec")
    assert made.num_quantizers == n_codebooks
    back = codec_config_from_audiocraft(codec_config_to_audiocraft(made, n_codebooks), "codec")
    assert back.to_dict() == made.to_dict()


def test_references_in_a_config_are_followed_and_circles_refused() -> None:
    config = parse_config("a: ${b.c}\nb: {c: '${d}', e: '${a2}'}\nd: 7\na2: ${b.e}")
    assert look_up(config, "a") == 7
    assert look_up(config, "nothing.there", "default") == "default"
    with pytest.raises(ModelError, match="refers to itself"):
        look_up(config, "b.e")


# files


def test_an_export_loads_in_audiocrafts_own_loader_and_gives_the_same_tokens(
    tiny: TransformersMusicGen, export_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(export_folder)  # audiocraft takes the name of the text encoder as it stands
    monkeypatch.setattr(T5Conditioner, "MODELS", ["text_encoder"])
    monkeypatch.setattr(T5Conditioner, "MODELS_DIMS", {"text_encoder": 32})
    lm = loaders.load_lm_model(str(export_folder), device="cpu")
    codec = loaders.load_compression_model(str(export_folder), device="cpu")
    codes = own_greedy_codes(lm)
    assert torch.equal(codes, greedy_codes(tiny))
    with torch.no_grad():
        assert torch.equal(codec.decode(codes), torch.from_numpy(tiny.decode_audio(codes)))


def test_an_export_runs_on_the_audiocraft_backend(tiny: TransformersMusicGen, export_folder: Path) -> None:
    model = load_model(ModelSpec(id=str(export_folder), backend="audiocraft"), device="cpu")
    assert not model.info.trained
    assert model.info.max_frames == tiny.info.max_frames
    torch.testing.assert_close(loss_of(model), loss_of(tiny), rtol=1e-6, atol=0)
    assert torch.equal(greedy_codes(model), greedy_codes(tiny))


def test_converting_back_gives_the_folder_that_plain_transformers_loads(
    tiny: TransformersMusicGen, export_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "back"
    convert(str(export_folder), folder, library=None, adapter=None, base=None)
    network, notes = MusicgenForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not notes["missing_keys"]
    back = network.state_dict()
    for name, tensor in tiny.network.state_dict().items():
        assert torch.equal(back[name], tensor), name
    assert AutoProcessor.from_pretrained(folder).feature_extractor.sampling_rate == 1600
    assert (network.generation_config.guidance_scale, network.generation_config.top_k) == (3.0, 250)
    assert network.generation_config.do_sample
    model = load_model(ModelSpec(id=str(folder)), device="cpu")
    assert torch.equal(greedy_codes(model), greedy_codes(tiny))


def test_stereo_goes_to_audiocraft_and_back(
    stereo: TransformersMusicGen, stereo_folder: Path, tmp_path: Path
) -> None:
    convert(str(stereo_folder), tmp_path / "there", library=None, adapter=None, base=None)
    convert(str(tmp_path / "there"), tmp_path / "back", library=None, adapter=None, base=None)
    model = load_model(ModelSpec(id=str(tmp_path / "back")), device="cpu")
    for name, tensor in stereo.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor), name
    assert AutoProcessor.from_pretrained(tmp_path / "back").feature_extractor.feature_size == 2
    craft = load_model(ModelSpec(id=str(tmp_path / "there"), backend="audiocraft"), device="cpu")
    assert (craft.info.n_codebooks, craft.info.audio_format.channels) == (8, 2)
    assert torch.equal(greedy_codes(craft), greedy_codes(stereo))
    lm = torch.load(tmp_path / "there" / "state_dict.bin", weights_only=True)
    assert yaml.safe_load(lm["xp.cfg"])["codebooks_pattern"]["delay"]["delays"] == [0, 0, 1, 1, 2, 2, 3, 3]


def make_checkpoint(export_folder: Path, path: Path, **more: Any) -> None:
    """What audiocraft's solver leaves: OmegaConf's objects beside the weights."""
    package = torch.load(export_folder / "state_dict.bin", weights_only=True)
    config = OmegaConf.create(yaml.safe_load(package["xp.cfg"]))
    OmegaConf.set_struct(config, True)
    state = {
        "xp.cfg": config,
        "xp.sig": "abcd",
        "history": [{"train": {"ce": 5.0}}],
        "model": {name: torch.zeros_like(tensor) for name, tensor in package["best_state"].items()},
        "best_state": {"model": package["best_state"]},
        "fsdp_best_state": {},
        "ema": {"state": defaultdict(dict, {"model": {"out_norm.bias": torch.zeros(3)}}), "count": 2},
        **more,
    }
    torch.save(state, path)


def test_a_solvers_checkpoint_loads_with_its_best_weights(
    tiny: TransformersMusicGen, export_folder: Path, tmp_path: Path
) -> None:
    for name in ("compression_state_dict.bin", "text_encoder"):
        (tmp_path / name).symlink_to(export_folder / name)
    make_checkpoint(export_folder, tmp_path / "checkpoint.th")
    for place in (tmp_path, tmp_path / "checkpoint.th"):
        model = load_model(ModelSpec(id=str(place), backend="audiocraft"), device="cpu")
        torch.testing.assert_close(loss_of(model), loss_of(tiny), rtol=1e-6, atol=0)


def test_the_codec_may_lie_in_its_own_solvers_folder_or_only_be_named(
    tiny: TransformersMusicGen, export_folder: Path, tmp_path: Path
) -> None:
    named, trained = tmp_path / "named", tmp_path / "trained"
    tiny.network.audio_encoder.save_pretrained(named)
    trained.mkdir()
    package = torch.load(export_folder / "compression_state_dict.bin", weights_only=True)
    config = OmegaConf.create(yaml.safe_load(package["xp.cfg"]))
    torch.save({"xp.cfg": config, "best_state": {"model": package["best_state"]}}, trained / "checkpoint.th")
    lm = torch.load(export_folder / "state_dict.bin", weights_only=True)
    for number, where in enumerate((str(trained), f"//pretrained/{named}", None)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "text_encoder").symlink_to(export_folder / "text_encoder")
        config = yaml.safe_load(lm["xp.cfg"]) | {"compression_model_checkpoint": where}
        torch.save(lm | {"xp.cfg": yaml.safe_dump(config)}, folder / "state_dict.bin")
        if where is None:  # as the published models have it
            torch.save({"pretrained": str(named), "exported": True}, folder / "compression_state_dict.bin")
        model = load_model(ModelSpec(id=str(folder), backend="audiocraft"), device="cpu")
        codes = greedy_codes(model)
        assert torch.equal(codes, greedy_codes(tiny))
        assert (model.decode_audio(codes) == tiny.decode_audio(codes)).all()


def test_a_codec_of_which_only_the_first_codebooks_are_used_is_refused(
    export_folder: Path, tmp_path: Path
) -> None:
    lm = torch.load(export_folder / "state_dict.bin", weights_only=True)
    config = yaml.safe_load(lm["xp.cfg"])
    config["transformer_lm"]["n_q"], config["codebooks_pattern"]["delay"]["delays"] = 2, [0, 1]
    config["compression_model_n_q"] = 2
    torch.save(lm | {"xp.cfg": yaml.safe_dump(config)}, tmp_path / "state_dict.bin")
    (tmp_path / "compression_state_dict.bin").symlink_to(export_folder / "compression_state_dict.bin")
    with pytest.raises(ModelError, match="speaks in 2 codebooks of 64 codes, its codec in 4 of 64"):
        load_model(ModelSpec(id=str(tmp_path), backend="audiocraft"), device="cpu")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must not run",))


def test_a_checkpoint_that_would_run_code_is_refused(
    export_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_checkpoint(export_folder, tmp_path / "checkpoint.th", extra=Harmful())
    with pytest.raises(ModelError, match="cannot be read safely"):
        read_package(tmp_path / "checkpoint.th")
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_a_damaged_export_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state_dict.bin").write_bytes(content)
    with pytest.raises(ModelError, match=r"state_dict\.bin: cannot be read safely"):
        load_model(ModelSpec(id=str(tmp_path), backend="audiocraft"), device="cpu")


def test_an_export_without_codec_or_text_encoder_says_what_to_fetch(
    export_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "state_dict.bin").symlink_to(export_folder / "state_dict.bin")
    with pytest.raises(ModelError, match=r"no compression_state_dict\.bin"):
        load_model(ModelSpec(id=str(tmp_path), backend="audiocraft"), device="cpu")
    (tmp_path / "compression_state_dict.bin").symlink_to(export_folder / "compression_state_dict.bin")
    with pytest.raises(ModelError, match=r"text encoder 'text_encoder' is neither.*hf download"):
        load_model(ModelSpec(id=str(tmp_path), backend="audiocraft"), device="cpu")


def test_transformers_says_how_an_export_is_used(export_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.backend audiocraft, or.*lora-bench convert"):
        load_model(ModelSpec(id=str(export_folder)), device="cpu")


# adapters


def test_an_adapter_comes_back_from_audiocrafts_names(adapter_folder: Path, tmp_path: Path) -> None:
    rename_adapter(adapter_folder, tmp_path / "there", "audiocraft", weights_hash="other")
    rename_adapter(tmp_path / "there", tmp_path / "back", "transformers")
    names = list(load_file(tmp_path / "there" / "adapter_model.safetensors"))
    assert "base_model.model.transformer.layers.0.self_attn.q_proj.lora_A.weight" in names
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in
                     (adapter_folder, tmp_path / "back"))  # fmt: skip
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    configs = [
        json.loads((folder / "adapter_config.json").read_text())
        for folder in (adapter_folder, tmp_path / "back")
    ]
    modules = [config.pop("target_modules") for config in configs]
    assert configs[0] == configs[1]
    assert {name.split(".")[-1] for name in modules[1]} > {"q_proj", "out_proj", "fc1", "enc_to_dec_proj"}
    assert json.loads((tmp_path / "back" / "lora_bench.json").read_text())["weights_hash"] == "other"


def test_plain_peft_loads_a_converted_adapter_on_audiocrafts_split_model(
    tiny: TransformersMusicGen, adapter_folder: Path, tmp_path: Path
) -> None:
    tiny.load_adapter(adapter_folder)
    expected = greedy_codes(tiny)
    tiny.remove_adapter()
    lm = build_lm(take_apart(tiny.network, tiny._tokenizer), "tiny")
    split_attentions(lm)
    convert(str(adapter_folder), tmp_path / "there", library=None, adapter=None, base=None)
    adapted = peft.PeftModel.from_pretrained(lm, str(tmp_path / "there")).get_base_model()
    assert torch.equal(own_greedy_codes(adapted), expected)


def test_an_adapter_under_audiocrafts_names_loads_in_both_backends(
    tiny: TransformersMusicGen, adapter_folder: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    rename_adapter(adapter_folder, tmp_path / "there", "audiocraft")
    craft = load_model(ModelSpec(id=str(tiny_folder), backend="audiocraft"), device="cpu")
    expected = None
    for model in (tiny, craft):
        for folder in (adapter_folder, tmp_path / "there"):
            model.load_adapter(folder)
            expected = loss_of(model) if expected is None else expected
            torch.testing.assert_close(loss_of(model), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", ["audiocraft", "transformers"])
def test_merged_weights_go_to_both_libraries(
    tiny: TransformersMusicGen, adapter_folder: Path, tiny_folder: Path, tmp_path: Path, form: Any
) -> None:
    tiny.load_adapter(adapter_folder)
    convert(str(tiny_folder), tmp_path / "merged", library=form, adapter=adapter_folder, base=None)
    merged = load_model(ModelSpec(id=str(tmp_path / "merged"), backend=form), device="cpu")
    torch.testing.assert_close(loss_of(merged), loss_of(tiny), rtol=1e-5, atol=0)
    assert torch.equal(greedy_codes(merged), greedy_codes(tiny))


def test_an_adapter_follows_its_model_into_an_export(
    tiny: TransformersMusicGen, adapter_folder: Path, export_folder: Path, tmp_path: Path
) -> None:
    tiny.load_adapter(adapter_folder)
    model = load_model(ModelSpec(id=str(export_folder), backend="audiocraft"), device="cpu")
    model.load_adapter(adapter_folder)  # the same weights in another form are the same model
    torch.testing.assert_close(loss_of(model), loss_of(tiny), rtol=1e-6, atol=0)
    convert(str(adapter_folder), tmp_path / "there", library=None, adapter=None, base=str(export_folder))
    model.load_adapter(tmp_path / "there")
    torch.testing.assert_close(loss_of(model), loss_of(tiny), rtol=1e-6, atol=0)
    (tmp_path / "merged").mkdir()
    spec = ModelSpec(id=str(export_folder), backend="audiocraft", dtype="bfloat16")
    write_merged(spec, tmp_path / "there", tmp_path / "merged")
    merged = load_model(ModelSpec(id=str(tmp_path / "merged")), device="cpu")
    assert merged.network.dtype == torch.float32
    torch.testing.assert_close(loss_of(merged), loss_of(tiny), rtol=1e-5, atol=0)


# command line


def test_convert_prints_the_files_it_wrote(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(tiny_folder), "--to", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.split()
    assert str(tmp_path / "out" / "state_dict.bin") in printed
    assert all(Path(line).is_file() for line in printed)
    assert main(["convert", str(tiny_folder), "--to", str(tmp_path / "out")]) == UsageError.exit_code


def test_convert_refuses_options_that_do_not_fit(
    tiny_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is an adapter itself"):
        convert(str(adapter_folder), tmp_path / "x", library=None, adapter=adapter_folder, base=None)
    with pytest.raises(UsageError, match="only an adapter is for a model"):
        convert(str(tiny_folder), tmp_path / "x", library=None, adapter=None, base="pocket")
    assert not (tmp_path / "x").exists()


def test_a_failed_conversion_leaves_nothing(tiny_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lora_bench.models.bridges.exports._save", fail)
    with pytest.raises(Exception, match="disk is full"):
        convert(str(tiny_folder), tmp_path / "out", library=None, adapter=None, base=None)
    assert list(tmp_path.iterdir()) == []
