"""What tests on a GPU (`test_cuda.py`) check, so that it can be run on the CPU as well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lora_bench.models.base import MusicModel
from lora_bench.models.decoding.decoder import TEXT_UNIT, Decoder, generate_batches
from lora_bench.models.decoding.kv_cache import FixedPast, KeyValueCache
from lora_bench.models.decoding.step import DecoderStep
from lora_bench.models.token_set import TokenSet
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec, TrainSpec
from lora_bench.stages.train import train_adapter

PROMPT = "a song with drums"
HALF_TOLERANCE = 0.1
"""Largest error of a logit in bfloat16, relative to the standard deviation of logits in float32.  Weights and stream are
rounded to 8 bits: 0.4 % a value, over two layers and a guidance of 3."""


def add_update(model: MusicModel, lora: LoraSpec) -> None:
    """Give a model the same adapter on any device, with an update that is not zero."""
    model.inject_lora(lora, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.adapter_parameters().values():
            parameter.add_((torch.randn(parameter.shape, generator=generator) * 0.05).to(parameter.device))


@torch.inference_mode()
def read_logits(model: MusicModel, tokens: Tensor) -> Tensor:
    """Logits float32 [P, N, K, V] of given tokens [P, N, K], by the steps of a GPU."""
    decoder = Decoder(model, GenerationSpec())
    decoder.read_prompt(PROMPT)
    n_clips = tokens.shape[1]
    step = DecoderStep(decoder._weights, model.info, n_clips, 3.0, decoder._kernel, TEXT_UNIT)
    step.read_text(decoder._text)
    dtype = decoder._kernel.past_dtype(model.dtype)
    position = torch.zeros(1, dtype=torch.int64, device=model.device)
    past = FixedPast(KeyValueCache.allocate(decoder._weights, step.n_rows, len(tokens), dtype), position)
    found: list[Tensor] = []
    for each in tokens.to(model.device):
        past.begin_step()
        found.append(step(each, step.positions.index_select(0, position)[0], past).cpu())
        position.add_(1)
    return torch.stack(found)


def measure_error(reference: MusicModel, model: MusicModel, n_positions: int = 40) -> float:
    """Largest error of a logit, relative to the standard deviation of the reference's; both read the same tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(reference.info.codebook_size, (n_positions, 4, 4), generator=generator)
    expected = read_logits(reference, tokens)
    return float((read_logits(model, tokens) - expected).abs().max() / expected.std())


def decode_parts(
    model: MusicModel, parts: Sequence[Sequence[int]], n_frames: int, size: int, *, together: bool
) -> Tensor:
    """Codes of clips by one decoder in several batches, or each part by a decoder of its own."""
    generation = GenerationSpec(top_k=40, batch_size=size)
    decoder = Decoder(model, generation)
    codes: list[Tensor] = []
    for part in parts:
        used = decoder if together else Decoder(model, generation)
        found = generate_batches(model, PROMPT, part, n_frames, generation, SilentProgress(), used)
        codes += [batch.codes for batch in found]
        assert used.problem is None
    return torch.cat(codes)


def make_tokens(model: MusicModel) -> TokenSet:
    """Random codes of six slices, two of them held out."""
    generator = np.random.default_rng(0)
    n = 6
    return TokenSet(
        key="test",
        codes=generator.integers(0, model.info.codebook_size, (n, 4, 40)).astype(np.int16),
        valid_frames=np.full(n, 40, dtype=np.int64),
        splits=("train",) * 4 + ("eval",) * 2,
        track_ids=tuple(map(str, range(n))),
        caption_index=np.zeros(n, dtype=np.int64),
        captions=(PROMPT,),
        text_states=(model.encode_text([PROMPT])[0].numpy(),),
        slice_s=1.0,
    )


class _StopAtFour(SilentProgress):
    left = 4

    def advance(self, n: int = 1, *, note: str = "") -> None:
        self.left -= n
        if self.left == 0:
            raise KeyboardInterrupt


def train_whole_and_in_parts(model: MusicModel, folder: Path, lora: LoraSpec) -> list[dict[str, Tensor]]:
    """Adapters of two whole trainings and of one that is interrupted after four of six steps, and resumed."""
    tokens = make_tokens(model)
    train = TrainSpec(steps=6, batch_size=2, lr=1e-2, eval_every=3, checkpoint_every=2)
    for name in ("whole", "again"):
        train_adapter(tokens, model, lora, train, 0, folder / name, SilentProgress())
    try:
        train_adapter(tokens, model, lora, train, 0, folder / "parts", _StopAtFour())
    except KeyboardInterrupt:
        train_adapter(tokens, model, lora, train, 0, folder / "parts", SilentProgress())
    else:
        raise AssertionError("the training was not interrupted")
    names = ("whole", "again", "parts")
    return [load_file(folder / name / "adapter" / "adapter_model.safetensors") for name in names]


def have_equal_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two adapters are the same, bit for bit."""
    return one.keys() == other.keys() and all(
        torch.equal(weight, other[name]) for name, weight in one.items()
    )
