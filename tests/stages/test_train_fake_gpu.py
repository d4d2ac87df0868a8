"""A training step on a GPU that is not there: devices, waits, launches and memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.fake_gpu import SHAPES, build_model, cut, fake_gpu
from benchmarks.gpu_meter import Meter
from lora_bench.forecast.footprint import CAPTION_TOKENS, HALF, Arithmetic, estimate_training
from lora_bench.forecast.shapes import ModelShape, find_shape
from lora_bench.models.token_set import TokenSet
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.spec.schema import LoraSpec, ModelSpec, TrainSpec
from lora_bench.stages.train.checkpoint import TrainState
from lora_bench.stages.train.kept import KeptAdapters
from lora_bench.stages.train.steps import TrainingRun, enter_training, take_step

N_LAYERS = 4
N_SLICES = 4
N_FRAMES = 500
N_TEXT = CAPTION_TOKENS
LORA = LoraSpec(rank=16, targets="attention+ffn", dropout=0.05)
ON_CPU = ("valid_frames.max()", ".any()", "int(valid_frames.sum())", "run.scaler.step(run.optimizer)")
"""Parts of lines that read tensors of the CPU, which stand-ins cannot be distinguished from.  The last one is AdamW's
counter of steps, which its fused kernel keeps on a GPU."""
LAUNCHES_OF_LAYER = 260
LAUNCHES_OF_CHECKPOINT = 85
LAUNCHES_OF_STEP = 110


@contextmanager
def build(shape: str, *, stand_in: bool) -> Iterator[tuple[TransformersMusicGen, Meter]]:
    """A bfloat16 decoder of fewer layers, without text encoder and codec, as a training has it."""
    with fake_gpu(stand_in=stand_in) as device:
        model = build_model(cut(shape, N_LAYERS), device, torch.bfloat16)
        model._network.text_encoder = model._network.audio_encoder = None
        answers = {ON_CPU[0]: N_FRAMES, ON_CPU[1]: False, ON_CPU[2]: N_SLICES * N_FRAMES}
        tensors = [*model._network.parameters(), *model._network.buffers()]
        with Meter(device, tensors, answers) as meter:
            yield model, meter


def make_run(model: TransformersMusicGen, train: TrainSpec, folder: Path) -> TrainingRun:
    parameters = model.adapter_parameters()
    tokens = TokenSet(
        key="test",
        codes=np.zeros((N_SLICES, 4, N_FRAMES), dtype=np.int16),
        valid_frames=np.full(N_SLICES, N_FRAMES, dtype=np.int64),
        splits=("train",) * N_SLICES,
        track_ids=tuple(map(str, range(N_SLICES))),
        caption_index=np.zeros(N_SLICES, dtype=np.int64),
        captions=("calm",),
        text_states=(np.zeros((N_TEXT, SHAPES["small"].text_width), dtype=np.float32),),
        slice_s=N_FRAMES / 50,
    )
    return TrainingRun(
        tokens=tokens,
        model=model,
        train=train,
        seed=0,
        files=TrialFolder(folder),
        key="key",
        parameters=parameters,
        optimizer=torch.optim.AdamW(parameters.values(), lr=1e-4, foreach=True),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        train_rows=np.arange(N_SLICES),
        eval_rows=np.arange(0),
        state=TrainState(),
        kept=KeptAdapters(TrialFolder(folder), "key", train, ()),
    )


def cut_layers(shape: ModelShape) -> ModelShape:
    """A published shape with the first layers only."""
    kept = [
        linear
        for linear in shape.linears
        if ".layers." not in linear.name or int(linear.name.split(".layers.")[1].split(".")[0]) < N_LAYERS
    ]
    return replace(shape, linears=tuple(kept), decoder=replace(shape.decoder, n_layers=N_LAYERS))


@pytest.mark.parametrize(("shape", "is_checkpointed"), [("small", True), ("medium", False), ("large", True)])
def test_a_step_takes_the_memory_that_is_forecast_and_waits_once(
    shape: str, is_checkpointed: bool, tmp_path: Path
) -> None:
    train = TrainSpec(batch_size=N_SLICES, gradient_checkpointing=is_checkpointed, caption_dropout=0.0)
    with build(shape, stand_in=True) as (model, meter):
        model.inject_lora(LORA, seed=0)
        run = make_run(model, train, tmp_path)
        enter_training(model, train)
        for parameter in run.parameters.values():  # of an earlier step
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            run.optimizer.state[parameter] = {"step": torch.zeros(()), **moments}
        meter.reset()
        take_step(run, 1e-4, print)
        launches = LAUNCHES_OF_LAYER + LAUNCHES_OF_CHECKPOINT * is_checkpointed
        assert meter.launches <= LAUNCHES_OF_STEP + launches * N_LAYERS
        waits = [line for line in meter.waits if not any(part in line for part in ON_CPU)]
        assert [line.partition(": ")[0] for line in waits] == ["stages/train/steps.py"]
        assert "tolist()" in waits[0]
        published = find_shape(ModelSpec(id=f"facebook/musicgen-{shape}"))
        assert published is not None
        footprint = estimate_training(
            cut_layers(published), LORA, train, N_FRAMES / 50, Arithmetic("cuda", HALF)
        )
        assert 1.0 <= (footprint.training - footprint.text_and_codec) / meter.peak_bytes <= 1.1


def test_the_forward_pass_of_a_step_stays_on_the_gpu() -> None:
    with build("small", stand_in=False) as (model, meter):
        model.inject_lora(LORA, seed=0)
        enter_training(model, TrainSpec())
        codes = torch.zeros(N_SLICES, 4, N_FRAMES, dtype=torch.int64)
        texts = [
            torch.zeros(N_TEXT, SHAPES["small"].text_width),
            None,
            torch.zeros(5, SHAPES["small"].text_width),
            None,
        ]
        meter.reset()
        with model.use_training_arithmetic(None):
            loss = model.training_loss(codes, torch.full((N_SLICES,), N_FRAMES), texts)
        assert loss.device.type == "cuda"
        assert not meter.waits
        assert not meter.mixed
        assert sum(meter.uploads.values()) <= 5  # codes, lengths, text, its mask, and which clips have one
