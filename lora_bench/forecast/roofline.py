"""Time of a trial's GPU work on paper: products and traffic from shapes, peaks from a data sheet.

Nobody has measured how much of its peaks a GPU reaches in this work.  `EFFICIENCY` is an assumption, and so is the time
of a launch.  Work of the CPU is left out: loading, reading recordings, scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lora_bench.forecast.adapters import list_trainable, match_targets
from lora_bench.forecast.cards import Card
from lora_bench.forecast.footprint import CAPTION_TOKENS, HALF, choose_weight
from lora_bench.forecast.frozen_parts import ENCODEC_32KHZ
from lora_bench.forecast.remaining import Remaining
from lora_bench.forecast.shapes import ModelShape
from lora_bench.forecast.stage_memory import (
    BUCKET,
    choose_batch,
    count_frames,
    count_steps,
    count_window_steps,
    round_up,
)
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.spec.kinds import has_setting
from lora_bench.spec.schema import GenerationSpec, LoraSpec, TrainSpec

EFFICIENCY = 0.5
"""Share of a card's nominal peaks that is assumed to be reached; not measured."""
GRAPH_LAUNCH_S, LAUNCH_S = 2.5e-6, 8e-6
"""Assumed for each kernel of a captured step, and for each that the CPU launches; not measured."""
DECODE_LAUNCHES, DECODE_LAYER_LAUNCHES, ADAPTER_LAUNCHES = 42, 17, 6
TRAIN_LAUNCHES, TRAIN_LAYER_LAUNCHES, CHECKPOINT_LAUNCHES = 110, 260, 85
"""Upper bounds that tests hold on a fake GPU: `tests/models/decoding/test_fake_gpu.py`, `tests/stages/`."""
CODEC_FLOP, CODEC_BYTES = 248_000, 10_200
"""Of the decoder of EnCodec at 32 kHz per sample, by `benchmarks/gpu_counts.py`."""
LOGIT_BYTES_DECODING, LOGIT_BYTES_TRAINING = 98, 56
"""Traffic per logit, fitted to `benchmarks/gpu_counts.py`, as are the next ones."""
TRAFFIC_OF_WIDTH, TRAFFIC_OF_FFN = 59, 16
"""Values per position and layer of a training step, relative to width and feed-forward width."""
TRAFFIC_OF_ADAPTER, TRAFFIC_OF_DROPOUT = 16.6, 5.1
"""Values per position of an adapter, relative to its inputs."""
CHECKPOINT_TRAFFIC = 1.6
"""Of a layer that is computed again, relative to one that is not."""


@dataclass(frozen=True)
class Work:
    """What one step, or one call, asks of a GPU.

    Attributes:
        flop: operations of products and attention.
        n_bytes: that kernels read and write.
        launches: of kernels.
        is_captured: whether they are replayed as a graph.
    """

    flop: float
    n_bytes: float
    launches: int
    is_captured: bool = False

    def estimate_s(self, card: Card, *, is_half: bool) -> float:
        """Estimate the time on a card: the slower of products and traffic, and launches.

        Kernels of a graph follow each other; the CPU launches others while the GPU works.
        """
        peak = card.bfloat16_tflops if is_half and card.bfloat16_tflops else card.float32_tflops
        busy_s = max(self.flop / (peak * 1e12), self.n_bytes / (card.bandwidth_gb_s * 1e9)) / EFFICIENCY
        if self.is_captured:
            return busy_s + self.launches * GRAPH_LAUNCH_S
        return max(busy_s, self.launches * LAUNCH_S)


def count_decode_step(
    shape: ModelShape,
    lora: LoraSpec | None,
    generation: GenerationSpec,
    n_clips: int,
    weight: int = HALF,
    n_attended: float | None = None,
) -> Work:
    """Count a step of decoding `n_clips` at once that attends to `n_attended` positions; None is the mean of a clip."""
    sizes = shape.decoder
    width, n_layers = sizes.width, sizes.n_layers
    n_rows = n_clips * (2 if generation.guidance > 1 else 1)
    if n_attended is None:
        steps = [step for n in count_window_steps(shape, generation) for step in range(1, n + 1)]
        n_attended = sum(round_up(step, BUCKET) for step in steps) / len(steps)
    n_square = 4 if sizes.melody else 6
    matrices = n_layers * (n_square * width**2 + 2 * width * sizes.ffn_width)
    heads = sizes.n_codebooks * sizes.codebook_size * width
    n_cross = 0 if sizes.melody else 2 * width**2 * n_layers
    products = n_rows * (matrices - n_cross) + n_clips * (n_cross + heads)
    past = 2 * n_layers * n_rows * n_attended * width
    launches = DECODE_LAUNCHES + DECODE_LAYER_LAUNCHES * n_layers
    if lora is not None and has_setting(lora.kind, "rank"):
        launches += ADAPTER_LAUNCHES * n_layers
    logits = n_clips * sizes.n_codebooks * sizes.codebook_size * LOGIT_BYTES_DECODING
    activations = n_rows * n_layers * (30 * width + 4 * sizes.ffn_width) * weight
    return Work(
        flop=2 * products + 2 * past,
        n_bytes=weight * (matrices + heads + past) + logits + activations,
        launches=launches,
        is_captured=sizes.melody is None,
    )


def count_training_step(
    shape: ModelShape, lora: LoraSpec, train: TrainSpec, clip_s: float, weight: int = HALF
) -> Work:
    """Count a forward and a backward pass of `train.batch_size` slices; the optimiser's part is left out.

    A frozen matrix gets no gradient, so the backward pass has as many products as the forward pass.
    """
    sizes = shape.decoder
    width, n_layers, n_slices = sizes.width, sizes.n_layers, train.batch_size
    n_before = 0 if sizes.melody is None else sizes.melody.chroma_length + CAPTION_TOKENS
    length = n_before + count_steps(shape, clip_s)
    n_positions, n_codes = n_slices * length, n_slices * count_frames(shape, clip_s)
    n_square = 4 if sizes.melody else 6
    matrices = n_square * width**2 + 2 * width * sizes.ffn_width
    texts = 0 if sizes.melody else n_slices * CAPTION_TOKENS
    n_logits = n_codes * sizes.n_codebooks * sizes.codebook_size
    attention = 2 * n_positions * (length + (0 if sizes.melody else CAPTION_TOKENS)) * width
    layer = n_positions * matrices + 2 * texts * width**2 + attention
    n_passes = 3 if train.is_checkpointed else 2
    matched, _ = match_targets(lora.targets, list_trainable(shape, lora))
    adapted = sum(
        linear.n_in
        for linear in matched
        if ".layers." in linear.name
        and not linear.name.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj"))
    )
    of_adapter = TRAFFIC_OF_ADAPTER + TRAFFIC_OF_DROPOUT * lora.has_dropout
    values = n_layers * (TRAFFIC_OF_WIDTH * width + TRAFFIC_OF_FFN * sizes.ffn_width) + of_adapter * adapted
    again = CHECKPOINT_TRAFFIC if train.is_checkpointed else 1.0
    launches = TRAIN_LAYER_LAUNCHES + CHECKPOINT_LAUNCHES * train.is_checkpointed
    return Work(
        flop=2 * (n_passes * n_layers * layer + 2 * n_logits * width),
        n_bytes=again * weight * (n_positions * values + 2 * n_layers * matrices)
        + n_logits * LOGIT_BYTES_TRAINING,
        launches=TRAIN_LAUNCHES + launches * n_layers,
    )


def count_codec(shape: ModelShape, n_clips: int, clip_s: float) -> Work:
    """Count codes to sound of some clips; launches are left out."""
    n_samples = n_clips * shape.channels * count_frames(shape, clip_s) * shape.hop_samples
    scale = shape.codec_filters / ENCODEC_32KHZ.num_filters
    return Work(flop=CODEC_FLOP * scale**2 * n_samples, n_bytes=CODEC_BYTES * scale * n_samples, launches=0)


def estimate_trial_s(shape: ModelShape, trial: TrialPlan, card: Card, left: Remaining) -> float:
    """Estimate the time of a trial's GPU work that is left: training steps, decoding and sound."""
    weight = choose_weight(trial.model, has_bfloat16=card.bfloat16_tflops is not None)
    is_half = weight == HALF
    generation, train, lora = trial.generation, trial.train, trial.lora
    n_at_once = choose_batch(shape, lora, generation, card.memory_gib, weight)
    step = count_decode_step(shape, lora, generation, n_at_once, weight)
    n_steps = math.ceil(generation.n_clips / n_at_once) * sum(count_window_steps(shape, generation))
    sound = count_codec(shape, generation.n_clips, generation.clip_s)
    prompt_s = n_steps * step.estimate_s(card, is_half=is_half) + sound.estimate_s(card, is_half=False)
    total_s = len(trial.prompts) * prompt_s * left.generate_frac
    if train is not None and lora is not None:
        is_mixed = is_half or train.precision == "bfloat16"
        passed = count_training_step(shape, lora, train, trial.dataset.clip_s, weight)
        n_passes = train.steps * train.grad_accumulation * left.train_frac
        total_s += n_passes * passed.estimate_s(card, is_half=is_mixed)
    return total_s
