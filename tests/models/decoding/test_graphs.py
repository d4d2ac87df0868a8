"""Captured steps, with CUDA graphs by a mock: no freed memory, fixed addresses, and a capture that fails."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from unittest.mock import patch

import pytest
import torch
from support.fake_graphs import gpu_by_mock

from lora_bench.models.decoding import decoder as decoding
from lora_bench.models.decoding.decoder import Decoder
from lora_bench.models.decoding.loop import FixedSteps
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec

PROMPTS = ("a song with drums", "calm")
LONG_PROMPT = "calm " * 30
BUCKET = 8
N_FRAMES = 2 * BUCKET + 3
N_BUCKETS = 3
GREEDY = GenerationSpec(top_k=1, batch_size=5)


def decode(
    model: TransformersMusicGen,
    prompts: Sequence[str] = PROMPTS,
    n_clips: int = 10,
    decoder: Decoder | None = None,
    progress: SilentProgress | None = None,
) -> dict[str, torch.Tensor]:
    """Codes of each prompt, in batches of five."""
    decoder = Decoder(model, GREEDY) if decoder is None else decoder
    return {
        prompt: torch.cat(
            [
                batch.codes
                for batch in decoding.generate_batches(
                    model, prompt, range(n_clips), N_FRAMES, GREEDY, progress or SilentProgress(), decoder
                )
            ]
        )
        for prompt in prompts
    }


@pytest.fixture(params=["base", "with an adapter"])
def model(
    tiny: TransformersMusicGen, add_adapter: object, by_library: None, request: pytest.FixtureRequest
) -> TransformersMusicGen:
    if request.param != "base":
        add_adapter(tiny, LoraSpec(rank=4, targets="all"))  # type: ignore[operator]
    return tiny


def test_replays_give_the_tokens_of_eager_steps_and_read_no_freed_memory(model: TransformersMusicGen) -> None:
    expected = decode(model)
    with gpu_by_mock(BUCKET) as device:
        found = decode(model)
        assert not device.reads_after_free
    for prompt in PROMPTS:
        assert torch.equal(found[prompt], expected[prompt])


def test_graphs_are_captured_once_for_all_batches_and_prompts(
    tiny: TransformersMusicGen, by_library: None
) -> None:
    with gpu_by_mock(BUCKET) as device:
        decode(tiny)
        assert device.n_captures == N_BUCKETS
        # text, cache, state and weights stay where the first capture found them
        first, *others = device.addresses
        assert all(len(used - first) <= 1 for used in others)
        assert len(set(map(id, device.streams))) == 1
        assert None not in device.streams
        assert len(device.pools) == 1


def test_a_longer_text_moves_the_text_and_nothing_reads_the_old_place(
    tiny: TransformersMusicGen, by_library: None
) -> None:
    prompts = ("calm", LONG_PROMPT, "a song with drums")
    expected = decode(tiny, prompts, 5)
    with gpu_by_mock(BUCKET) as device:
        found = decode(tiny, prompts, 5)
        assert device.n_captures == 2 * N_BUCKETS
        assert not device.reads_after_free
        assert not device.reopened
    for prompt in prompts:
        assert torch.equal(found[prompt], expected[prompt])


def test_a_shorter_last_batch_fills_the_graphs_of_the_others(
    tiny: TransformersMusicGen, by_library: None
) -> None:
    expected = decode(tiny, PROMPTS[:1], 8)
    with gpu_by_mock(BUCKET) as device:
        found = decode(tiny, PROMPTS[:1], 8)
        assert device.n_captures == N_BUCKETS
    assert torch.equal(found[PROMPTS[0]], expected[PROMPTS[0]])


def test_a_few_clips_do_not_pay_for_a_large_batch(tiny: TransformersMusicGen, by_library: None) -> None:
    with gpu_by_mock(BUCKET) as device:
        decoder = Decoder(tiny, GREEDY)
        decode(tiny, PROMPTS[:1], 5, decoder)
        decode(tiny, PROMPTS[1:], 1, decoder)
        assert device.n_captures == 2 * N_BUCKETS


def test_a_failed_capture_leaks_nothing_and_is_reported(tiny: TransformersMusicGen, by_library: None) -> None:
    expected = decode(tiny)
    lines: list[str] = []
    made: list[weakref.ref[FixedSteps]] = []
    original = FixedSteps.__init__

    def note(self: FixedSteps, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        made.append(weakref.ref(self))

    class Lines(SilentProgress):
        def log(self, message: str) -> None:
            lines.append(message)

    gc.collect()
    gc.disable()
    try:
        with gpu_by_mock(BUCKET) as device, patch.object(FixedSteps, "__init__", note):
            device.fails_at = 2
            decoder = Decoder(tiny, GREEDY)
            found = decode(tiny, decoder=decoder, progress=Lines())
            assert device.n_captures == 2
            assert not device.reads_after_free
            problem = decoder.problem
            decoder.release()
            assert [reference() for reference in made] == [None]
    finally:
        gc.enable()
    for prompt in PROMPTS:
        assert torch.equal(found[prompt], expected[prompt])
    assert problem is not None
    assert "could not be captured as a CUDA graph (CUDA error: operation not permitted" in problem
    assert lines == [problem]  # once, not for each batch
