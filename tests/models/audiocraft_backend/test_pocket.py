"""The two backends on the pocket model, whose weights are trained: the same numbers, before and after LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

if find_spec("audiocraft") is None:  # one that is installed but broken is an error
    pytest.skip("the audiocraft extra is not installed", allow_module_level=True)

from audiocraft.modules.conditioners import ConditioningAttributes

from lora_bench.artifacts import TrainResult
from lora_bench.models import load_model
from lora_bench.models.audiocraft_backend.musicgen import AudiocraftMusicGen
from lora_bench.models.base import MusicModel
from lora_bench.models.bridges.conversion import convert
from lora_bench.models.bridges.tensors import codec_to_audiocraft, codec_to_transformers
from lora_bench.models.decoding.decoder import generate_codes
from lora_bench.models.token_set import TokenSet
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec, ModelSpec, TrainSpec
from lora_bench.stages.train import train_adapter
from pocket_training.codec_parts import PocketCodec

RATE_HZ = 16_000
N_FRAMES = 24
PROMPTS = ("chiptune, 8-bit game loop, square lead", "calm piano and strings")
GREEDY = GenerationSpec(guidance=3.0, top_k=1)
LORA = LoraSpec(rank=4, alpha=8, targets="attention", dropout=0.05)
TRAIN = TrainSpec(steps=3, batch_size=2, lr=2e-3, warmup_frac=0.0, eval_every=3, checkpoint_every=3)


@dataclass(frozen=True)
class Trained:
    """What one backend made of the pocket model."""

    model: MusicModel
    adapter: Path
    result: TrainResult
    loss_before: float
    loss: float
    codes: tuple[torch.Tensor, ...]


@pytest.fixture(scope="module")
def theirs() -> TransformersMusicGen:
    return load_model(ModelSpec(), device="cpu")


@pytest.fixture(scope="module")
def ours() -> AudiocraftMusicGen:
    return load_model(ModelSpec(backend="audiocraft"), device="cpu")


@pytest.fixture(scope="module")
def music() -> NDArray[np.float32]:
    """Six excerpts of one second, float32 [6, 1, S]: arpeggios of square waves over noise."""
    rng = np.random.default_rng(0)
    time_s = np.arange(6 * RATE_HZ) / RATE_HZ
    tone_hz = 110.0 * 2 ** (rng.integers(0, 24, 48) / 12)[(time_s * 8).astype(int)]
    audio = 0.2 * np.sign(np.sin(2 * np.pi * np.cumsum(tone_hz) / RATE_HZ)) + rng.normal(0, 0.02, len(time_s))
    return audio.astype(np.float32).reshape(6, 1, -1)


@pytest.fixture(scope="module")
def tokens(theirs: TransformersMusicGen, music: NDArray[np.float32]) -> TokenSet:
    codes = theirs.encode_audio(music)
    return TokenSet(
        key="test",
        codes=codes.numpy().astype(np.int16),
        valid_frames=np.array([50, 50, 33, 50, 50, 40], dtype=np.int64),
        splits=("train",) * 4 + ("eval",) * 2,
        track_ids=tuple("abcdef"),
        caption_index=np.arange(6, dtype=np.int64) % 2,
        captions=PROMPTS,
        text_states=tuple(state.numpy() for state in theirs.encode_text(PROMPTS)),
        slice_s=1.0,
    )


@pytest.fixture(scope="module")
def trained(
    theirs: TransformersMusicGen,
    ours: AudiocraftMusicGen,
    tokens: TokenSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Trained, Trained]:
    """By transformers and by audiocraft: the same spec, the same seed."""
    return train(theirs, tokens, tmp_path_factory), train(ours, tokens, tmp_path_factory)


def train(model: MusicModel, tokens: TokenSet, folders: pytest.TempPathFactory) -> Trained:
    model.remove_adapter()
    folder = folders.mktemp("trained")
    before = loss_of(model, tokens)
    result = train_adapter(tokens, model, LORA, TRAIN, 0, folder, SilentProgress())
    model.save_adapter(folder / "adapter")
    loss, codes = loss_of(model, tokens), greedy_codes(model)
    model.remove_adapter()
    return Trained(model, folder / "adapter", result, before, loss, codes)


def loss_of(model: MusicModel, tokens: TokenSet) -> float:
    """In eval mode, over captions of different lengths and one that was dropped."""
    states = [torch.from_numpy(tokens.text_states[i]) for i in (0, 1)]
    codes = torch.from_numpy(tokens.codes[:3].astype(np.int64))
    with torch.no_grad():
        return float(model.training_loss(codes, torch.tensor([50, 50, 33]), [*states, None]))


def greedy_codes(model: MusicModel, texts: tuple[str, ...] = PROMPTS) -> tuple[torch.Tensor, ...]:
    return tuple(generate_codes(model, text, [0], N_FRAMES, GREEDY, SilentProgress()) for text in texts)


def own_greedy_codes(model: MusicModel, text: str) -> torch.Tensor:
    """What the library's own generation gives."""
    if isinstance(model, AudiocraftMusicGen):
        conditions = [ConditioningAttributes(text={"description": text})]
        return model.lm.generate(
            conditions=conditions, num_samples=1, max_gen_len=N_FRAMES, use_sampling=False, cfg_coef=3.0
        )
    network: Any = model.network
    ids = model._tokenizer(text, return_tensors="pt")
    decode, found = network.audio_encoder.decode, []
    network.audio_encoder.decode = lambda codes, *rest, **more: (
        found.append(codes[0]) or decode(codes, *rest, **more)
    )
    try:
        network.generate(**ids, do_sample=False, guidance_scale=3.0, max_new_tokens=N_FRAMES + 3)
    finally:
        del network.audio_encoder.decode
    return found[0]


def same(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_codes_sound_and_text_states_are_equal_bit_for_bit(
    theirs: TransformersMusicGen, ours: AudiocraftMusicGen, music: NDArray[np.float32]
) -> None:
    assert ours.info == theirs.info
    assert ours.info.trained
    codes = theirs.encode_audio(music)
    assert len(codes.unique()) > 100
    assert torch.equal(ours.encode_audio(music), codes)
    assert np.array_equal(ours.decode_audio(codes[:2]), theirs.decode_audio(codes[:2]))
    for a, b in zip(ours.encode_text(PROMPTS), theirs.encode_text(PROMPTS), strict=True):
        assert torch.equal(a, b)


def test_sampled_clips_of_the_base_model_are_equal_code_by_code(
    theirs: TransformersMusicGen, ours: AudiocraftMusicGen
) -> None:
    published = GenerationSpec(guidance=3.0, top_k=250)
    made = [
        generate_codes(model, PROMPTS[0], [0, 1], N_FRAMES, published, SilentProgress())
        for model in (theirs, ours)
    ]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0][0], made[0][1])


def test_losses_are_equal_before_and_after_fine_tuning(trained: tuple[Trained, Trained]) -> None:
    by_transformers, by_audiocraft = trained
    assert by_audiocraft.loss_before == pytest.approx(by_transformers.loss_before, rel=1e-6)
    assert by_audiocraft.loss == pytest.approx(by_transformers.loss, rel=1e-5)
    assert by_audiocraft.loss < by_audiocraft.loss_before - 0.02  # something was learnt
    curves = [
        np.array(
            [(point.step, point.train_loss, point.eval_loss) for point in each.result.curve], dtype=float
        )
        for each in trained
    ]
    np.testing.assert_allclose(*curves, rtol=1e-5)  # not a number where nothing was measured
    assert np.isfinite(curves[0][-1]).all()
    assert by_audiocraft.result.matched_modules == by_transformers.result.matched_modules
    assert by_audiocraft.result.trainable_params == by_transformers.result.trainable_params


def test_greedy_tokens_are_equal_and_those_of_either_library_itself(
    theirs: TransformersMusicGen, ours: AudiocraftMusicGen, trained: tuple[Trained, Trained]
) -> None:
    base = greedy_codes(theirs)
    assert same(greedy_codes(ours), base)
    assert same(trained[0].codes, trained[1].codes)
    assert not same(trained[0].codes, base)
    for each in trained:
        assert torch.equal(own_greedy_codes(each.model, PROMPTS[0]), base[0])
        each.model.load_adapter(each.adapter)
        assert torch.equal(own_greedy_codes(each.model, PROMPTS[0]), each.codes[0])
        each.model.remove_adapter()


def test_an_adapter_of_either_backend_gives_the_same_tokens_on_the_other_under_either_name(
    trained: tuple[Trained, Trained], tokens: TokenSet, tmp_path: Path
) -> None:
    for number, (source, target) in enumerate([trained, trained[::-1]]):
        converted = tmp_path / f"adapter-{number}"
        convert(str(source.adapter), converted, library=None, adapter=None, base=None)
        for folder in (source.adapter, converted):
            target.model.load_adapter(folder)
            assert loss_of(target.model, tokens) == pytest.approx(source.loss, rel=1e-6)
            assert same(greedy_codes(target.model, PROMPTS[:1]), source.codes[:1])
        target.model.remove_adapter()


def test_merged_weights_go_to_both_libraries_and_give_the_adapters_tokens(
    trained: tuple[Trained, Trained], tokens: TokenSet, tmp_path: Path
) -> None:
    source = trained[1]
    for form in ("transformers", "audiocraft"):
        folder = tmp_path / form
        convert("pocket", folder, library=form, adapter=source.adapter, base=None)
        merged = load_model(ModelSpec(id=str(folder), backend=form), device="cpu")
        assert merged.info.trained
        assert loss_of(merged, tokens) == pytest.approx(source.loss, rel=1e-5)
        assert same(greedy_codes(merged, PROMPTS[:1]), source.codes[:1])


def test_the_codec_that_was_trained_with_audiocrafts_parts_has_every_weight_in_either_library(
    theirs: TransformersMusicGen,
) -> None:
    shipped = theirs.network.audio_encoder.state_dict()
    codec = PocketCodec()
    codec.load_state_dict(codec_to_audiocraft(shipped))
    back = codec_to_transformers(codec.state_dict())
    assert back.keys() == shipped.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in shipped.items())
