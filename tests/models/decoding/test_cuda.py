"""On a GPU: captured steps, their sampling, and training with the fused optimiser.  Run with `pytest -m gpu`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora_bench.errors import ResourceError
from lora_bench.models import load_model
from lora_bench.models.base import MusicModel
from lora_bench.models.decoding.decoder import Decoder, generate_batches, generate_codes
from lora_bench.models.decoding.loop import BUCKET
from lora_bench.models.token_set import TokenSet
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec, ModelSpec, TrainSpec
from lora_bench.stages.train import train_adapter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
PROMPT = "a song with drums"
N_FRAMES = 2 * BUCKET + 9


@pytest.fixture
def on_gpu(tiny_folder: Path) -> Iterator[MusicModel]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a step that cannot be captured
        yield load_model(ModelSpec(id=str(tiny_folder), dtype="float32"), device="cuda")
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_captured_steps_give_the_greedy_tokens_of_the_cpu(
    tiny: TransformersMusicGen, on_gpu: MusicModel, guidance: float
) -> None:
    generation = GenerationSpec(guidance=guidance, top_k=1, batch_size=4)
    decoder = Decoder(on_gpu, generation)
    for prompt in (PROMPT, "calm", PROMPT):
        expected = generate_codes(tiny, prompt, range(6), N_FRAMES, generation, SilentProgress())
        batches = generate_batches(on_gpu, prompt, range(6), N_FRAMES, generation, SilentProgress(), decoder)
        assert torch.equal(torch.cat([batch.codes for batch in batches]), expected)


def test_captured_steps_draw_the_noise_of_the_cpu(tiny: TransformersMusicGen, on_gpu: MusicModel) -> None:
    generation = GenerationSpec(top_k=40, batch_size=4)
    expected = generate_codes(tiny, PROMPT, range(8), N_FRAMES, generation, SilentProgress())
    found = generate_codes(on_gpu, PROMPT, range(8), N_FRAMES, generation, SilentProgress())
    assert float((found == expected).float().mean()) > 0.9  # rounding may turn a draw at a border


def test_the_batch_follows_the_free_memory_of_the_gpu(on_gpu: MusicModel) -> None:
    assert 1 <= Decoder(on_gpu, GenerationSpec()).choose_batch_size(N_FRAMES) <= 256


def test_eight_bits_are_refused(on_gpu: MusicModel) -> None:
    with pytest.raises(ResourceError, match="int8 is for CPUs"):
        Decoder(on_gpu, GenerationSpec(quantization="int8"))


def test_a_run_that_was_interrupted_goes_on_with_the_fused_optimiser(
    on_gpu: MusicModel, tmp_path: Path
) -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    n = 6
    tokens = TokenSet(
        key="test",
        codes=generator.integers(0, on_gpu.info.codebook_size, (n, 4, 40)).astype(np.int16),
        valid_frames=np.full(n, 40, dtype=np.int64),
        splits=("train",) * 4 + ("eval",) * 2,
        track_ids=tuple(map(str, range(n))),
        caption_index=np.zeros(n, dtype=np.int64),
        captions=(PROMPT,),
        text_states=(on_gpu.encode_text([PROMPT])[0].numpy(),),
        slice_s=1.0,
    )
    train = TrainSpec(steps=6, batch_size=2, lr=1e-2, eval_every=3, checkpoint_every=2)
    lora = LoraSpec(rank=2, targets="all", dropout=0.0)

    class StopAtFour(SilentProgress):
        left = 4

        def advance(self, n: int = 1, *, note: str = "") -> None:
            self.left -= n
            if self.left == 0:
                raise KeyboardInterrupt

    train_adapter(tokens, on_gpu, lora, train, 0, tmp_path / "whole", SilentProgress())
    with pytest.raises(KeyboardInterrupt):
        train_adapter(tokens, on_gpu, lora, train, 0, tmp_path / "parts", StopAtFour())
    train_adapter(tokens, on_gpu, lora, train, 0, tmp_path / "parts", SilentProgress())
    whole, parts = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "parts")
    )
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=1e-3, atol=1e-5)
