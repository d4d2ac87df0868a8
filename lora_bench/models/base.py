"""The interface of a MusicGen, and what all backends share: adapters, channels, text, the training loss.

`network` has its decoder under transformers' names, so that targets, the initial A of an adapter, saved adapters and
the extraction of weights are the same for every library:
`decoder.model.decoder.layers.N.{self_attn,encoder_attn}.{q,k,v,out}_proj`, `fc1`, `fc2`,
`decoder.lm_heads.K`, and `enc_to_dec_proj` where text and decoder differ in width.

The null condition is zero states after the projection with an open attention mask.  It gives exactly the result of a
zero mask (keys and values have no bias), and no row of the attention is fully masked.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_bench.errors import ModelError
from lora_bench.models import lora as adapters
from lora_bench.models.adapter_kinds import check_precision_of_kind, find_kind
from lora_bench.models.bridges.adapters import is_audiocraft_adapter, rename_adapter
from lora_bench.models.compiled_training import CompiledLayers
from lora_bench.models.delay_pattern import decoder_inputs, delay_codes
from lora_bench.models.extraction import extract_decoder_weights
from lora_bench.models.records import DecoderWeights, LoraInjection, ModelInfo, TextState
from lora_bench.models.targets import resolve_targets
from lora_bench.models.training_arithmetic import use_training_arithmetic
from lora_bench.spec.schema import LoraSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from peft import PeftModel

DROPOUT_ATTRIBUTES = ("dropout", "activation_dropout", "layerdrop")


class MusicModel(ABC):
    """A frozen MusicGen with at most one adapter.

    Args:
        network: under transformers' names (see above); on `device`, its decoder in `dtype`.
        info: fixed facts about it.
        device: of the whole network.
        dtype: arithmetic of the decoder; text encoder, codec and adapter are float32.
        text_width: width of the text encoder's states.
        hub_id: for the adapter's config; None if the model is not on the hub.
    """

    def __init__(
        self,
        network: nn.Module,
        info: ModelInfo,
        *,
        device: torch.device,
        dtype: torch.dtype,
        text_width: int,
        hub_id: str | None = None,
    ) -> None:
        self._network: Any = network
        self.info = info
        self.device = device
        self.dtype = dtype
        self._text_width = text_width
        self._hub_id = hub_id
        self._peft: PeftModel | None = None
        self._lora: LoraSpec | None = None
        self.adapter_scale = 1.0
        """Strength of the adapter in decoding; another adapter begins with 1."""
        self._compiled = CompiledLayers()
        network.requires_grad_(False)
        network.eval()
        for module in self._network.decoder.modules():
            for attribute in DROPOUT_ATTRIBUTES:
                if isinstance(getattr(module, attribute, None), float | int):
                    setattr(module, attribute, 0.0)

    @property
    def peft_model(self) -> PeftModel:
        """The network with its adapter, as PEFT's optimisers take it."""
        if self._peft is None:
            raise ModelError(f"{self.info.name}: there is no adapter; inject or load one first")
        return self._peft

    @property
    def network(self) -> Any:
        """The whole network."""
        return self._network

    # what the library does

    @abstractmethod
    def _encode_mono(self, audio: Tensor) -> Tensor:
        """Encode mono clips [N, 1, S] to codes [N, K / C, F]."""

    @abstractmethod
    def _decode_mono(self, codes: Tensor) -> Tensor:
        """Decode codes [N, K / C, F] to audio [N, 1, at least F * hop_samples]."""

    @abstractmethod
    def _find_latents(self, audio: Tensor) -> Tensor:
        """Return the codec's output before its quantiser, [N, D, F], for mono clips [N, 1, S]."""

    @abstractmethod
    def encode_text(self, texts: Sequence[str]) -> list[TextState]:
        """Encode texts one by one and unpadded, so that no state depends on other texts."""

    @abstractmethod
    def release_encoders(self) -> None:
        """Release text encoder and codec, so that training has their memory; they are read again when needed.

        Their later results are the same.  Reading them again raises ModelError if the model's files are gone or have
        changed.  A backend that cannot read them again keeps them.
        """

    @abstractmethod
    def _find_layers(self) -> Sequence[nn.Module]:
        """Return the decoder's layers."""

    @abstractmethod
    def _switch_checkpointing(self, on: bool) -> None:
        """Switch gradient checkpointing of the decoder's layers in training on or off."""

    @abstractmethod
    def _run_decoder(self, inputs: Tensor, text: Tensor, text_mask: Tensor | None) -> Tensor:
        """Return normalised hidden states [B, T, D].

        Args:
            inputs: int64 [B, K, T], delayed.
            text: projected states [B, L, D] in the decoder's dtype.
            text_mask: int64 [B, L], 0 at padding; None without padding.
        """

    # audio

    @torch.no_grad()
    def encode_audio(self, audio: NDArray[np.float32]) -> Tensor:
        """Encode audio [B, C, S], clips of equal length, to codes int64 [B, K, F] on the CPU.

        Raises:
            ModelError: wrong number of channels.
        """
        codes = self._encode_mono(self._split_channels(audio))
        channels = self.info.audio_format.channels
        n_clips, n_frames = len(audio), codes.shape[-1]
        # [B * C, K / C, F] -> interleaved codebooks [B, K, F]
        codes = codes.reshape(n_clips, channels, -1, n_frames).transpose(1, 2)
        return codes.reshape(n_clips, self.info.n_codebooks, n_frames).long().cpu()

    @torch.no_grad()
    def decode_audio(self, codes: Tensor) -> NDArray[np.float32]:
        """Decode codes [B, K, F] to audio float32 [B, C, F * hop_samples]."""
        n_clips, _, n_frames = codes.shape
        channels = self.info.audio_format.channels
        mono = codes.to(self.device).reshape(n_clips, -1, channels, n_frames).transpose(1, 2)
        audio = self._decode_mono(mono.reshape(n_clips * channels, -1, n_frames))
        audio = audio[..., : n_frames * self.info.hop_samples]
        return audio.reshape(n_clips, channels, -1).float().cpu().numpy()

    @torch.no_grad()
    def audio_latents(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the codec's output before its quantiser, float32 [B, F, D], the mean over channels."""
        latents = self._find_latents(self._split_channels(audio))  # [B * C, D, F]
        latents = latents.reshape(len(audio), -1, *latents.shape[1:]).mean(dim=1)
        return latents.transpose(1, 2).float().cpu().numpy()

    def _split_channels(self, audio: NDArray[np.float32]) -> Tensor:
        """Return audio [B, C, S] as mono clips [B * C, 1, S] on the device."""
        channels = self.info.audio_format.channels
        if audio.ndim != 3 or audio.shape[1] != channels:
            raise ModelError(
                f"{self.info.name}: audio of shape {audio.shape}, expected (clips, {channels}, samples); "
                "bring it to the model's number of channels first"
            )
        return torch.from_numpy(audio).to(self.device).reshape(-1, 1, audio.shape[-1])

    # adapters

    def linear_module_names(self) -> tuple[str, ...]:
        """Return the full names of the modules that may be adapted, all of the decoder, in the model's order."""
        return self._name_modules(nn.Linear)

    def weighted_module_names(self) -> tuple[str, ...]:
        """Return the full names of all modules with weights of their own that full fine-tuning may train.

        PEFT finds them by the end of their names, so one whose name ends another module's is left out: it would take
        the other one with it, as a melody model's projection of the text does with that of the melody.
        """
        everything = [name for name, _ in self._network.named_modules()]
        return tuple(
            name
            for name in self._name_modules(nn.Linear | nn.LayerNorm | nn.Embedding)
            if not any(other != name and other.endswith(name) for other in everything)
        )

    def _name_modules(self, classes: Any) -> tuple[str, ...]:
        found = [name for name, module in self._network.named_modules() if isinstance(module, classes)]
        # of adapted layers, that of the base model
        names = [
            name.removesuffix(".base_layer").removesuffix(".original_module")
            for name in found
            if ".lora_" not in name and ".modules_to_save." not in name
        ]
        return tuple(name for name in names if name.startswith("decoder.") or name == "enc_to_dec_proj")

    def inject_lora(self, lora: LoraSpec, seed: int) -> LoraInjection:
        """Add a fresh adapter, whose update is zero, in place of an earlier one.

        Raises:
            NoModulesMatchedError: a target matched nothing.
            ModelError: the kind needs float32 weights.
        """
        self.remove_adapter()
        check_precision_of_kind(lora.kind, self.dtype)
        known = self.weighted_module_names() if lora.kind == "full" else self.linear_module_names()
        names = resolve_targets(lora.targets, known)
        self._peft = adapters.add_adapter(self._network, names, lora, seed)
        self._lora = lora
        self.set_training(False)
        return self.count_adapter()

    def adopt_adapter(self, peft_model: PeftModel) -> None:
        """Take an adapter that PEFT has added to the network, in place of an earlier one that was removed before."""
        self._peft = peft_model
        self.set_training(False)

    def load_adapter(self, folder: Path) -> None:
        """Load a saved adapter in place of an earlier one; it may have audiocraft's names.

        Raises:
            ModelError: not an adapter, or one of another model.
        """
        adapters.check_adapter(folder, model_name=self.info.name, weights_hash=self.info.weights_hash)
        self.remove_adapter()
        if is_audiocraft_adapter(folder):
            with tempfile.TemporaryDirectory() as parent:
                renamed = rename_adapter(folder, Path(parent) / "adapter", "transformers")
                self._peft = adapters.load_adapter(self._network, renamed)
        else:
            self._peft = adapters.load_adapter(self._network, folder)
        check_precision_of_kind(find_kind(self._peft.peft_config[adapters.ADAPTER]), self.dtype)
        self.set_training(False)

    def count_adapter(self) -> LoraInjection:
        """Return the parameters of the adapter, and its modules by target group.

        Raises:
            ModelError: there is none.
        """
        return LoraInjection(*adapters.count_adapter(self.peft_model))

    def save_adapter(
        self, folder: Path, notes: Mapping[str, Any] | None = None, *, is_trained: bool = True
    ) -> None:
        """Write the adapter atomically, for plain `peft.PeftModel.from_pretrained`.

        Args:
            folder: replaced if it exists.
            notes: saved in its `lora_bench.json` next to model and LoRA settings.
            is_trained: False leaves the adapter of the model as it is, to train it further.
        """
        if self._peft is None:
            raise ModelError(f"{folder}: there is no adapter to save; inject or load one first")
        facts = {"model": self.info.name, "weights_hash": self.info.weights_hash, "lora": self._lora}
        provenance: dict[str, Any] = {**facts, **(notes or {})}
        adapters.save_adapter(self._peft, folder, provenance, self._hub_id)
        if is_trained and adapters.find_changed_base(self._peft) is not None:
            self.load_adapter(folder)  # clips are then the same as after loading it later

    def remove_adapter(self) -> None:
        """Restore the base model bit for bit; without an adapter do nothing."""
        self._compiled.forget()
        self.adapter_scale = 1.0
        if self._peft is not None:
            adapters.remove_adapter(self._peft)
            self._peft = None
            self._lora = None

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Return the adapter's float32 parameters by name; empty without an adapter."""
        return {} if self._peft is None else adapters.adapter_parameters(self._peft)

    # training and decoding

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
        self._switch_checkpointing(gradient_checkpointing)
        if compiled and training:
            self._compiled.use(self._find_layers())
        else:
            self._compiled.leave()
        self._network.eval()
        # all dropout but the adapter's is zero; the decoder's mode also switches the checkpointing
        self._network.decoder.train(training)
        if hasattr(self._network, "enc_to_dec_proj"):
            self._network.enc_to_dec_proj.train(training)

    def use_training_arithmetic(self, precision: str | None) -> AbstractContextManager[None]:
        """Return the arithmetic of forward passes in training; see `training_arithmetic.py`."""
        layers = () if self._peft is None else adapters.adapted_modules(self._peft).values()
        return use_training_arithmetic(
            self.device, self.dtype, precision, cast("Iterable[nn.Module]", layers)
        )

    def training_loss(
        self, codes: Tensor, valid_frames: Tensor, text_states: Sequence[TextState | None]
    ) -> Tensor:
        """Return the cross-entropy in nats per code, the mean over the valid frames of all codebooks.

        Args:
            codes: int64 [B, K, F], not delayed.
            valid_frames: int64 [B]; later frames are padding, neither targets nor inputs.
            text_states: one per clip; None is the null condition.
        """
        n_frames = int(valid_frames.max())
        is_padded = bool((valid_frames < n_frames).any())  # on the CPU: no need to wait for a GPU
        codes = codes[..., :n_frames].to(self.device)
        # places of valid frames [n], found on the CPU: a mask would make a GPU wait
        kept = None
        if is_padded:
            in_clip = torch.arange(n_frames) < valid_frames[:, None]  # [B, F]
            kept = in_clip.flatten().nonzero().squeeze(1).to(self.device)
        valid_frames = valid_frames.to(self.device)
        start_id, delays = self.info.codebook_size, self.info.delays
        inputs = decoder_inputs(delay_codes(codes, valid_frames, delays, start_id), start_id)
        hidden = self._run_decoder(inputs, *self._batch_text(text_states))  # [B, F + max(delays), D]
        losses: list[Tensor] = []
        for codebook, delay in enumerate(delays):
            states, wanted = hidden[:, delay : delay + n_frames].flatten(0, 1), codes[:, codebook].flatten()
            if kept is not None:  # heads see only valid frames: padding costs neither memory nor gradient
                states, wanted = states[kept], wanted[kept]
            losses.append(F.cross_entropy(self._network.decoder.lm_heads[codebook](states).float(), wanted))
        return torch.stack(losses).mean()

    def encode_melody(self, chroma: Tensor) -> Tensor:  # noqa: ARG002
        """Return the states [P, D] of a melody's one-hot pitch classes [T, 12], in the decoder's dtype.

        Raises:
            ModelError: the model follows no melody.
        """
        raise ModelError(
            f"generation.melodies: {self.info.name} follows no melodies; use a melody model such as "
            "facebook/musicgen-melody, or leave melodies out"
        )

    def drop_text(self, state: TextState) -> TextState | None:  # noqa: ARG002
        """Return the condition that replaces a caption's state when training drops the caption."""
        return None

    def _batch_text(self, text_states: Sequence[TextState | None]) -> tuple[Tensor, Tensor | None]:
        """Return projected states [B, L, D] and a mask [B, L] (None if no state is padded)."""
        given = [state for state in text_states if state is not None]
        length = max((len(state) for state in given), default=1)
        width = given[0].shape[-1] if given else self._text_width
        states = torch.zeros(len(text_states), length, width)
        mask = torch.ones(len(text_states), length, dtype=torch.long)
        keep = torch.zeros(len(text_states), 1, 1)
        for row, state in enumerate(text_states):
            if state is not None:
                states[row, : len(state)] = state
                mask[row, len(state) :] = 0
                keep[row] = 1.0
        text = states.to(self.device)
        if hasattr(self._network, "enc_to_dec_proj"):
            text = self._network.enc_to_dec_proj(text)
        text = (text * keep.to(self.device)).to(self.dtype)
        is_padded = any(len(state) < length for state in given)
        return text, mask.to(self.device) if is_padded else None

    def decoder_weights(self) -> DecoderWeights:
        """Return weights for decoding that include the current adapter; the model does not change."""
        return extract_decoder_weights(
            self._network, start_id=self.info.codebook_size, strength=self.adapter_scale
        )
