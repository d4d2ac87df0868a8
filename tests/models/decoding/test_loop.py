"""Steps of fixed shapes, which graphs on a GPU replay, against steps that grow."""

from __future__ import annotations

import pytest
import torch
from support.fixed_steps import make_fixed_steps

from lora_bench.models.decoding import decoder as decoding
from lora_bench.models.decoding.decoder import Decoder, generate_codes
from lora_bench.models.decoding.kernels import choose_kernel
from lora_bench.models.decoding.kv_cache import FixedPast, GrowingPast, KeyValueCache
from lora_bench.models.decoding.loop import BUCKET, UNKNOWN, Sampling
from lora_bench.models.delay_pattern import delay_codes
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec

PROMPTS = ("a song with drums", "calm")
N_FRAMES = 2 * BUCKET + 9


@pytest.mark.usefixtures("by_library")
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("top_k", [1, 40])
def test_fixed_shapes_give_the_codes_of_growing_ones(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch, guidance: float, top_k: int
) -> None:
    generation = GenerationSpec(guidance=guidance, top_k=top_k, batch_size=5)
    clips = range(8)  # two batches, the second one smaller
    grown = [generate_codes(tiny, text, clips, N_FRAMES, generation, SilentProgress()) for text in PROMPTS]
    monkeypatch.setattr(decoding, "EagerSteps", make_fixed_steps)
    decoder = Decoder(tiny, generation)
    for text, expected in zip(PROMPTS, grown, strict=True):
        batches = decoding.generate_batches(
            tiny, text, clips, N_FRAMES, generation, SilentProgress(), decoder
        )
        found = torch.cat([batch.codes for batch in batches])
        # a mask may round otherwise than a slice does, and turn a draw at a border
        agreement = float((found == expected).float().mean())
        assert agreement == 1.0 if top_k == 1 else agreement > 0.97


@pytest.mark.parametrize("steps", ["compiled", "by_library"])
@pytest.mark.parametrize("batch_size", [4, 10])
def test_a_decoder_is_used_for_one_prompt_after_another(
    tiny: TransformersMusicGen, request: pytest.FixtureRequest, batch_size: int, steps: str
) -> None:
    if steps == "by_library":
        request.getfixturevalue(steps)
    generation = GenerationSpec(batch_size=batch_size)
    decoder = Decoder(tiny, generation)
    for text in (*PROMPTS, PROMPTS[0]):
        alone = generate_codes(tiny, text, range(14), 20, generation, SilentProgress())
        batches = decoding.generate_batches(tiny, text, range(14), 20, generation, SilentProgress(), decoder)
        assert torch.equal(torch.cat([batch.codes for batch in batches]), alone)


@pytest.mark.usefixtures("by_library")
def test_weights_are_prepared_once_for_all_prompts(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    original = decoding.DecoderStep

    def count(*arguments: object) -> object:
        made.append(1)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "DecoderStep", count)
    generation = GenerationSpec(batch_size=10)
    decoder = Decoder(tiny, generation)
    for text in PROMPTS:
        list(decoding.generate_batches(tiny, text, range(20), 8, generation, SilentProgress(), decoder))
    assert len(made) == 1


def test_both_pasts_attend_alike_and_ignore_what_is_not_yet_written() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, 2, BUCKET, 8)
    growing = GrowingPast(KeyValueCache(torch.zeros(shape), torch.zeros(shape)))
    stale = KeyValueCache(torch.full(shape, 9.0), torch.full(shape, -9.0))  # of an earlier batch
    position = torch.zeros(1, dtype=torch.int64)
    fixed = FixedPast(stale, position)
    for step in range(10):
        growing.position = step
        position.fill_(step)
        fixed.begin_step()
        query, key, value = torch.randn(3, 3, 2, 8, generator=generator).unbind(0)
        torch.testing.assert_close(
            fixed.attend(0, query, key, value), growing.attend(0, query, key, value), rtol=1e-5, atol=1e-6
        )


def test_eight_bit_decoding_stays_near_the_exact_one(tiny: TransformersMusicGen, add_adapter: object) -> None:
    add_adapter(tiny, LoraSpec(rank=4, targets="all"))  # type: ignore[operator]
    exact = GenerationSpec(top_k=1)
    rounded = GenerationSpec(top_k=1, quantization="int8")
    codes = generate_codes(tiny, PROMPTS[0], range(2), 6, exact, SilentProgress())
    found = generate_codes(tiny, PROMPTS[0], range(2), 6, rounded, SilentProgress())
    # random weights have nearly equal logits, so that rounding turns many choices; chance is 1 in 64
    assert float((codes == found)[..., 0].float().mean()) >= 0.5
    other = generate_codes(
        tiny, PROMPTS[0], range(20), 30, GenerationSpec(quantization="int8", batch_size=20), SilentProgress()
    )
    alone = generate_codes(
        tiny, PROMPTS[0], [13], 30, GenerationSpec(quantization="int8", batch_size=9), SilentProgress()
    )
    assert torch.equal(alone[0], other[13])


def test_logits_of_eight_bits_are_close(tiny: TransformersMusicGen) -> None:
    logits = {}
    for quantization in (None, "int8"):
        generation = GenerationSpec(quantization=quantization)
        kernel = choose_kernel(tiny.device, tiny.dtype, quantization)
        with torch.inference_mode():
            weights = tiny.decoder_weights()
            step = decoding.DecoderStep(weights, tiny.info, 2, generation.guidance, kernel)
            step.read_text(tiny.encode_text([PROMPTS[0]])[0])
            cache = KeyValueCache.allocate(weights, step.n_rows, 4, kernel.past_dtype(tiny.dtype))
            tokens = torch.zeros(2, tiny.info.n_codebooks, dtype=torch.int64)
            logits[quantization] = step(tokens, step.positions[0], GrowingPast(cache))
    error = (logits["int8"] - logits[None]).norm() / logits[None].norm()
    assert 1e-5 < float(error) < 0.1


def test_a_clip_begins_with_what_is_given_and_is_over_when_its_last_codebook_is() -> None:
    sampling = Sampling((0, 1, 2), 4, 64, 1.0, 1)
    assert sampling.n_positions == 6
    logits = torch.zeros(1, 3, 64)
    logits[..., 9] = 1.0
    uniform = torch.full((1, 3), 0.5, dtype=torch.float64)
    codes = torch.full((1, 3, 4), UNKNOWN)
    codes[..., 0] = 7  # given
    known = delay_codes(codes, torch.tensor([4]), sampling.delays, 64)
    drawn = [sampling.draw_tokens(logits, uniform, known[..., i])[0].tolist() for i in range(6)]
    assert drawn == [[7, 64, 64], [9, 7, 64], [9, 9, 7], [9, 9, 9], [64, 9, 9], [64, 64, 9]]
