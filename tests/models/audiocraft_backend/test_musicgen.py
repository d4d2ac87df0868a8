"""audiocraft's classes behind the protocol: the same numbers as transformers', before and after training."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

if find_spec("audiocraft") is None:  # one that is installed but broken is an error
    pytest.skip("the audiocraft extra is not installed", allow_module_level=True)

from audiocraft.models.encodec import InterleaveStereoCompressionModel
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes

from lora_bench.errors import NoModulesMatchedError
from lora_bench.models import compiled_training as compiled_steps
from lora_bench.models import load_model
from lora_bench.models.audiocraft_backend.attention import SplitAttention, split_attentions
from lora_bench.models.audiocraft_backend.musicgen import AudiocraftMusicGen
from lora_bench.models.audiocraft_backend.networks import build_lm
from lora_bench.models.base import MusicModel
from lora_bench.models.bridges.parts import take_apart
from lora_bench.models.decoding.decoder import generate_codes
from lora_bench.models.token_set import TokenSet
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec, ModelSpec, TrainSpec
from lora_bench.stages.train import train_adapter

AddAdapter = Callable[[MusicModel, LoraSpec], None]
PROMPT = "a song with drums"
GREEDY = GenerationSpec(guidance=3.0, top_k=1)


@pytest.fixture(scope="module")
def _craft(tiny_folder: Path) -> AudiocraftMusicGen:
    return load_model(ModelSpec(id=str(tiny_folder), backend="audiocraft"), device="cpu")


@pytest.fixture
def craft(_craft: AudiocraftMusicGen) -> AudiocraftMusicGen:
    _craft.remove_adapter()
    _craft.set_training(False)
    return _craft


@pytest.fixture(scope="module")
def craft_stereo(stereo_folder: Path) -> AudiocraftMusicGen:
    return load_model(ModelSpec(id=str(stereo_folder), backend="audiocraft"), device="cpu")


@pytest.fixture
def packed_lm(tiny: TransformersMusicGen) -> LMModel:
    """audiocraft's language model as its own builder leaves it."""
    return build_lm(take_apart(tiny.network, tiny._tokenizer), "tiny")


def random_codes(model: MusicModel, n_clips: int, n_frames: int) -> torch.Tensor:
    shape = (n_clips, model.info.n_codebooks, n_frames)
    return torch.randint(0, model.info.codebook_size, shape, generator=torch.Generator().manual_seed(0))


def random_audio(model: MusicModel, n_clips: int, n_samples: int) -> np.ndarray:
    shape = (n_clips, model.info.audio_format.channels, n_samples)
    return np.random.default_rng(0).normal(0, 0.2, shape).astype(np.float32)


def own_greedy_codes(lm: LMModel, n_frames: int) -> torch.Tensor:
    """What audiocraft's own generation gives."""
    conditions = [ConditioningAttributes(text={"description": PROMPT})]
    return lm.generate(
        conditions=conditions, max_gen_len=n_frames, use_sampling=False, cfg_coef=3.0, num_samples=1
    )


def greedy_codes(model: MusicModel, n_frames: int) -> torch.Tensor:
    return generate_codes(model, PROMPT, [0], n_frames, GREEDY, SilentProgress())


def test_both_backends_describe_the_same_model(tiny: TransformersMusicGen, craft: AudiocraftMusicGen) -> None:
    assert craft.info == tiny.info
    assert craft.linear_module_names() == tiny.linear_module_names()


def test_codes_audio_latents_and_text_are_those_of_transformers_bit_for_bit(
    tiny: TransformersMusicGen, craft: AudiocraftMusicGen
) -> None:
    audio = random_audio(tiny, 2, 32 * 20 + 5)
    codes = tiny.encode_audio(audio)
    assert torch.equal(craft.encode_audio(audio), codes)
    assert np.array_equal(craft.decode_audio(codes), tiny.decode_audio(codes))
    assert np.array_equal(craft.audio_latents(audio), tiny.audio_latents(audio))
    texts = [PROMPT, "b"]
    for ours, theirs in zip(craft.encode_text(texts), tiny.encode_text(texts), strict=True):
        assert torch.equal(ours, theirs)


def test_stereo_codes_are_those_of_audiocrafts_own_wrapper(craft_stereo: AudiocraftMusicGen) -> None:
    wrapper = InterleaveStereoCompressionModel(craft_stereo.codec)
    audio = random_audio(craft_stereo, 2, 32 * 12)
    codes = wrapper.encode(torch.from_numpy(audio))[0]
    assert torch.equal(craft_stereo.encode_audio(audio), codes)
    with torch.no_grad():
        np.testing.assert_array_equal(craft_stereo.decode_audio(codes), wrapper.decode(codes).numpy())


@pytest.mark.parametrize(
    ("valid", "captions"),
    [([12], [PROMPT]), ([12, 7, 3], ["b", "a much longer caption", None]), ([9, 7], [None, None])],
)
def test_loss_is_that_of_transformers(
    tiny: TransformersMusicGen, craft: AudiocraftMusicGen, valid: list[int], captions: list[str | None]
) -> None:
    codes = random_codes(tiny, len(valid), 12)
    states = [None if caption is None else tiny.encode_text([caption])[0] for caption in captions]
    ours = craft.training_loss(codes, torch.tensor(valid), states)
    torch.testing.assert_close(
        ours, tiny.training_loss(codes, torch.tensor(valid), states), rtol=1e-6, atol=0
    )


def test_stereo_loss_is_that_of_transformers(
    stereo: TransformersMusicGen, craft_stereo: AudiocraftMusicGen
) -> None:
    codes, valid, states = (
        random_codes(stereo, 2, 10),
        torch.tensor([10, 6]),
        stereo.encode_text(["a", "bcd"]),
    )
    ours = craft_stereo.training_loss(codes, valid, states)
    torch.testing.assert_close(ours, stereo.training_loss(codes, valid, states), rtol=1e-6, atol=0)
    with pytest.raises(NoModulesMatchedError, match="'conditioning' matches no module"):
        craft_stereo.inject_lora(LoraSpec(targets="conditioning"), seed=0)


def test_loss_is_that_of_audiocrafts_own_predictions(craft: AudiocraftMusicGen, packed_lm: LMModel) -> None:
    codes = random_codes(craft, 1, 12)
    conditions = [ConditioningAttributes(text={"description": PROMPT})]
    with torch.no_grad():
        found = packed_lm.compute_predictions(codes, conditions, keep_only_valid_steps=False)
    assert bool(found.mask.all())
    losses = [
        torch.nn.functional.cross_entropy(found.logits[0, book], codes[0, book])
        for book in range(codes.shape[1])
    ]
    ours = craft.training_loss(codes, torch.tensor([12]), craft.encode_text([PROMPT]))
    torch.testing.assert_close(ours, torch.stack(losses).mean(), rtol=1e-6, atol=1e-6)


def test_splitting_the_attention_changes_no_token_and_hardly_a_logit(packed_lm: LMModel) -> None:
    sequence = torch.randint(0, 64, (2, 4, 9), generator=torch.Generator().manual_seed(1))
    conditions = [ConditioningAttributes(text={"description": text}) for text in ("one", "two")]
    with torch.no_grad():
        before, tokens = packed_lm(sequence, conditions), own_greedy_codes(packed_lm, 12)
        assert split_attentions(packed_lm) == 2 * 2
        torch.testing.assert_close(packed_lm(sequence, conditions), before, rtol=1e-5, atol=1e-6)
    assert torch.equal(own_greedy_codes(packed_lm, 12), tokens)
    assert not [name for name, _ in packed_lm.named_parameters() if "in_proj" in name]


def test_greedy_tokens_are_those_of_transformers_and_of_audiocraft_itself(
    tiny: TransformersMusicGen, craft: AudiocraftMusicGen, packed_lm: LMModel
) -> None:
    codes = greedy_codes(craft, 24)
    assert torch.equal(codes, greedy_codes(tiny, 24))
    assert torch.equal(codes, own_greedy_codes(packed_lm, 24))


def test_sampled_clips_depend_on_the_clip_and_not_on_the_backend(
    tiny: TransformersMusicGen, craft: AudiocraftMusicGen
) -> None:
    generation = GenerationSpec(top_k=20)
    codes = [
        generate_codes(model, PROMPT, clips, 10, generation, SilentProgress())
        for model, clips in ((tiny, [0, 1, 2]), (craft, [0, 1, 2]), (craft, [1]))
    ]
    assert torch.equal(codes[0], codes[1])
    assert torch.equal(codes[2][0], codes[1][1])


@pytest.mark.parametrize(
    "lora",
    [
        LoraSpec(rank=4, targets="all", dropout=0.0),
        LoraSpec(rank=2, targets="self_attention", dropout=0.0, use_dora=True),
        LoraSpec(rank=2, targets=["encoder_attn.q_proj", "fc1"], dropout=0.0, use_rslora=True),
    ],
    ids=["all", "dora", "names"],
)
def test_training_gives_the_same_adapter_losses_and_clips_as_with_transformers(
    tiny: TransformersMusicGen, craft: AudiocraftMusicGen, tmp_path: Path, lora: LoraSpec
) -> None:
    train = TrainSpec(steps=3, batch_size=2, lr=3e-3, eval_every=3, checkpoint_every=3)
    results, weights, codes = [], [], []
    for model in (tiny, craft):
        folder = tmp_path / type(model).__name__
        results.append(train_adapter(make_tokens(model), model, lora, train, 0, folder, SilentProgress()))
        weights.append({name: p.detach().clone() for name, p in model.adapter_parameters().items()})
        codes.append(greedy_codes(model, 12))
    theirs, ours = results
    assert ours.matched_modules == theirs.matched_modules
    assert ours.trainable_params == theirs.trainable_params
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        # Adam divides by the gradient's size: where that is nearly zero, rounding shows
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=2e-4)
    assert [point.step for point in ours.curve] == [point.step for point in theirs.curve]
    for name in ("train_loss", "eval_loss"):
        curves = [[getattr(point, name) for point in result.curve] for result in results]
        np.testing.assert_allclose(*(np.array(curve, dtype=float) for curve in curves), rtol=1e-5)
    assert torch.equal(codes[0], codes[1])
    assert all(bool(value.any()) for name, value in weights[1].items() if "lora_B" in name)
    assert torch.equal(own_greedy_codes(craft.lm, 12), codes[1])  # audiocraft itself hears the adapter


def make_tokens(model: MusicModel) -> TokenSet:
    n, captions = 6, ("one", "another caption")
    codes = random_codes(model, n, 8)
    return TokenSet(
        key="test",
        codes=codes.numpy().astype(np.int16),
        valid_frames=np.array([8, 8, 5, 8, 8, 8], dtype=np.int64),
        splits=("train",) * 4 + ("eval",) * 2,
        track_ids=tuple("abcdef"),
        caption_index=np.arange(n, dtype=np.int64) % 2,
        captions=captions,
        text_states=tuple(state.numpy() for state in model.encode_text(captions)),
        slice_s=8 / model.info.frame_rate_hz,
    )


def test_adapters_go_from_one_backend_to_the_other(
    tiny: TransformersMusicGen, craft: AudiocraftMusicGen, add_adapter: AddAdapter, tmp_path: Path
) -> None:
    codes, valid, states = random_codes(tiny, 1, 8), torch.tensor([8]), tiny.encode_text([PROMPT])
    base = craft.training_loss(codes, valid, states)
    for source, target in ((craft, tiny), (tiny, craft)):
        folder = tmp_path / type(source).__name__
        add_adapter(source, LoraSpec(rank=4, targets="all"))
        source.save_adapter(folder)
        target.load_adapter(folder)
        loss = target.training_loss(codes, valid, states)
        torch.testing.assert_close(loss, source.training_loss(codes, valid, states), rtol=1e-5, atol=0)
        assert abs(float(loss - base)) > 1e-3
    craft.remove_adapter()
    assert torch.equal(craft.training_loss(codes, valid, states), base)
    configs = [(tmp_path / name / "adapter_config.json").read_text() for name in
               ("AudiocraftMusicGen", "TransformersMusicGen")]  # fmt: skip
    assert configs[0] == configs[1]


def test_only_the_adapter_gets_gradients_and_every_part_of_it(
    craft: AudiocraftMusicGen, add_adapter: AddAdapter
) -> None:
    add_adapter(craft, LoraSpec(rank=2, targets="all"))
    craft.set_training(True)
    codes, states = random_codes(craft, 2, 8), craft.encode_text(["a", "a longer one"])
    craft.training_loss(codes, torch.tensor([8, 6]), states).backward()
    wanted = craft.adapter_parameters()
    assert all(p.grad is not None and bool(p.grad.any()) for p in wanted.values())
    others = {id(p) for p in craft.lm.parameters()} - {id(p) for p in wanted.values()}
    assert not [p for p in craft.lm.parameters() if id(p) in others and p.grad is not None]
    assert {id(p) for p in wanted.values()} < {id(p) for p in craft.lm.parameters()}


@pytest.mark.parametrize("way", ["gradient_checkpointing", pytest.param("compiled", marks=pytest.mark.slow)])
def test_other_ways_of_a_step_give_the_same_gradients_with_padded_captions(
    way: str, craft: AudiocraftMusicGen, add_adapter: AddAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_steps, "COMPILER", "aot_eager")
    add_adapter(craft, LoraSpec(rank=2, targets="attention", dropout=0.0))
    codes, states = random_codes(craft, 2, 8), craft.encode_text(["a", "a longer one"])
    grads = []
    for on in (False, True):
        craft.set_training(True, **{way: on})
        loss = craft.training_loss(codes, torch.tensor([8, 6]), states)
        grads.append(torch.autograd.grad(loss, list(craft.adapter_parameters().values())))
    for plain, other in zip(*grads, strict=True):
        torch.testing.assert_close(other, plain, rtol=1e-6 if way != "compiled" else 1e-4, atol=1e-9)
    assert all(m.text_mask is None for m in craft.lm.modules() if isinstance(m, SplitAttention))


def test_positions_stay_exact_in_half_precision(tiny_folder: Path, craft: AudiocraftMusicGen) -> None:
    half = load_model(ModelSpec(id=str(tiny_folder), backend="audiocraft", dtype="bfloat16"), device="cpu")
    assert half.decoder_weights().embeddings.dtype == torch.bfloat16
    positions = half.decoder_weights().positions
    assert torch.equal(positions, craft.decoder_weights().positions)
    step = torch.arange(len(positions), dtype=torch.float64)
    torch.testing.assert_close(positions[:, 0].double(), step.cos(), rtol=0, atol=1e-4)
