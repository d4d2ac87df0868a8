"""Memory from shapes against tensors that are counted while a small model is trained."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.live_tensors import LiveTensors, count_saved_bytes
from torch import Tensor

from benchmarks.random_model import (
    SMALL,
    TINY,
    TINY_STEREO,
    MusicGenShape,
    build_random_musicgen,
    build_tokenizer,
)
from lora_bench.forecast.footprint import (
    CAPTION_TOKENS,
    FLOAT32,
    HALF,
    Arithmetic,
    Footprint,
    choose_arithmetic,
    count_decoder,
    estimate_training,
)
from lora_bench.forecast.shapes import ModelShape, find_shape
from lora_bench.models.model_info import describe_network
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import LoraSpec, ModelSpec, TrainSpec

DEEP = replace(TINY, n_layers=8, width=128, ffn_width=512)  # the first layer keeps less, and is counted whole
N_SLICES, N_FRAMES = 3, 100
ARITHMETICS = {
    "float32": Arithmetic("cpu"),
    "bfloat16": Arithmetic("cpu", HALF),
    "autocast": Arithmetic("cpu", is_autocast=True),
}


def read_shape(sizes: MusicGenShape, folder: Path) -> ModelShape:
    """The shape as `plan` finds it: from the config of a saved model."""
    build_random_musicgen(sizes).config.save_pretrained(folder)
    found = find_shape(ModelSpec(id=str(folder)))
    assert found is not None
    return found


def count_tensors(module: Any) -> int:
    """Numbers in parameters and buffers."""
    return sum(tensor.numel() for tensor in [*module.parameters(), *module.buffers()])


class Training:
    """A tiny model with an adapter and a loss to learn from, and the estimate of the same."""

    def __init__(
        self,
        shape: ModelShape,
        sizes: MusicGenShape,
        arithmetic: Arithmetic,
        lora: LoraSpec,
        train: TrainSpec,
    ) -> None:
        network = build_random_musicgen(sizes)
        info = describe_network(network.config, name="tiny", weights_hash="random", trained=False)
        dtype = torch.bfloat16 if arithmetic.weight == HALF else torch.float32
        device = torch.device("cpu")
        self.model = TransformersMusicGen(network, build_tokenizer(), info, device=device, dtype=dtype)
        self.model.inject_lora(lora, seed=0)
        self.model.set_training(True, gradient_checkpointing=train.gradient_checkpointing)
        self.parameters = list(self.model.adapter_parameters().values())
        self.tensors: list[Tensor] = [*network.parameters(), *network.buffers()]
        self._autocast: Callable[[], Any] = nullcontext
        if arithmetic.is_autocast:
            self._autocast = lambda: torch.autocast("cpu", torch.bfloat16)
        self._codes = torch.randint(info.codebook_size, (N_SLICES, info.n_codebooks, N_FRAMES))
        self._texts = [torch.zeros(CAPTION_TOKENS, sizes.text_width)] * N_SLICES
        clip_s = N_FRAMES * shape.hop_samples / shape.sample_rate_hz
        self.footprint = estimate_training(shape, lora, train, clip_s, arithmetic)

    def compute_loss(self) -> Tensor:
        with self._autocast():
            return self.model.training_loss(self._codes, torch.full((N_SLICES,), N_FRAMES), self._texts)


def count_saved(training: Training) -> int:
    """Bytes that are kept for the backward pass."""
    return count_saved_bytes(training.compute_loss, training.tensors)


def measure_peak(training: Training) -> int:
    """Bytes of all tensors, at most, in the second of two steps (then AdamW has its moments)."""
    optimizer = torch.optim.AdamW(training.parameters)
    live = LiveTensors(training.tensors)
    with live:
        for _ in range(2):
            live.reset()
            training.compute_loss().backward()
            torch.nn.utils.clip_grad_norm_(training.parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return live.peak_bytes


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    return read_shape(DEEP, tmp_path_factory.mktemp("deep"))


@pytest.mark.parametrize("sizes", [TINY, TINY_STEREO, DEEP], ids=["tiny", "stereo", "deep"])
def test_parts_of_a_model_hold_as_many_numbers_as_are_counted(sizes: MusicGenShape, tmp_path: Path) -> None:
    shape, network = read_shape(sizes, tmp_path), build_random_musicgen(sizes)
    assert count_decoder(shape) == count_tensors(network.decoder)
    frozen = count_tensors(network.text_encoder) + count_tensors(network.audio_encoder)
    # left out: strides and paddings of convolutions, which EnCodec keeps as tensors of one number
    assert shape.n_frozen == pytest.approx(frozen, abs=100)


def test_published_sizes_hold_as_many_numbers_as_the_network_of_that_shape() -> None:
    shape = find_shape(ModelSpec(id="facebook/musicgen-small"))
    assert shape is not None
    with torch.device("meta"):
        network = build_random_musicgen(SMALL)
    assert count_decoder(shape) == count_tensors(network.decoder)


@pytest.mark.parametrize("dropout", [0.0, 0.05])
@pytest.mark.parametrize("kind", ARITHMETICS)
def test_activations_are_those_that_autograd_keeps(kind: str, dropout: float, deep: ModelShape) -> None:
    """Within 8 %, and never too few: the first of eight layers keeps less than is counted for it."""
    lora = LoraSpec(rank=4, targets="attention+ffn", dropout=dropout)
    training = Training(deep, DEEP, ARITHMETICS[kind], lora, TrainSpec(batch_size=N_SLICES))
    estimated = training.footprint.activations + training.footprint.logits
    assert 1.0 <= estimated / count_saved(training) <= 1.08


@pytest.mark.parametrize(
    "targets", ["self_attention", "cross_attention", "ffn", "all", "re:.*layers.[2-7].fc1"]
)
def test_activations_follow_the_targets(targets: str, deep: ModelShape) -> None:
    lora = LoraSpec(rank=4, targets=targets, dropout=0.05)
    training = Training(deep, DEEP, ARITHMETICS["bfloat16"], lora, TrainSpec(batch_size=N_SLICES))
    estimated = training.footprint.activations + training.footprint.logits
    assert 1.0 <= estimated / count_saved(training) <= 1.15


@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("kind", ARITHMETICS)
def test_the_peak_of_a_step_is_estimated_and_never_too_low(
    kind: str, is_checkpointed: bool, deep: ModelShape
) -> None:
    lora = LoraSpec(rank=4, targets="attention+ffn", dropout=0.05)
    train = TrainSpec(batch_size=N_SLICES, gradient_checkpointing=is_checkpointed)
    training = Training(deep, DEEP, ARITHMETICS[kind], lora, train)
    assert 1.0 <= training.footprint.training / measure_peak(training) <= 1.2


def estimate(lora: LoraSpec | None = None, **train: Any) -> Footprint:
    """MusicGen small in bfloat16 on a GPU."""
    shape = find_shape(ModelSpec(id="facebook/musicgen-small"))
    assert shape is not None
    return estimate_training(
        shape, lora or LoraSpec(), TrainSpec.model_validate(train), 10.0, Arithmetic("cuda", HALF)
    )


def test_terms_follow_what_they_are_for() -> None:
    one, two = estimate(batch_size=1), estimate(batch_size=2)
    assert (two.activations, two.logits) == (2 * one.activations, 2 * one.logits)
    assert (two.decoder, two.adapter) == (one.decoder, one.adapter)
    assert estimate(batch_size=1, grad_accumulation=8) == one
    assert estimate(batch_size=1, gradient_checkpointing=True).activations < one.activations / 8
    # rank 16 on 192 projections of 1024 x 1024: weights, gradients and two moments of 4 bytes
    assert one.adapter == 16 * 192 * 16 * 2048
    assert one.loading == 2 * one.decoder + one.text_and_codec


def test_dropout_on_a_gpu_keeps_a_byte_and_on_a_cpu_a_number_per_value() -> None:
    shape = find_shape(ModelSpec(id="facebook/musicgen-small"))
    assert shape is not None
    lora, train = LoraSpec(rank=4, targets="ffn"), TrainSpec(batch_size=1)
    on_gpu, on_cpu = (
        estimate_training(shape, lora, train, 10.0, Arithmetic(device, HALF)).activations
        for device in ("cuda", "cpu")
    )
    noise = 3 * 24 * (500 + 3) * (1024 + 4096)
    inputs = (
        2 * 24 * (500 + 3) * (1024 + 4096 + 2 * 4)
    )  # of both of an adapter's products, in halves on a GPU
    assert on_cpu - on_gpu == noise + inputs


def test_arithmetic_is_that_of_the_spec_and_the_place() -> None:
    auto, full = ModelSpec(dtype="auto"), ModelSpec(dtype="float32")
    half = TrainSpec(precision="bfloat16")
    assert choose_arithmetic(auto, TrainSpec(), has_gpu=True) == Arithmetic("cuda", HALF)
    assert choose_arithmetic(auto, TrainSpec(), has_gpu=False) == Arithmetic("cpu", FLOAT32)
    assert choose_arithmetic(full, half, has_gpu=True) == Arithmetic("cuda", FLOAT32, is_autocast=True)
    assert choose_arithmetic(auto, half, has_gpu=True) == Arithmetic("cuda", HALF)
