"""The seam to MusicGen: what stages may ask of a model, whichever library's classes run it.

Axes: `B` batch, `K` codebook, `F` codec frame, `C` channel, `S` audio sample, `L` text token, `D` width.
A stereo model's `K` counts both channels' codebooks, interleaved (left, right, left, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from lora_bench.artifacts import AudioFormat
from lora_bench.models.linears import PackedLinear
from lora_bench.spec.schema import LoraSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TextState = Tensor
"""Text encoder output of one caption, float32 [L, D] on the CPU, not padded."""


@dataclass(frozen=True)
class ModelInfo:
    """What is fixed about a model.

    Attributes:
        name: the spec's model id.
        weights_hash: over the tensors that load; two models with the same hash are the same (see `identity.py`).
        hop_samples: audio samples per codec frame.
        n_codebooks: `K`; for stereo both channels' together.
        codebook_size: codes run from 0 to `codebook_size - 1`; the start token is `codebook_size`.
        delays: frames by which each codebook is delayed, `K` of them.
        max_frames: longest clip that the position table was made for.
        trained: False for random weights (a stand-in): results mean nothing musically.
        codec_hash: the same over the codec alone; None if it was not hashed by itself.
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

    def count_frames(self, n_samples: int) -> int:
        """Frames that cover `n_samples`; the last may reach beyond them."""
        return math.ceil(n_samples / self.hop_samples)


@dataclass(frozen=True)
class LoraInjection:
    """What an injection did: adapted modules per target group, and the trainable parameters."""

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
    """One decoder layer; every projection with the adapter already in it.

    Attributes:
        self_qkv: [3 D, D], queries, keys and values in this order.
        cross_kv: [2 D, D], keys and values from the projected text.
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
    """Everything that decoding needs, as plain tensors on one device.

    Attributes:
        embeddings: [K, codebook_size + 1, D].
        positions: [n_positions, D] float32, sinusoidal; computed in float32 whatever the dtype is.
        text_projection: from the text encoder's width to the decoder's; None if they are equal.
        layers: put together when one is asked for, so that copies of all are never there at once.
        heads: [K * codebook_size, D], bias-free, so that guidance may be applied before them.
        activation: of the feed-forward part.
        start_id: token of codebooks that have not begun or are over.
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


class MusicModel(Protocol):
    """A MusicGen with at most one LoRA adapter in it."""

    @property
    def info(self) -> ModelInfo:
        """What is fixed about the model."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the decoder computes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic of the decoder; text encoder, codec and adapter are float32."""
        ...

    def encode_audio(self, audio: NDArray[np.float32]) -> Tensor:
        """Codes int64 [B, K, F] on the CPU from audio [B, C, S]: clips of equal length only.

        Raises:
            ModelError: wrong number of channels.
        """
        ...

    def decode_audio(self, codes: Tensor) -> NDArray[np.float32]:
        """Audio float32 [B, C, F * hop_samples] from codes [B, K, F]."""
        ...

    def audio_latents(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """The codec's output before its quantiser, float32 [B, F, D]; the mean over channels."""
        ...

    def encode_text(self, texts: Sequence[str]) -> list[TextState]:
        """Text states, one by one and unpadded, so that none depends on its neighbours."""
        ...

    def release_encoders(self) -> None:
        """Let text encoder and codec go, so that training has their memory; what needs them reads them again.

        Nothing else changes: what they make afterwards is the same.  Reading them again may raise ModelError
        if the model's files are gone or have changed.  A backend that cannot read them again keeps them.
        """
        ...

    def linear_module_names(self) -> tuple[str, ...]:
        """Full names of the modules that may be adapted, in the model's order."""
        ...

    def inject_lora(self, lora: LoraSpec, seed: int) -> LoraInjection:
        """Add a fresh adapter (its update is zero); an earlier one is removed.

        Raises:
            NoModulesMatchedError: a target matched nothing.
        """
        ...

    def load_adapter(self, folder: Path) -> None:
        """Put a saved adapter in; an earlier one is removed.

        Raises:
            ModelError: not an adapter, or one of another model.
        """
        ...

    def save_adapter(self, folder: Path, notes: Mapping[str, Any] | None = None) -> None:
        """Write the adapter so that plain `peft.PeftModel.from_pretrained` loads it; atomic.

        Args:
            folder: replaced if it is there.
            notes: kept in its `lora_bench.json` beside model and LoRA settings.
        """
        ...

    def remove_adapter(self) -> None:
        """Back to the base model, bit for bit; nothing happens if there is no adapter."""
        ...

    def adapter_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The adapter's float32 parameters by name; empty without an adapter."""
        ...

    def set_training(
        self, training: bool, *, gradient_checkpointing: bool = False, compiled: bool = False
    ) -> None:
        """Adapter dropout on or off; text encoder and codec stay in eval mode always.

        Args:
            training: whether the passes that follow are learnt from.
            gradient_checkpointing: less memory for more time.
            compiled: run decoder layers as compiled by torch, which happens when they are first called; an adapter
                that is put in later begins anew.  Without `training` they never are.
        """
        ...

    def training_loss(
        self, codes: Tensor, valid_frames: Tensor, text_states: Sequence[TextState | None]
    ) -> Tensor:
        """Cross-entropy in nats per code, mean over the valid frames of all codebooks.

        Args:
            codes: int64 [B, K, F], not delayed.
            valid_frames: int64 [B]; frames from there on are padding and count neither as targets
                nor as inputs.
            text_states: one per clip; None is the null condition.
        """
        ...

    def decoder_weights(self) -> DecoderWeights:
        """Weights for decoding with the present adapter in them; the model is left as it is."""
        ...
