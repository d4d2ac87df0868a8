"""Count launches, traffic and memory of the GPU's work on a GPU that is not there.

Tensors are fake: operators check shapes and devices, and nothing is computed.  Counts come from the operators that the
code calls, so they are exact for memory of tensors; launches and traffic follow the rules of `gpu_meter.py`.
Time is not measured.  Not counted: CUDA's context, workspaces of its libraries, and what its allocator holds in vain.

    python benchmarks/gpu_counts.py --write

regenerates `benchmarks/results/gpu_counts.md`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.fake_gpu import SHAPES, build_model, fake_gpu
from benchmarks.gpu_meter import Meter
from benchmarks.random_model import MusicGenShape
from lora_bench.forecast.footprint import CAPTION_TOKENS, FLOAT32, HALF, Arithmetic, estimate_training
from lora_bench.forecast.frozen_parts import ENCODEC_32KHZ, TextEncoderSizes
from lora_bench.forecast.frozen_parts import count_codec as count_codec_numbers
from lora_bench.forecast.shapes import ModelShape, find_shape
from lora_bench.forecast.stage_memory import estimate_codec, estimate_decoding
from lora_bench.models import training_arithmetic
from lora_bench.models.decoding import decoder as decoding
from lora_bench.models.decoding.decoder import Decoder
from lora_bench.models.decoding.kernels import Kernel
from lora_bench.models.decoding.kv_cache import KeyValueCache
from lora_bench.models.decoding.loop import UNKNOWN, EagerSteps, Sampling
from lora_bench.models.decoding.step import DecoderStep
from lora_bench.models.token_set import TokenSet
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.spec.schema import GenerationSpec, LoraSpec, ModelSpec, TrainSpec
from lora_bench.stages.train.checkpoint import TrainState
from lora_bench.stages.train.kept import KeptAdapters
from lora_bench.stages.train.steps import TrainingRun, enter_training, take_step

FRAMES_PER_S = 50
PROMPT = "a" * (CAPTION_TOKENS - 2)
"""The benchmark's tokenizer makes a token of each character, one of the begin and one of the end."""
GIB, GB = 2**30, 1e9


@dataclass(frozen=True)
class Counts:
    """Work of one step, or one call.

    Attributes:
        launches: kernels.
        cpu_calls: of the driver by the CPU: the same, or one for a captured step.
        n_bytes: that kernels read and write, if nothing stays in caches.
        flop: of products and attention.
        peak: bytes of all tensors at most, the model included.
        waits: how often the CPU waits for the GPU.
    """

    launches: int
    cpu_calls: int
    n_bytes: int
    flop: int
    peak: int
    waits: int


@contextmanager
def open_model(
    shape: MusicGenShape, *, is_training: bool = False, stand_in: bool = False, n_bytes: float = 200 * GIB
) -> Iterator[tuple[TransformersMusicGen, Meter]]:
    """A bfloat16 decoder on a fake GPU, and a meter that knows its tensors; a training has no encoders."""
    with (
        fake_gpu(n_bytes, stand_in=stand_in) as device,
        patch.object(decoding, "GraphRecorder", lambda _: None),
    ):
        model = build_model(shape, device, torch.bfloat16)
        network: Any = model._network
        if is_training:
            network.text_encoder = network.audio_encoder = None
        with Meter(device, [*network.parameters(), *network.buffers()]) as meter:
            yield model, meter


def count_decoding(
    shape: MusicGenShape, n_clips: int, clip_s: float, lora: LoraSpec | None = None, *, is_eager: bool = False
) -> Counts:
    """Count the last decoding step of a batch, which attends to all positions.

    Args:
        shape: of the model.
        n_clips: at once.
        clip_s: length of each clip.
        lora: adapter; None is zero-shot.
        is_eager: launch every kernel by itself, with the adapter as a float32 side path, as before graphs.
    """
    n_frames = round(clip_s * FRAMES_PER_S)
    with open_model(shape) as (model, meter), torch.no_grad():
        if lora is not None:
            model.inject_lora(lora, seed=0)
        decoder = Decoder(model, GenerationSpec(batch_size=n_clips))
        decoder.read_prompt(PROMPT)
        meter.reset()
        steps = _make_eager_steps(model, decoder, n_clips, n_frames) if is_eager else None
        steps = steps or decoder._make_steps(n_clips, n_frames)
        n_positions = steps.sampling.n_positions
        noise = torch.zeros(n_positions, n_clips, shape.n_codebooks, dtype=torch.float64, device=model.device)
        codes = torch.full((n_clips, model.info.n_codebooks, n_frames), UNKNOWN, device=model.device)
        steps.begin(decoder._text, noise, codes)
        _skip_to(steps, n_positions - 1)
        peak = meter.peak_bytes
        meter.reset()
        steps.advance()
        peak = max(peak, meter.peak_bytes) + _count_missing_words(model)
        return _take(meter, peak=peak, is_captured=not is_eager)


def _count_missing_words(model: TransformersMusicGen) -> int:
    """Bytes of T5's words that the benchmark's tokenizer does not have."""
    table: Any = model.network.text_encoder.get_input_embeddings()
    return FLOAT32 * (TextEncoderSizes().vocab_size - table.num_embeddings) * table.embedding_dim


def _make_eager_steps(
    model: TransformersMusicGen, decoder: Decoder, n_clips: int, n_frames: int
) -> EagerSteps:
    weights, info = decoder._weights, model.info
    step = DecoderStep(weights, info, n_clips, GenerationSpec().guidance, Kernel("plain"))
    sampling = Sampling(info.delays, n_frames, info.codebook_size, 1.0, GenerationSpec().top_k, model.device)
    cache = KeyValueCache.allocate(weights, step.n_rows, n_frames + info.max_delay, model.dtype)
    return EagerSteps(step, cache, sampling)


def _skip_to(steps: Any, position: int) -> None:
    if isinstance(steps, EagerSteps):
        steps._past.position = position
    else:
        steps._done = position


def count_training(
    shape: MusicGenShape, train: TrainSpec, clip_s: float, lora: LoraSpec, *, is_eager: bool = False
) -> Counts:
    """Count one optimiser step with one forward pass, AdamW's moments included.

    Args:
        shape: of the model.
        train: `batch_size` slices.
        clip_s: length of each slice.
        lora: adapter.
        is_eager: leave autocast off, so that PEFT computes adapters in float32, as before.
    """
    n_frames, n_slices = round(clip_s * FRAMES_PER_S), train.batch_size
    answers = {
        "valid_frames.max()": n_frames,
        ".any()": False,
        "int(valid_frames.sum())": n_slices * n_frames,
    }
    with (
        open_model(shape, is_training=True, stand_in=True) as (model, meter),
        tempfile.TemporaryDirectory() as place,
    ):
        meter._answers = answers
        model.inject_lora(lora, seed=0)
        run = _make_run(model, train, n_frames, Path(place))
        enter_training(model, train)
        for parameter in run.parameters.values():  # of an earlier step
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            run.optimizer.state[parameter] = {"step": torch.zeros(()), **moments}
        meter.reset()
        before = training_arithmetic.devices.is_gpu
        with patch.object(training_arithmetic.devices, "is_gpu", (lambda _: False) if is_eager else before):
            take_step(run, 1e-4, print)
        # the stand-in's reads of tensors of the CPU are no waits
        n_waits = sum("tolist()" in line for line in meter.waits)
        return _take(meter, peak=meter.peak_bytes, n_waits=n_waits)


def _make_run(model: TransformersMusicGen, train: TrainSpec, n_frames: int, folder: Path) -> TrainingRun:
    n = train.batch_size
    tokens = TokenSet(
        key="counts",
        codes=np.zeros((n, model.info.n_codebooks, n_frames), dtype=np.int16),
        valid_frames=np.full(n, n_frames, dtype=np.int64),
        splits=("train",) * n,
        track_ids=tuple(map(str, range(n))),
        caption_index=np.zeros(n, dtype=np.int64),
        captions=("calm",),
        text_states=(np.zeros((CAPTION_TOKENS, SHAPES["small"].text_width), dtype=np.float32),),
        slice_s=n_frames / FRAMES_PER_S,
    )
    parameters = model.adapter_parameters()
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
        train_rows=np.arange(n),
        eval_rows=np.arange(0),
        state=TrainState(),
        kept=KeptAdapters(TrialFolder(folder), "key", train, ()),
    )


def count_codec(n_clips: int, clip_s: float, *, encodes: bool = False) -> Counts:
    """Count the codec's decoder, or its encoder, on some clips; its float32 weights are in the peak, others are not."""
    n_frames = round(clip_s * FRAMES_PER_S)
    with open_model(SHAPES["small"]) as (model, meter), torch.no_grad():
        network: Any = model._network
        others = sum(
            tensor.nbytes
            for part in (network.decoder, network.text_encoder, network.enc_to_dec_proj)
            for tensor in [*part.parameters(), *part.buffers()]
        )
        meter.reset()
        if encodes:
            audio = torch.zeros(n_clips, 1, n_frames * model.info.hop_samples, device=model.device)
            model._encode_mono(audio)
        else:
            model._decode_mono(torch.zeros(n_clips, 4, n_frames, dtype=torch.int64, device=model.device))
        return _take(meter, peak=meter.peak_bytes - others)


def _take(meter: Meter, *, peak: int, is_captured: bool = False, n_waits: int | None = None) -> Counts:
    n = sum(meter.waits.values()) if n_waits is None else n_waits
    return Counts(
        meter.launches, 1 if is_captured else meter.launches, meter.n_bytes_moved, meter.flop, peak, n
    )


DEPTHS = (2, 4)
"""Layers are alike: counts of whole models come from models of these depths, on the line through both."""


def count_whole(shape: MusicGenShape, count: Callable[[MusicGenShape], Counts]) -> Counts:
    """Return the counts of a shape with all of its layers, from two shallow ones."""
    few, more = (astuple(count(replace(shape, n_layers=depth))) for depth in DEPTHS)
    scale = (shape.n_layers - DEPTHS[0]) / (DEPTHS[1] - DEPTHS[0])
    return Counts(*(round(low + (high - low) * scale) for low, high in zip(few, more, strict=True)))


def find_published(name: str, n_layers: int | None = None) -> ModelShape:
    """Return a published shape as forecasts know it, with its first layers only if a number is given."""
    found = find_shape(ModelSpec(id=f"facebook/musicgen-{name}"))
    assert found is not None
    if n_layers is None:
        return found
    kept = [
        linear
        for linear in found.linears
        if ".layers." not in linear.name or int(linear.name.split(".layers.")[1].split(".")[0]) < n_layers
    ]
    return replace(found, linears=tuple(kept), decoder=replace(found.decoder, n_layers=n_layers))


CLIP_S, SLICE_S, N_SLICES = 8.0, 10.0, 4
LORA = LoraSpec(rank=16, targets="attention+ffn", dropout=0.05)
HEAD = "| {} | launches | calls by the CPU | traffic, GB | TFLOP | memory, GiB | forecast / memory | waits |"


def write_row(label: str, counts: Counts, forecast: int) -> str:
    """Return a row of a table."""
    return (
        f"| {label} | {counts.launches:,} | {counts.cpu_calls:,} | {counts.n_bytes / GB:.2f} | "
        f"{counts.flop / 1e12:.3f} | {counts.peak / GIB:.2f} | {forecast / counts.peak:.2f} | {counts.waits} |"
    )


def list_decoding(names: list[str], batches: list[int]) -> Iterator[str]:
    """Yield rows of the last step of a batch, as it was before graphs and as it is."""
    yield HEAD.format("decoding step")
    yield "|:---|" + "---:|" * 7
    for name in names:
        for n_clips in batches:
            for lora, adapter in ((None, "no adapter"), (LORA, "attention+ffn")):
                generation = GenerationSpec(clip_s=CLIP_S, n_clips=n_clips, batch_size=n_clips)
                forecast = estimate_decoding(find_published(name), lora, generation, n_clips).peak
                for is_eager in (True, False):

                    def count(shape: MusicGenShape, n=n_clips, lora=lora, eager=is_eager) -> Counts:  # type: ignore[no-untyped-def]
                        return count_decoding(shape, n, CLIP_S, lora, is_eager=eager)

                    path = "one by one" if is_eager else "captured"
                    label = f"{name}, {n_clips} clips, {adapter}, {path}"
                    yield write_row(label, count_whole(SHAPES[name], count), forecast)


def list_training(names: list[str]) -> Iterator[str]:
    """Yield rows of a step, with adapters in float32 as before and under autocast."""
    yield HEAD.format("training step")
    yield "|:---|" + "---:|" * 7
    for name in names:
        for is_checkpointed in (False, True):
            train = TrainSpec(
                batch_size=N_SLICES, gradient_checkpointing=is_checkpointed, caption_dropout=0.0
            )
            forecast = estimate_training(
                find_published(name), LORA, train, SLICE_S, Arithmetic("cuda", HALF), keeps_encoders=False
            ).training
            for is_eager in (True, False):

                def count(shape: MusicGenShape, train=train, eager=is_eager) -> Counts:  # type: ignore[no-untyped-def]
                    return count_training(shape, train, SLICE_S, LORA, is_eager=eager)

                again = ", checkpointed" if is_checkpointed else ""
                path = "adapters in float32" if is_eager else "autocast"
                yield write_row(f"{name}{again}, {path}", count_whole(SHAPES[name], count), forecast)


def list_codec() -> Iterator[str]:
    """Yield rows of calls of the codec, whose memory is that of its weights and tensors."""
    yield HEAD.format("codec")
    yield "|:---|" + "---:|" * 7
    shape = find_published("small")
    for encodes, n_clips, clip_s in ((False, 16, 8.0), (False, 16, 30.0), (True, 4, 8.0), (True, 1, 30.0)):
        counts = count_codec(n_clips, clip_s, encodes=encodes)
        forecast = FLOAT32 * count_codec_numbers(ENCODEC_32KHZ, 4) + estimate_codec(shape, n_clips, clip_s)
        what = "sound to codes" if encodes else "codes to sound"
        yield write_row(f"{what}, {n_clips} of {clip_s:g} s", counts, forecast)


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[64])
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    options = parser.parse_args()
    lines = [
        *INTRODUCTION.format(
            torch=torch.__version__.partition("+")[0], date=datetime.now(UTC).date()
        ).splitlines(),
        *list_decoding(options.shapes, options.batches),
        "",
        *list_training(options.shapes),
        "",
        *list_codec(),
    ]
    text = "\n".join(lines) + "\n"
    if options.write:
        RESULT.write_text(text, encoding="utf-8")
    else:
        print(text)


ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "gpu_counts.md"
INTRODUCTION = """# Launches, traffic and memory on a GPU, counted without one

`python benchmarks/gpu_counts.py --write`, {date}, torch {torch}. **No GPU ran this.** Tensors are fake: the code's
operators are counted, and no time is measured. Published shapes with random weights, a decoder in bfloat16, adapters of
rank 16 on `attention+ffn` with dropout. Counts of whole models are on the line through models of 2 and 4 layers.

- **launches**: kernels. **calls by the CPU**: the same, or one for a captured step.
- **traffic**: what kernels read and write, if nothing stays in caches.
- **memory**: all tensors at the peak, the model included, without CUDA's context and workspaces of its libraries.
- **forecast / memory**: what `lora-bench plan` says of the present code, relative to the count. It does not describe
  the rows of the former code.
- **waits**: how often the CPU waits for the GPU.

Decoding steps are the last ones of clips of 8 s with guidance. Training steps take 4 slices of 10 s, without text
encoder and codec.

"""


if __name__ == "__main__":
    main()
