"""Records of a MusicGen, independent of the library that runs it.

Axes: `B` batch, `K` codebook, `F` codec frame, `C` channel, `S` audio sample, `L` text token, `D` width.
A stereo model's `K` counts both channels' codebooks, interleaved (left, right, left, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lora_bench.artifacts import AudioFormat
from lora_bench.models.linears import PackedLinear

TextState = Tensor
"""Text encoder output of one caption, float32 [L, D] on the CPU, not padded."""


@dataclass(frozen=True)
class ModelInfo:
    """Fixed facts about a model.

    Attributes:
        name: the spec's model id.
        weights_hash: over the loaded tensors; models with equal hashes are equal (see `identity.py`).
        hop_samples: audio samples per codec frame.
        n_codebooks: `K`; for stereo both channels' together.
        codebook_size: codes run from 0 to `codebook_size - 1`; the start token is `codebook_size`.
        delays: frames by which each codebook is delayed, `K` of them.
        max_frames: longest clip that the position table covers.
        trained: False for random weights, whose results mean nothing musically.
        codec_hash: the hash of the codec alone; None if it was not computed.
    """

    name: str
    weights_hash: str
    audio_format: AudioFormat
    hop_samples: int
    n_codebooks: int
    codebook_size: int
    delays: tuple[int, ...]
    max_frames: int
    trained: bool
    codec_hash: str | None = None

    @property
    def frame_rate_hz(self) -> float:
        """Codec frames per second."""
        return self.audio_format.sample_rate_hz / self.hop_samples

    @property
    def max_delay(self) -> int:
        """Longest delay of a codebook: a clip takes so many positions more than it has frames."""
        return max(self.delays)

    def count_frames(self, n_samples: int) -> int:
        """Return the number of frames that cover `n_samples`; the last may reach beyond them."""
        return math.ceil(n_samples / self.hop_samples)


@dataclass(frozen=True)
class LoraInjection:
    """Result of an injection: adapted modules per target group, and the number of trainable parameters."""

    matched_modules: Mapping[str, int]
    trainable_params: int


@dataclass(frozen=True)
class LayerNormWeights:
    """Scale and shift [D] of a layer norm, and its epsilon."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True)
class DecoderLayerWeights:
    """One decoder layer; every projection includes the adapter.

    Attributes:
        self_qkv: [3 D, D], queries, keys and values in this order.
        cross_kv: [2 D, D], keys and values from the projected text.  All cross-attention is empty, [0, D], in a model
            that reads the text before the codes.
    """

    self_norm: LayerNormWeights
    self_qkv: PackedLinear
    self_out: PackedLinear
    cross_norm: LayerNormWeights
    cross_q: PackedLinear
    cross_kv: PackedLinear
    cross_out: PackedLinear
    ffn_norm: LayerNormWeights
    ffn_in: PackedLinear
    ffn_out: PackedLinear


@dataclass(frozen=True)
class DecoderWeights:
    """All weights for decoding, as plain tensors on one device.

    Attributes:
        embeddings: [K, codebook_size + 1, D].
        positions: [n_positions, D] float32, sinusoidal; computed in float32 for any dtype.
        text_projection: from the text encoder's width to the decoder's; None if they are equal.
        layers: each is assembled when it is read, so that memory never holds copies of all.
        heads: [K * codebook_size, D], without bias, so that guidance may be applied before them.
        activation: of the feed-forward part.
        start_id: token of codebooks before their first and after their last frame.
        melody: states of the melody, before those of the text, in a model that reads both before the codes; None in
            one with cross-attention.
    """

    embeddings: Tensor
    positions: Tensor
    text_projection: PackedLinear | None
    layers: Sequence[DecoderLayerWeights]
    norm: LayerNormWeights
    heads: PackedLinear
    n_heads: int
    activation: Callable[[Tensor], Tensor]
    start_id: int
    melody: Tensor | None = None

    @property
    def width(self) -> int:
        """`D` of the decoder."""
        return self.embeddings.shape[-1]

    @property
    def n_bytes(self) -> int:
        """Memory of the layers' matrices."""
        layer = self.layers[0]
        matrices = (
            layer.self_qkv,
            layer.self_out,
            layer.cross_q,
            layer.cross_out,
            layer.ffn_in,
            layer.ffn_out,
        )
        return len(self.layers) * sum(matrix.weight.nbytes for matrix in matrices)
