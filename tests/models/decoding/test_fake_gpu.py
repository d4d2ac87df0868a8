"""The GPU's work, on a GPU that is not there: devices, waits, launches and memory of a step.

A decoder's layers are alike, so models have the published widths and fewer layers, and counts are per layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from benchmarks.fake_gpu import SHAPES, build_model, cut, fake_gpu
from benchmarks.gpu_meter import Meter
from benchmarks.random_model import MusicGenShape
from lora_bench.models.decoding import decoder as decoding
from lora_bench.models.decoding.decoder import Decoder
from lora_bench.models.decoding.loop import UNKNOWN
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import GenerationSpec, LoraSpec

N_LAYERS = 2
N_CLIPS = 24
N_FRAMES = 400
LAUNCHES_OF_LAYER = 17
"""Three norms; six products; query, key and value written and attended to, twice; three sums; GELU."""
LAUNCHES_OF_ADAPTER = 6
"""One more product for each of a layer's matrices."""
LAUNCHES_OF_STEP = 42
"""Embeddings, guidance, heads, sampling, and the state of the loop."""


@contextmanager
def build(shape: MusicGenShape) -> Iterator[tuple[TransformersMusicGen, Meter]]:
    with fake_gpu() as device, patch.object(decoding, "GraphRecorder", lambda _: None), torch.no_grad():
        model = build_model(shape, device, torch.bfloat16)
        network = model.network
        with Meter(device, [*network.parameters(), *network.buffers()]) as meter:
            yield model, meter


@pytest.mark.parametrize("shape", SHAPES)
def test_a_decoding_step_waits_for_nothing_and_launches_few_kernels(shape: str) -> None:
    with build(cut(shape, N_LAYERS)) as (model, meter):
        check_step(shape, model, meter, LAUNCHES_OF_LAYER)
        model.inject_lora(LoraSpec(rank=16, targets="attention+ffn"), seed=0)
        check_step(shape, model, meter, LAUNCHES_OF_LAYER + LAUNCHES_OF_ADAPTER)


def check_step(shape: str, model: TransformersMusicGen, meter: Meter, launches_of_layer: int) -> None:
    decoder = Decoder(model, GenerationSpec(batch_size=N_CLIPS))
    decoder.read_prompt("calm music")
    meter.reset()
    steps = decoder._make_steps(N_CLIPS, N_FRAMES)
    noise = torch.zeros(steps.sampling.n_positions, N_CLIPS, 4, dtype=torch.float64, device=model.device)
    codes = torch.full((N_CLIPS, 4, N_FRAMES), UNKNOWN, device=model.device)
    steps.begin(decoder._text, noise, codes)
    assert not meter.waits
    held = meter.n_bytes
    meter.reset()
    steps.advance()
    assert not meter.waits
    assert not meter.uploads
    assert not meter.mixed
    assert meter.launches <= LAUNCHES_OF_STEP + launches_of_layer * N_LAYERS
    width = SHAPES[shape].width
    activations = 2 * N_CLIPS * 4 * width * 2 * 8 + N_CLIPS * 4 * 2048 * 8 * 6
    assert meter.peak_bytes - held < activations


def test_logits_are_not_rounded_to_halves() -> None:
    with build(cut("small", N_LAYERS)) as (model, _):
        decoder = Decoder(model, GenerationSpec(batch_size=2))
        step = decoder._prepare_step(2)
        x = torch.zeros(2, SHAPES["small"].width, dtype=torch.bfloat16, device=model.device)
        assert step._heads(x).dtype == torch.float32


def test_the_batch_fits_into_the_memory_that_it_was_chosen_for() -> None:
    with build(cut("small", N_LAYERS)) as (model, meter):
        decoder = Decoder(model, GenerationSpec())
        n_clips = decoder.choose_batch_size(N_FRAMES)
        before = meter.n_bytes
        decoder._make_steps(n_clips, N_FRAMES)
        free, _ = torch.cuda.mem_get_info()
        assert meter.n_bytes - before < decoding.MEMORY_FRAC * free


def test_the_codec_decodes_on_one_device() -> None:
    # not seen here: EnCodec reads the sizes of its kernels from buffers, a wait for each convolution on a GPU
    with build(replace(SHAPES["small"], n_layers=1, text_layers=1)) as (model, meter):
        for n_clips in (1, 16):
            codes = torch.zeros(n_clips, 4, N_FRAMES, dtype=torch.int64, device=model.device)
            meter.reset()
            audio = model._decode_mono(codes)
            assert audio.shape[-1] >= N_FRAMES * model.info.hop_samples
            assert not meter.mixed
            assert not meter.waits
