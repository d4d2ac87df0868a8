"""Peak memory of training from shapes alone, for a model that was not trained on this machine yet.

It counts tensors of the eager implementation (`models/base.py`, transformers' `modeling_musicgen.py`, PEFT's
`lora/layer.py`), term by term; each term says where it comes from.  Not in it: what a process or a CUDA context
takes before the first tensor, and what an allocator holds without using it.  `D` is the decoder's width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lora_bench.forecast.adapters import list_trainable, match_targets, size_adapter
from lora_bench.forecast.kinds import size_layer
from lora_bench.forecast.shapes import DecoderSizes, Linear, ModelShape
from lora_bench.spec.kinds import has_setting
from lora_bench.spec.schema import LoraSpec, ModelSpec, TrainSpec

GIB = 1024**3
FLOAT32, HALF, BOOL = 4, 2, 1  # bytes
CAPTION_TOKENS = 64
"""T5 tokens of a caption, which are not known before the dataset is read: some fifty words."""
WORKING_COPIES = 4
"""Gradients of the widest layer's values that are alive at once in the backward pass: of its output, its input by
the base weight, its input by the adapter, and their sum."""
PROCESS_GIB = 0.75
"""Python, torch and transformers on a CPU: 0.82 GiB with the pocket model loaded, whose weights are 0.04 of it
(`before work` of `benchmarks/train_step.py --model pocket`)."""
CPU_HELD_RATIO = 1.8
"""What training adds to resident memory over the tensors that are counted here: 1.7 and 1.8 with the pocket model
(8 slices of 8 s, 4 of 4 s), 1.8 with MusicGen small (4 of 8 s), by `benchmarks/train_step.py`.  It is glibc's
allocator: with MALLOC_MMAP_THRESHOLD_=262144 the ratio was 1.0."""
_WEIGHT_COPIES = {"loha": 3, "lokr": 1, "miss": 1}
"""Matrices of the weight's size that a layer of a kind keeps for the backward pass."""
_LAYER = re.compile(r"\.layers\.(\d+)\.(.+)$")
_TEXT_PARTS = frozenset({"encoder_attn.k_proj", "encoder_attn.v_proj"})


@dataclass(frozen=True)
class Arithmetic:
    """Device and number formats of a training.

    Attributes:
        device: dropout keeps its noise as float32 on a CPU, and one byte per value on a GPU.
        weight: bytes of one of the decoder's weights.
        is_autocast: float32 weights whose products are computed in bfloat16.
    """

    device: Literal["cpu", "cuda"]
    weight: int = FLOAT32
    is_autocast: bool = False

    @property
    def product(self) -> int:
        """Bytes of a value that a linear layer puts out."""
        return HALF if self.is_autocast else self.weight

    @property
    def adapter_input(self) -> int:
        """Bytes of a value that an adapter's first product keeps: float32, but for autocast.

        On a GPU half-precision decoders train under it (`models/training_arithmetic.py`).
        """
        return HALF if self.is_autocast or (self.device == "cuda" and self.weight == HALF) else FLOAT32

    @property
    def gradient(self) -> int:
        """Bytes of a gradient in the backward pass: that of an adapter's input, or of the stream under autocast."""
        return self.adapter_input if self.weight == HALF else FLOAT32

    @property
    def noise(self) -> int:
        """Bytes that dropout keeps per value."""
        return BOOL if self.device == "cuda" else FLOAT32


@dataclass(frozen=True)
class Footprint:
    """Bytes in training, by what they are for.

    Attributes:
        decoder: its frozen weights, in `model.dtype`.
        text_and_codec: T5, EnCodec and the text's projection, in float32.  On a CPU counted throughout, an upper
            bound: encoders are let go before training, except those of audiocraft's own exports.
        adapter: weights, gradients and AdamW's two moments, all float32.
        activations: what the decoder's layers keep for the backward pass.
        recomputed: what one layer keeps while it is computed again; 0 without checkpointing.
        logits: float32 log-probabilities of all codes, kept for the backward pass.
        working: gradients and copies that come and go.
        loading: the whole model in float32, as audiocraft's comes to the device before the decoder gets its own
            type; transformers' decoder is cast on the way, and on a GPU this is 0 for it.
    """

    decoder: int
    text_and_codec: int
    adapter: int
    activations: int
    recomputed: int
    logits: int
    working: int
    loading: int

    @property
    def training(self) -> int:
        """Peak of a training step."""
        held = self.decoder + self.text_and_codec + self.adapter
        return held + self.activations + self.passing

    @property
    def passing(self) -> int:
        """Peak of what comes and goes: the logits are gone before a layer is computed again."""
        if self.recomputed:
            return max(self.logits, self.recomputed) + self.working
        return self.logits + self.working

    @property
    def peak(self) -> int:
        """Peak of loading and training."""
        return max(self.training, self.loading)

    def predict_peak_gib(self, device: Literal["cpu", "cuda"]) -> float:
        """Predict `models.memory.peak_gib`: tensors on a GPU, or all memory of the process.

        On a CPU that is rough: glibc's allocator held up to 1.8 times the tensors of a step, and 3 times those of a
        checkpointed one, where it was measured.
        """
        if device == "cuda":
            return self.peak / GIB
        lasting = self.decoder + self.text_and_codec + self.adapter
        passing = self.activations + self.passing
        return PROCESS_GIB + max(lasting + CPU_HELD_RATIO * passing, self.loading) / GIB


def choose_weight(model: ModelSpec, *, has_bfloat16: bool) -> int:
    """Return the bytes of one of the decoder's numbers; `auto` is bfloat16 on a GPU that has it."""
    is_half = model.dtype in {"bfloat16", "float16"} or (model.dtype == "auto" and has_bfloat16)
    return HALF if is_half else FLOAT32


def choose_arithmetic(
    model: ModelSpec, train: TrainSpec, *, has_gpu: bool, has_bfloat16: bool | None = None
) -> Arithmetic:
    """Return the arithmetic of a trial; a GPU has bfloat16 unless said otherwise."""
    weight = choose_weight(model, has_bfloat16=has_gpu if has_bfloat16 is None else has_bfloat16)
    return Arithmetic(
        device="cuda" if has_gpu else "cpu",
        weight=weight,
        is_autocast=train.precision == "bfloat16" and weight == FLOAT32,
    )


def estimate_training(
    shape: ModelShape,
    lora: LoraSpec,
    train: TrainSpec,
    clip_s: float,
    arithmetic: Arithmetic,
    *,
    keeps_encoders: bool = True,
) -> Footprint:
    """Estimate the peak memory of a training step.

    Args:
        shape: of the model.
        lora: the adapter; of a target that matches nothing, what the others come to.
        train: `batch_size` slices go through the model at once; accumulation adds nothing.
        clip_s: length of a slice.
        arithmetic: see `choose_arithmetic`.
        keeps_encoders: whether text encoder and codec stay in memory; False for a model in transformers' form.
    """
    sizes = shape.decoder
    n_frames = -(-round(clip_s * shape.sample_rate_hz) // shape.hop_samples)
    delay = sizes.n_codebooks // shape.channels - 1  # the last codebook's, see models/delay_pattern.py
    n_before = 0 if sizes.melody is None else sizes.melody.chroma_length + CAPTION_TOKENS
    n_positions = train.batch_size * (n_before + n_frames + delay)
    n_codes = train.batch_size * n_frames
    adapter = size_adapter(shape, lora)
    adapted, _ = match_targets(lora.targets, list_trainable(shape, lora))
    n_decoder = count_decoder(shape)
    n_projection = sum(linear.n_in * linear.n_out + linear.n_out for linear in _find(shape, "conditioning"))
    frozen = FLOAT32 * (shape.n_frozen * keeps_encoders + n_projection)
    n_texts = train.batch_size * CAPTION_TOKENS
    passing = _Pass(sizes, lora, arithmetic, n_positions, n_texts, train.is_checkpointed)
    kept, recomputed = passing.keep_layers(adapted)
    logits = sizes.n_codebooks * n_codes * sizes.codebook_size * FLOAT32  # log_softmax keeps its output
    heads = sum(passing.keep_adapted(linear) for linear in adapted if linear.group == "heads") * n_codes
    # of one codebook: logits, their float32 copy, and gradients of both
    transient = n_codes * sizes.codebook_size * 2 * (FLOAT32 + arithmetic.product)
    wide = n_positions * max(sizes.ffn_width, sizes.width) * arithmetic.gradient
    n_copies = WORKING_COPIES + train.is_checkpointed  # and the gradient that enters a recomputed layer
    # autocast keeps the adapters' weights in halves until the forward pass is over
    rounded = HALF * adapter.trainable_params if arithmetic.gradient == HALF else 0
    return Footprint(
        decoder=arithmetic.weight * n_decoder,
        text_and_codec=frozen,
        adapter=4 * FLOAT32 * adapter.trainable_params,
        activations=kept + heads,
        recomputed=recomputed,
        logits=logits,
        working=max(transient, wide * n_copies) + rounded,
        loading=FLOAT32 * n_decoder + frozen if keeps_encoders else 0,
    )


def count_decoder(shape: ModelShape) -> int:
    """Numbers in the decoder: linear layers, embeddings of codes and positions, norms."""
    sizes = shape.decoder
    linears = sum(linear.n_in * linear.n_out for linear in shape.linears if linear.group != "conditioning")
    embeddings = sizes.n_codebooks * (sizes.codebook_size + 1) + sizes.max_positions
    norms = 2 * ((2 if sizes.melody else 3) * sizes.n_layers + 1)
    return linears + (embeddings + norms) * sizes.width


def _find(shape: ModelShape, group: str) -> Iterable[Linear]:
    return (linear for linear in shape.linears if linear.group == group)


@dataclass(frozen=True)
class _Pass:
    """One forward pass of the decoder: what autograd keeps of it.

    A frozen linear layer keeps nothing but its weight.  Layers below the first adapter keep nothing, for no gradient
    goes there.
    """

    sizes: DecoderSizes
    lora: LoraSpec
    arithmetic: Arithmetic
    n_positions: int
    n_texts: int
    is_checkpointed: bool

    def keep_layers(self, adapted: Sequence[Linear]) -> tuple[int, int]:
        """Bytes of all layers and the final norm, and of one layer that is computed again.

        With checkpointing the former is every layer's input; else the latter is 0.
        """
        by_layer: dict[int, list[Linear]] = {}
        for linear in adapted:
            if found := _LAYER.search(linear.name):
                by_layer.setdefault(int(found[1]), []).append(linear)
        reaches_text = any(linear.group == "conditioning" for linear in adapted)
        if not by_layer and not reaches_text:
            return 0, 0
        first = 0 if reaches_text else min(by_layer)
        of_layer = [self._keep_layer(by_layer.get(n, [])) for n in range(first, self.sizes.n_layers)]
        stream = self.n_positions * self.sizes.width * self._stream
        if self.is_checkpointed:
            return (self.sizes.n_layers + 1) * stream, max(of_layer)
        return sum(of_layer) + stream, 0

    @property
    def _stream(self) -> int:
        """Bytes of a value between layers: under autocast embeddings are float32, and sums with them."""
        return FLOAT32 if self.arithmetic.is_autocast else self.arithmetic.weight

    def _keep_layer(self, adapted: Sequence[Linear]) -> int:
        sizes, product = self.sizes, self.arithmetic.product
        is_melody = sizes.melody is not None
        # three norms keep their inputs, means and deviations; two without attention to the text
        per_position = (2 if is_melody else 3) * (sizes.width * self._stream + 2 * FLOAT32)
        # flash attention keeps queries, keys, values, output and one log-sum per head: of itself, then of the text
        per_position += 4 * sizes.width * product + sizes.n_heads * FLOAT32
        per_text = 0
        if not is_melody:
            per_position += 2 * sizes.width * product + sizes.n_heads * FLOAT32
            per_text = 2 * sizes.width * product
        per_position += sizes.ffn_width * product  # GELU keeps its input
        kept: set[str] = set()
        for linear in adapted:
            part = linear.name.partition(".layers.")[2].partition(".")[2]
            n_bytes = self.keep_adapted(linear, is_kept=self._is_kept(part, kept))
            if part in _TEXT_PARTS:
                per_text += n_bytes
            else:
                per_position += n_bytes
        constant = 0
        if self.arithmetic.is_autocast:
            # frozen weights are rounded anew in each call, and the rounded ones are kept; adapters' once
            n_products = 4 if is_melody else 8
            constant += HALF * (n_products * sizes.width**2 + 2 * sizes.width * sizes.ffn_width)
            constant += HALF * sum(size_layer(self.lora, linear).trained for linear in adapted)
        n_copies = 1 if self.lora.is_dora else _WEIGHT_COPIES.get(self.lora.kind, 0)
        constant += n_copies * sum(FLOAT32 * linear.n_in * linear.n_out for linear in adapted)
        return constant + per_position * self.n_positions + per_text * self.n_texts

    def _is_kept(self, part: str, kept: set[str]) -> bool:
        """Return whether the input of a layer is kept already, by attention or for a parallel layer; note it in `kept`.

        Only without dropout, and where adapters compute in the type of the layers: elsewhere every adapter has a copy
        of its own.
        """
        arithmetic = self.arithmetic
        if self.lora.has_dropout or arithmetic.is_autocast or arithmetic.adapter_input != arithmetic.product:
            return False
        block, _, leaf = part.rpartition(".")
        source = f"{block}.{leaf}" if leaf == "q_proj" and block == "encoder_attn" else block or leaf
        is_kept = leaf == "out_proj" or source in kept
        kept.add(source)
        return is_kept

    def keep_adapted(self, linear: Linear, *, is_kept: bool = False) -> int:
        """Bytes that one adapter keeps per position: its input after dropout, dropout's noise, and what is between its
        two products; DoRA also what the base layer and the adapter put out.
        """
        arithmetic = self.arithmetic
        n_bytes = 0 if is_kept else linear.n_in * arithmetic.adapter_input
        if self.lora.has_dropout:
            n_bytes += linear.n_in * arithmetic.noise
        if self.lora.is_dora:
            n_bytes += 3 * linear.n_out * FLOAT32
        if not has_setting(self.lora.kind, "rank"):
            return n_bytes
        return n_bytes + self.lora.rank * arithmetic.adapter_input
