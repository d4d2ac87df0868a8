"""Peak memory of a trial's stages on a GPU, from shapes: encoding the dataset, training, decoding, codes to sound.

It counts tensors of the code as `footprint.py` does, which has the training.  Not in it: the context of CUDA
(`CONTEXT_GIB` is assumed), workspaces of its libraries, what the allocator holds without using it, and encoders of
metrics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lora_bench.forecast.adapters import list_trainable, match_targets, size_adapter
from lora_bench.forecast.footprint import CAPTION_TOKENS, FLOAT32, GIB, HALF, count_decoder
from lora_bench.forecast.shapes import ModelShape
from lora_bench.spec.clip_windows import WINDOW_S, cut_windows
from lora_bench.spec.kinds import has_setting
from lora_bench.spec.schema import GenerationSpec, LoraSpec

CONTEXT_GIB = 1.0
"""Assumed for the context of CUDA and its libraries; not measured."""
BUCKET, TEXT_UNIT, MEMORY_FRAC, MAX_BATCH = 64, 64, 0.5, 256
"""As in `models/decoding/decoder.py` and `loop.py`, which import torch; a test holds them equal."""
SOUND_BATCH, ENCODED_S = 16, 32.0
"""Clips at once through the codec's decoder, seconds of audio at once through its encoder: `stages/`."""
CODEC_COPIES = 4
"""Tensors of the codec's filters at the full sample rate that are alive at once: a residual block's input, its
activation, that one padded, and the half as wide one between its convolutions with its copies."""
LOGIT_BYTES = 24
"""Bytes per logit while a code is drawn, as the product counts them: float32 logits, probabilities, float64 sums."""
_PACKED = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "out_proj": "out", "fc1": "fc1", "fc2": "fc2"}
_ALIGNMENT = 8


@dataclass(frozen=True)
class Decoding:
    """Bytes while clips are decoded on a GPU.

    Attributes:
        n_clips: at once.
        model: decoder, text encoder, codec, adapter.
        prepared: copies of matrices, packed and with the adapter's rows.
        cache: keys and values of the past and of the text.
        passing: logits and activations of one step.
    """

    n_clips: int
    model: int
    prepared: int
    cache: int
    passing: int

    @property
    def peak(self) -> int:
        """All of it."""
        return self.model + self.prepared + self.cache + self.passing


@dataclass(frozen=True)
class StagePeaks:
    """Peaks of a trial's stages in GiB of tensors; None is a stage that is not forecast.

    Attributes:
        encoding: text encoder and codec, over the dataset.
        training: None without training, or where it is finished.
        decoding: None where free memory decides and the card is not known.
        sound: codes to sound, next to what decoding holds.
        n_clips: decoded at once; None as `decoding`.
    """

    encoding: float
    training: float | None
    decoding: float | None
    sound: float | None
    n_clips: int | None

    @property
    def peak_gib(self) -> float:
        """The largest of those that are known."""
        known = (self.encoding, self.training, self.decoding, self.sound)
        return max(value for value in known if value is not None)


def count_frames(shape: ModelShape, clip_s: float) -> int:
    """Return the codec frames of a clip."""
    return -(-round(clip_s * shape.sample_rate_hz) // shape.hop_samples)


def count_steps(shape: ModelShape, clip_s: float) -> int:
    """Return the positions of a clip or slice, with the delay of the last codebook."""
    return count_frames(shape, clip_s) + shape.decoder.n_codebooks // shape.channels - 1


def count_window_steps(shape: ModelShape, generation: GenerationSpec) -> list[int]:
    """Return the decoding steps of each window of a clip; the first is the longest."""
    sizes = (generation.clip_s, WINDOW_S, generation.overlap_s)
    windows = cut_windows(*(count_frames(shape, seconds) for seconds in sizes))
    return [window.n_frames + shape.decoder.n_codebooks // shape.channels - 1 for window in windows]


def count_resident(shape: ModelShape, lora: LoraSpec | None, weight: int) -> int:
    """Return the bytes of a loaded model: its decoder, float32 encoders and projection, and the adapter."""
    projection = sum(
        linear.n_in * linear.n_out + linear.n_out
        for linear in shape.linears
        if linear.group == "conditioning"
    )
    adapter = 0 if lora is None else size_adapter(shape, lora).trainable_params
    return weight * count_decoder(shape) + FLOAT32 * (shape.n_frozen + projection + adapter)


def estimate_decoding(
    shape: ModelShape, lora: LoraSpec | None, generation: GenerationSpec, n_clips: int, weight: int = HALF
) -> Decoding:
    """Estimate the memory of decoding `n_clips` at once.

    Args:
        shape: of the model.
        lora: adapter; None for zero-shot.
        generation: guidance and length of the clips.
        n_clips: at once.
        weight: bytes of one of the decoder's numbers.
    """
    sizes = shape.decoder
    n_steps = count_window_steps(shape, generation)[0]
    n_before = 0 if sizes.melody is None else sizes.melody.chroma_length + CAPTION_TOKENS
    n_positions = round_up(n_steps + n_before, BUCKET)
    n_rows = n_clips * (2 if generation.guidance > 1 else 1)
    of_position = 2 * sizes.n_layers * sizes.width * weight
    texts = 1 if sizes.melody is None else 0
    noise = n_steps * n_clips * sizes.n_codebooks * 2 * 8  # float64, and codes int64
    logits = n_clips * sizes.n_codebooks * sizes.codebook_size * LOGIT_BYTES
    activations = n_rows * (3 * sizes.width + 2 * sizes.ffn_width) * weight
    return Decoding(
        n_clips=n_clips,
        model=count_resident(shape, lora, weight),
        prepared=_count_prepared(shape, lora, weight),
        cache=of_position * (n_rows * n_positions + texts * round_up(CAPTION_TOKENS, TEXT_UNIT)) + noise,
        passing=max(logits, activations),
    )


def _count_prepared(shape: ModelShape, lora: LoraSpec | None, weight: int) -> int:
    """Count copies: queries, keys and values in one matrix, all heads in one, and matrices with an adapter's rows."""
    sizes = shape.decoder
    embeddings = sizes.n_codebooks * (sizes.codebook_size + 1) * sizes.width * weight
    positions = sizes.max_positions * sizes.width * FLOAT32
    heads = sizes.n_codebooks * sizes.codebook_size * sizes.width * weight
    total = embeddings + positions + heads + sizes.n_layers * 3 * sizes.width**2 * weight
    if lora is None or not has_setting(lora.kind, "rank"):
        return total
    if weight == FLOAT32:  # the update is folded into copies
        matched, _ = match_targets(lora.targets, list_trainable(shape, lora))
        leaves = ("fc1", "fc2", "out_proj", "encoder_attn.q_proj")
        alone = [linear for linear in matched if linear.name.endswith(leaves)]
        return total + sum(FLOAT32 * linear.n_in * linear.n_out for linear in alone)
    return total + _count_with_rows(shape, lora, weight)


def _count_with_rows(shape: ModelShape, lora: LoraSpec, weight: int) -> int:
    """Count matrices that the adapter's `down` is appended to, and its `up`."""
    width = shape.decoder.width
    matched, _ = match_targets(lora.targets, list_trainable(shape, lora))
    groups: dict[str, tuple[int, int, int]] = {}
    for linear in matched:
        block, _, leaf = linear.name.rpartition(".")
        if leaf in {"k_proj", "v_proj"} and block.endswith("encoder_attn"):
            continue  # their product is computed once per prompt
        packed = _PACKED.get(leaf)
        if packed is None:
            continue
        n_out = 3 * width if packed == "qkv" and block.endswith("self_attn") else linear.n_out
        _, _, rank = groups.get(f"{block}.{packed}", (0, 0, 0))
        groups[f"{block}.{packed}"] = (linear.n_in, n_out, rank + lora.rank)
    total = 0
    for key, (n_in, n_out, rank) in groups.items():
        n_added = round_up(n_out + rank, _ALIGNMENT) - n_out
        copied = 0 if key.endswith("self_attn.qkv") else n_out * n_in  # that one is a copy already
        total += weight * (copied + n_added * n_in + n_added * n_out)
    return total


def choose_batch(
    shape: ModelShape, lora: LoraSpec | None, generation: GenerationSpec, card_gib: float, weight: int = HALF
) -> int:
    """Return the clips that are decoded at once on an otherwise empty card: the spec's, or as the product chooses."""
    if generation.batch_size is not None:
        return min(generation.batch_size, generation.n_clips)
    sizes = shape.decoder
    n_steps = count_window_steps(shape, generation)[0]
    halves = 2 if generation.guidance > 1 else 1
    cache = 2 * sizes.n_layers * round_up(n_steps, BUCKET) * sizes.width * weight
    logits = sizes.n_codebooks * sizes.codebook_size * LOGIT_BYTES
    per_clip = halves * (cache + sizes.width * 64 * weight) + logits
    n_square = 4 if sizes.melody else 6
    layers = sizes.n_layers * (n_square * sizes.width**2 + 2 * sizes.width * sizes.ffn_width) * weight
    free = (card_gib - CONTEXT_GIB) * GIB - count_resident(shape, lora, weight)
    fits = int((free * MEMORY_FRAC - (layers if weight == HALF else 0)) / per_clip)
    size = max(1, min(fits, MAX_BATCH))
    return math.ceil(generation.n_clips / math.ceil(generation.n_clips / size))


def estimate_codec(shape: ModelShape, n_clips: int, clip_s: float) -> int:
    """Estimate the bytes that the codec takes for some clips, next to its weights; a channel is a clip of its own."""
    n_samples = count_frames(shape, clip_s) * shape.hop_samples
    return CODEC_COPIES * FLOAT32 * shape.codec_filters * n_clips * shape.channels * n_samples


def estimate_stages(
    shape: ModelShape,
    lora: LoraSpec | None,
    generation: GenerationSpec,
    slice_s: float,
    *,
    training_gib: float | None,
    card_gib: float | None,
    weight: int = HALF,
) -> StagePeaks:
    """Estimate the peaks of a trial's stages on a GPU.

    Args:
        shape: of the model.
        lora: adapter; None for zero-shot.
        generation: of the trial.
        slice_s: length of the dataset's slices.
        training_gib: of the training, by `footprint.py` or measured.
        card_gib: memory of the card; None if unknown.
        weight: bytes of one of the decoder's numbers.
    """
    n_slices = max(1, int(ENCODED_S / slice_s))
    encoding = count_resident(shape, None, weight) + estimate_codec(shape, n_slices, slice_s)
    n_clips = None
    if card_gib is not None or generation.batch_size is not None:
        n_clips = choose_batch(shape, lora, generation, card_gib or math.inf, weight)
    decoding = sound = None
    if n_clips is not None:
        found = estimate_decoding(shape, lora, generation, n_clips, weight)
        decoding = found.peak / GIB
        n_sounds = min(n_clips, SOUND_BATCH)
        sound = (found.peak - found.passing + estimate_codec(shape, n_sounds, generation.clip_s)) / GIB
    return StagePeaks(encoding / GIB, training_gib, decoding, sound, n_clips)


def round_up(number: int, unit: int) -> int:
    """Round up to a multiple of `unit`."""
    return -(-number // unit) * unit
