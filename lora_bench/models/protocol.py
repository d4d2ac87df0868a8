"""The interface of a MusicGen, independent of the library that runs it.

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
    """All weights for decoding, as plain tensors on one device.

    Attributes:
        embeddings: [K, codebook_size + 1, D].
        positions: [n_positions, D] float32, sinusoidal; computed in float32 for any dtype.
        text_projection: from the text encoder's width to the decoder's; None if they are equal.
        layers: each is assembled when it is read, so that memory never holds copies of all.
        heads: [K * codebook_size, D], without bias, so that guidance may be applied before them.
        activation: of the feed-forward part.
        start_id: token of codebooks before their first and after their last frame.
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
    """A MusicGen with at most one LoRA adapter."""

    @property
    def info(self) -> ModelInfo:
        """Fixed facts about the model."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the decoder."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic of the decoder; text encoder, codec and adapter are float32."""
        ...

    def encode_audio(self, audio: NDArray[np.float32]) -> Tensor:
        """Encode audio [B, C, S], clips of equal length, to codes int64 [B, K, F] on the CPU.

        Raises:
            ModelError: wrong number of channels.
        """
        ...

    def decode_audio(self, codes: Tensor) -> NDArray[np.float32]:
        """Decode codes [B, K, F] to audio float32 [B, C, F * hop_samples]."""
        ...

    def audio_latents(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the codec's output before its quantiser, float32 [B, F, D], the mean over channels."""
        ...

    def encode_text(self, texts: Sequence[str]) -> list[TextState]:
        """Encode texts one by one and unpadded, so that no state depends on other texts."""
        ...

    def release_encoders(self) -> None:
        """Release text encoder and codec, so that training has their memory; they are read again when needed.

        Their later results are the same.  Reading them again raises ModelError if the model's files are gone or have
        changed.  A backend that cannot read them again keeps them.
        """
        ...

    def linear_module_names(self) -> tuple[str, ...]:
        """Return the full names of the modules that may be adapted, in the model's order."""
        ...

    def inject_lora(self, lora: LoraSpec, seed: int) -> LoraInjection:
        """Add a fresh adapter, whose update is zero, in place of an earlier one.

        Raises:
            NoModulesMatchedError: a target matched nothing.
        """
        ...

    def load_adapter(self, folder: Path) -> None:
        """Load a saved adapter in place of an earlier one.

        Raises:
            ModelError: not an adapter, or one of another model.
        """
        ...

    def save_adapter(self, folder: Path, notes: Mapping[str, Any] | None = None) -> None:
        """Write the adapter atomically, for plain `peft.PeftModel.from_pretrained`.

        Args:
            folder: replaced if it exists.
            notes: saved in its `lora_bench.json` next to model and LoRA settings.
        """
        ...

    def remove_adapter(self) -> None:
        """Restore the base model bit for bit; without an adapter do nothing."""
        ...

    def adapter_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return the adapter's float32 parameters by name; empty without an adapter."""
        ...

    def set_training(
        self, training: bool, *, gradient_checkpointing: bool = False, compiled: bool = False
    ) -> None:
        """Switch adapter dropout on or off; text encoder and codec always stay in eval mode.

        Args:
            training: whether the following passes train the adapter.
            gradient_checkpointing: save memory for more time.
            compiled: let torch compile the decoder layers at their first call, and again after a new adapter; only
                with `training`.
        """
        ...

    def training_loss(
        self, codes: Tensor, valid_frames: Tensor, text_states: Sequence[TextState | None]
    ) -> Tensor:
        """Return the cross-entropy in nats per code, the mean over the valid frames of all codebooks.

        Args:
            codes: int64 [B, K, F], not delayed.
            valid_frames: int64 [B]; later frames are padding, neither targets nor inputs.
            text_states: one per clip; None is the null condition.
        """
        ...

    def decoder_weights(self) -> DecoderWeights:
        """Return weights for decoding that include the current adapter; the model does not change."""
        ...
