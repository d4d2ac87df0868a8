"""Sizes, memory and targets of melody models from their config alone, against built networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.live_tensors import count_saved_bytes
from support.melody_model import build_random_melody, save_random_melody

from benchmarks.random_model import SMALL, TINY, TINY_STEREO, MusicGenShape
from lora_bench.cli.main import main
from lora_bench.forecast.adapters import size_adapter
from lora_bench.forecast.footprint import CAPTION_TOKENS, Arithmetic, count_decoder, estimate_training
from lora_bench.forecast.shapes import ModelShape, find_shape
from lora_bench.models import load_model
from lora_bench.spec.schema import LoraSpec, ModelSpec, TrainSpec

MEDIUM = replace(SMALL, n_layers=48, width=1536, n_heads=24, ffn_width=6144)
LARGE_STEREO = replace(SMALL, n_layers=48, width=2048, n_heads=32, ffn_width=8192, n_codebooks=8, channels=2)
DEEP = replace(TINY, n_layers=8, width=128, ffn_width=512)
N_SLICES, N_FRAMES = 3, 100
SPEC = """
schema: 1
name: t
model: {{id: {folder}}}
dataset: {{builtin: chiptune}}
prompts: [a]
generation: {{clip_s: 1}}
trials: {{variants: [{{name: r4, lora: {{rank: 4, targets: {targets}}}}}]}}
"""


def count_tensors(module: Any) -> int:
    return sum(tensor.numel() for tensor in [*module.parameters(), *module.buffers()])


def read_shape(folder: Path) -> ModelShape:
    found = find_shape(ModelSpec(id=str(folder)))
    assert found is not None
    return found


@pytest.mark.parametrize("sizes", [TINY, TINY_STEREO], ids=["mono", "stereo"])
def test_parts_hold_as_many_numbers_as_are_counted(sizes: MusicGenShape, tmp_path: Path) -> None:
    shape, network = read_shape(save_random_melody(tmp_path, sizes)), build_random_melody(sizes)
    assert count_decoder(shape) == count_tensors(network.decoder)
    parts = (network.text_encoder, network.audio_encoder, network.audio_enc_to_dec_proj)
    # left out: strides and paddings of convolutions, which EnCodec keeps as tensors of one number
    assert shape.n_frozen == pytest.approx(sum(map(count_tensors, parts)), abs=100)


@pytest.mark.parametrize(
    ("name", "sizes"), [("musicgen-melody", MEDIUM), ("musicgen-stereo-melody-large", LARGE_STEREO)]
)
def test_published_sizes_are_those_of_the_network(name: str, sizes: MusicGenShape) -> None:
    shape = find_shape(ModelSpec(id=f"facebook/{name}"))
    assert shape is not None
    with torch.device("meta"):
        network = build_random_melody(sizes)
    assert count_decoder(shape) == count_tensors(network.decoder)


@pytest.mark.parametrize(
    "lora",
    [
        *(LoraSpec(rank=3, targets=targets) for targets in ("attention", "all", "ffn")),
        *(LoraSpec(kind="full", targets=targets) for targets in ("norms", "decoder")),
    ],
    ids=["attention", "all", "ffn", "full norms", "full decoder"],
)
def test_an_adapter_has_the_forecast_size(lora: LoraSpec, tmp_path: Path) -> None:
    folder = save_random_melody(tmp_path, TINY)
    found = size_adapter(read_shape(folder), lora)
    injected = load_model(ModelSpec(id=str(folder)), device="cpu").inject_lora(lora, seed=0)
    assert found.problem is None
    assert (found.matched_modules, found.trainable_params) == (
        injected.matched_modules,
        injected.trainable_params,
    )


@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_activations_are_those_that_autograd_keeps(dropout: float, tmp_path: Path) -> None:
    """Within 8 %, and never too few: the first of eight layers keeps less than is counted for it."""
    folder = save_random_melody(tmp_path, DEEP)
    shape, model = read_shape(folder), load_model(ModelSpec(id=str(folder)), device="cpu")
    lora = LoraSpec(rank=4, targets="attention+ffn", dropout=dropout)
    model.inject_lora(lora, seed=0)
    model.set_training(True)
    codes = torch.randint(model.info.codebook_size, (N_SLICES, model.info.n_codebooks, N_FRAMES))
    texts = [torch.ones(CAPTION_TOKENS, DEEP.text_width)] * N_SLICES
    network: Any = model.network
    saved = count_saved_bytes(
        lambda: model.training_loss(codes, torch.full((N_SLICES,), N_FRAMES), texts),
        [*network.parameters(), *network.buffers()],
    )
    clip_s = N_FRAMES * shape.hop_samples / shape.sample_rate_hz
    found = estimate_training(shape, lora, TrainSpec(batch_size=N_SLICES), clip_s, Arithmetic("cpu"))
    assert 1.0 <= (found.activations + found.logits) / saved <= 1.08


def test_cross_attention_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, spec = save_random_melody(tmp_path / "model", TINY), tmp_path / "t.yaml"
    spec.write_text(SPEC.format(folder=folder, targets="cross_attention"), encoding="utf-8")
    assert main(["plan", str(spec), "--runs-dir", str(tmp_path / "runs")]) != 0
    message = capsys.readouterr().err
    assert "target `cross_attention` matches no module of the model; a melody model has no cross" in message
    assert "use `self_attention`" in message
    spec.write_text(SPEC.format(folder=folder, targets="attention+ffn"), encoding="utf-8")
    assert main(["plan", str(spec), "--runs-dir", str(tmp_path / "runs")]) == 0
    assert "warning: " not in capsys.readouterr().out
