"""MusicGen Melody, conditioned on text alone, against transformers' own model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from support.melody_model import CHROMA_LENGTH, save_random_melody
from transformers import MusicgenMelodyForConditionalGeneration

from benchmarks.random_model import TINY, TINY_STEREO
from lora_bench.cli.model_rehearsal import rehearse_model
from lora_bench.errors import ModelError, NoModulesMatchedError
from lora_bench.models import load_model
from lora_bench.models.bridges.conversion import convert
from lora_bench.models.decoding.decoder import Decoder, generate_batches, generate_codes
from lora_bench.models.delay_pattern import delay_codes
from lora_bench.models.identity import identify_folder
from lora_bench.models.quiet import quiet_transformers
from lora_bench.models.transformers_melody import TransformersMelody
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec, ModelSpec

AddAdapter = Callable[[Any, LoraSpec], None]
PROMPT = "a song with drums"
SHAPES = {"mono": TINY, "stereo": TINY_STEREO}
N_FRAMES = 20


@pytest.fixture(scope="module", params=SHAPES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_melody(tmp_path_factory.mktemp(request.param), SHAPES[request.param])


@pytest.fixture(scope="module")
def mono_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_melody(tmp_path_factory.mktemp("melody"), TINY)


def load(folder: Path, **options: str) -> TransformersMelody:
    model = load_model(ModelSpec(id=str(folder), **options), device="cpu")
    assert isinstance(model, TransformersMelody)
    return model


@pytest.fixture
def melody(folder: Path) -> TransformersMelody:
    return load(folder)


@pytest.fixture
def mono(mono_folder: Path) -> TransformersMelody:
    return load(mono_folder)


def make_codes(model: TransformersMelody, n_clips: int, n_frames: int) -> torch.Tensor:
    shape = (n_clips, model.info.n_codebooks, n_frames)
    return torch.randint(0, model.info.codebook_size, shape, generator=torch.Generator().manual_seed(0))


def own_codes(model: TransformersMelody, guidance: float, prompt: str = PROMPT) -> torch.Tensor:
    """Codes [K, F] that transformers' `generate` hands to the codec, left and right interleaved."""
    seen: list[torch.Tensor] = []
    codec, original = model.network.audio_encoder, model.network.audio_encoder.decode

    def record(codes: torch.Tensor, **options: Any) -> Any:
        seen.append(codes[0, 0])
        return original(codes, **options)

    ids = model._tokenizer([prompt], return_tensors="pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "decode", record)
        model.network.generate(
            **ids, do_sample=False, guidance_scale=guidance, max_new_tokens=N_FRAMES + model.info.max_delay
        )
    return torch.stack(seen, dim=1).flatten(0, 1)


def our_codes(model: TransformersMelody, guidance: float, **options: Any) -> torch.Tensor:
    generation = GenerationSpec(guidance=guidance, top_k=1, **options)
    return generate_codes(model, PROMPT, [0], N_FRAMES, generation, SilentProgress())[0]


# loading


def test_facts_are_those_of_the_config(melody: TransformersMelody) -> None:
    info = melody.info
    assert info.max_frames == 256 - 3 - CHROMA_LENGTH
    assert info.n_codebooks == 4 * info.audio_format.channels
    assert not info.trained
    names = melody.linear_module_names()
    assert not any("encoder_attn" in name for name in names)
    assert "audio_enc_to_dec_proj" not in names  # without a melody its output is a constant


def test_the_length_of_the_melody_is_part_of_the_identity(mono_folder: Path, tmp_path: Path) -> None:
    before = identify_folder(mono_folder, "melody")
    assert load(mono_folder).info.weights_hash == before.weights
    copy = Path(shutil.copytree(mono_folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"chroma_length": 5}))
    after = identify_folder(copy, "melody")
    assert after.weights != before.weights
    assert after.codec == before.codec


def test_a_missing_projection_of_the_melody_is_named(mono_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(mono_folder, tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    del tensors["audio_enc_to_dec_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors, first audio_enc_to_dec_proj\.weight"):
        load(copy)


# loss


def own_loss(
    model: TransformersMelody, codes: torch.Tensor, caption: str, *, is_dropped: bool
) -> torch.Tensor:
    """Transformers' loss of one clip; a dropped caption is masked, as its processor does without a text."""
    ids = model._tokenizer([caption], return_tensors="pt")
    if is_dropped:
        ids["attention_mask"][:] = 0
        # the encoder reads the text whole, only its states are masked
        with pytest.MonkeyPatch.context() as patch:
            forward = model.network.text_encoder.forward
            patch.setattr(
                model.network.text_encoder,
                "forward",
                lambda **options: forward(**{**options, "attention_mask": None}),
            )
            return model.network(**ids, labels=own_labels(model, codes)).loss
    return model.network(**ids, labels=own_labels(model, codes)).loss


def own_labels(model: TransformersMelody, codes: torch.Tensor) -> torch.Tensor:
    n_valid, start_id = torch.tensor([codes.shape[-1]]), model.info.codebook_size
    return delay_codes(codes, n_valid, model.info.delays, start_id).transpose(1, 2)


@pytest.mark.parametrize("is_dropped", [False, True])
def test_loss_equals_that_of_transformers(melody: TransformersMelody, is_dropped: bool) -> None:
    codes = make_codes(melody, 1, 12)
    (state,) = melody.encode_text([PROMPT])
    given = melody.drop_text(state) if is_dropped else state
    ours = melody.training_loss(codes, torch.tensor([12]), [given])
    torch.testing.assert_close(
        ours, own_loss(melody, codes, PROMPT, is_dropped=is_dropped), rtol=1e-6, atol=1e-6
    )


def test_logits_equal_those_of_transformers(melody: TransformersMelody) -> None:
    codes = make_codes(melody, 1, 12)
    text, mask = melody._batch_text(melody.encode_text([PROMPT]))
    hidden = melody._run_decoder(codes, text, mask)
    ours = torch.stack([head(hidden)[0] for head in melody.network.decoder.lm_heads])
    ids = melody._tokenizer([PROMPT], return_tensors="pt")
    theirs = melody.network(**ids, decoder_input_ids=codes[0]).logits[:, -12:]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_clips_loss_depends_on_no_other_caption_of_its_batch(melody: TransformersMelody) -> None:
    codes, n_valid = make_codes(melody, 4, 12), torch.full((4,), 12)
    states = melody.encode_text(["b", "a much longer song", "a song", "a song"])
    states[3] = melody.drop_text(states[3])
    alone = [melody.training_loss(codes[n : n + 1], n_valid[:1], [states[n]]) for n in range(4)]
    together = melody.training_loss(codes, n_valid, states)
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-6, atol=1e-6)
    assert len({round(float(loss), 4) for loss in alone}) == 4


# greedy tokens


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("is_compiled", [True, False], ids=["compiled", "library"])
def test_greedy_tokens_equal_those_of_transformers(
    melody: TransformersMelody, monkeypatch: pytest.MonkeyPatch, guidance: float, is_compiled: bool
) -> None:
    if not is_compiled:
        monkeypatch.setattr("lora_bench.models.decoding.small_batch_step.can_stream", lambda _: False)
    assert torch.equal(our_codes(melody, guidance), own_codes(melody, guidance))


@pytest.mark.parametrize(
    "lora",
    [LoraSpec(rank=4, targets="all"), LoraSpec(rank=4, targets="attention+ffn", use_dora=True)],
    ids=["lora", "dora"],
)
def test_greedy_tokens_with_an_adapter_equal_those_of_transformers(
    melody: TransformersMelody, add_adapter: AddAdapter, lora: LoraSpec
) -> None:
    base = our_codes(melody, 3.0)
    add_adapter(melody, lora)
    found = our_codes(melody, 3.0)
    assert torch.equal(found, own_codes(melody, 3.0))
    assert not torch.equal(found, base)


def test_the_next_prompt_may_be_longer_or_shorter(mono: TransformersMelody) -> None:
    generation = GenerationSpec(top_k=1)
    decoder = Decoder(mono, generation)
    for prompt in ("calm", PROMPT * 3, "b", "calm"):
        batches = generate_batches(mono, prompt, [0], N_FRAMES, generation, SilentProgress(), decoder)
        found = torch.cat([batch.codes for batch in batches])[0]
        assert torch.equal(found, own_codes(mono, 3.0, prompt))


def test_positions_go_on_beyond_the_stored_table(tmp_path: Path) -> None:
    short = load(save_random_melody(tmp_path, replace(TINY, max_positions=CHROMA_LENGTH + N_FRAMES + 3)))
    assert short.info.max_frames == N_FRAMES
    assert torch.equal(our_codes(short, 3.0), own_codes(short, 3.0))
    with pytest.raises(ModelError, match=f"{N_FRAMES + 1} frames are more than"):
        generate_codes(short, PROMPT, [0], N_FRAMES + 1, GenerationSpec(), SilentProgress())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_clip_is_the_same_in_any_batch(mono_folder: Path, dtype: str) -> None:
    model = load(mono_folder, dtype=dtype)

    def decode(clips: Sequence[int], size: int) -> torch.Tensor:
        generation = GenerationSpec(batch_size=size)
        return generate_codes(model, PROMPT, clips, 10, generation, SilentProgress())

    together = decode(range(18), 16)
    assert len(together.unique(dim=0)) == 18
    for size in (1, 7):
        assert torch.equal(decode(range(18), size), together)
    assert torch.equal(decode([17, 3], 2), together[[17, 3]])


def test_eight_bits_change_few_greedy_tokens(mono: TransformersMelody) -> None:
    expected = our_codes(mono, 3.0)
    found = our_codes(mono, 3.0, quantization="int8", batch_size=1)
    assert float((found == expected).float().mean()) > 0.8


# adapters


def test_cross_attention_is_refused_with_the_reason(mono: TransformersMelody) -> None:
    for targets in ("cross_attention", "self_attention+cross_attention", ["encoder_attn.q_proj"]):
        with pytest.raises(NoModulesMatchedError, match=r"has no cross-attention.*use `self_attention`"):
            mono.inject_lora(LoraSpec(rank=2, targets=targets), seed=0)
    injected = mono.inject_lora(LoraSpec(rank=2, targets="attention"), seed=0)
    assert injected.matched_modules == {"self_attention": 8}


def test_a_saved_adapter_loads_in_plain_peft(
    melody: TransformersMelody, folder: Path, add_adapter: AddAdapter, tmp_path: Path
) -> None:
    add_adapter(melody, LoraSpec(rank=4, targets="all", dropout=0.0))
    melody.save_adapter(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["auto_mapping"] is None or "MusicgenMelody" in config["auto_mapping"]["base_model_class"]
    codes = make_codes(melody, 1, 12)
    ids = melody._tokenizer([PROMPT], return_tensors="pt")
    expected = melody.network(**ids, decoder_input_ids=codes[0]).logits
    with quiet_transformers():
        plain = MusicgenMelodyForConditionalGeneration.from_pretrained(folder)
    before = plain(**ids, decoder_input_ids=codes[0]).logits
    adapted = peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    assert torch.equal(adapted(**ids, decoder_input_ids=codes[0]).logits, expected)
    assert not torch.allclose(before, expected, atol=1e-3)
    melody.load_adapter(tmp_path / "adapter")
    assert torch.equal(melody.network(**ids, decoder_input_ids=codes[0]).logits, expected)


def test_an_adapter_folds_into_weights_that_plain_transformers_loads(
    mono: TransformersMelody, mono_folder: Path, add_adapter: AddAdapter, tmp_path: Path
) -> None:
    add_adapter(mono, LoraSpec(rank=4, targets="all", dropout=0.0))
    mono.save_adapter(tmp_path / "adapter")
    source = Path(shutil.copytree(mono_folder, tmp_path / "source"))
    (source / "preprocessor_config.json").write_text("{}")  # the melody's, which is kept as it is
    merged = tmp_path / "merged"
    convert(str(source), merged, library="transformers", adapter=tmp_path / "adapter", base=None)
    assert (merged / "preprocessor_config.json").read_text() == "{}"
    with quiet_transformers():
        plain = MusicgenMelodyForConditionalGeneration.from_pretrained(merged)
    codes, ids = make_codes(mono, 1, 12), mono._tokenizer([PROMPT], return_tensors="pt")
    expected = mono.network(**ids, decoder_input_ids=codes[0]).logits
    found = plain(**ids, decoder_input_ids=codes[0]).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_audiocrafts_form_is_refused(mono_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a melody model, expected a text-to-music MusicGen"):
        convert(str(mono_folder), tmp_path / "export", library="audiocraft", adapter=None, base=None)
    assert not (tmp_path / "export").exists()
    pytest.importorskip("audiocraft", reason="the audiocraft extra is not installed")
    with pytest.raises(ModelError, match=r"leave out model\.backend audiocraft"):
        load_model(ModelSpec(id=str(mono_folder), backend="audiocraft"), device="cpu")


def test_doctor_loads_and_describes_it(mono_folder: Path) -> None:
    found = {finding.name: finding.detail for finding in rehearse_model(str(mono_folder))}
    assert found["identity"] == identify_folder(mono_folder, "melody").weights
    assert found["loading"] == "loads offline, as in a run"
