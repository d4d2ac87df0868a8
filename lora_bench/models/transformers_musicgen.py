"""MusicGen on transformers' classes, behind the `MusicModel` protocol.

Decisions:

- Text encoder, codec and text projection stay float32; only the decoder takes a lower precision.
- The decoder's own dropout (0.1 in published configs) is off, in training too: the frozen base was chosen
  as it is sampled, and `lora.dropout` is then the only dropout, so that the spec says all there is.
- The decoder is called directly rather than through `MusicgenForConditionalGeneration.forward`: the null
  condition becomes zero states behind the projection with an open attention mask, which gives exactly what a
  zero mask gives (keys and values have no bias) and leaves no row of the attention fully masked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lora_bench.errors import ModelError
from lora_bench.models import lora as adapters
from lora_bench.models.extraction import extract_decoder_weights
from lora_bench.models.labels import decoder_inputs, delay_codes
from lora_bench.models.protocol import DecoderWeights, LoraInjection, ModelInfo, TextState
from lora_bench.models.targets import resolve_targets
from lora_bench.spec.schema import LoraSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from peft import PeftModel
    from transformers import MusicgenForConditionalGeneration, PreTrainedTokenizerBase

DROPOUT_ATTRIBUTES = ("dropout", "activation_dropout", "layerdrop")


class TransformersMusicGen:
    """A transformers MusicGen, frozen, with at most one adapter in it.

    Args:
        network: moved to `device`; its decoder becomes `dtype`.
        tokenizer: of the text encoder.
        info: what is fixed about it.
        device: where everything runs.
        dtype: arithmetic of the decoder.
        hub_id: for the adapter's config; None if the model is not on the hub.
    """

    def __init__(
        self,
        network: MusicgenForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        info: ModelInfo,
        *,
        device: torch.device,
        dtype: torch.dtype,
        hub_id: str | None = None,
    ) -> None:
        self.network = network
        self._tokenizer = tokenizer
        self._info = info
        self._device = device
        self._dtype = dtype
        self._hub_id = hub_id
        self._peft: PeftModel | None = None
        self._lora: LoraSpec | None = None
        self._text_width = int(cast("Any", network.config).text_encoder.hidden_size)
        network.requires_grad_(False)
        cast("nn.Module", network).to(device)
        cast("nn.Module", network.decoder).to(dtype)
        network.eval()
        for module in network.decoder.modules():
            for attribute in DROPOUT_ATTRIBUTES:
                if isinstance(getattr(module, attribute, None), float | int):
                    setattr(module, attribute, 0.0)

    @property
    def info(self) -> ModelInfo:
        """What is fixed about the model."""
        return self._info

    @property
    def device(self) -> torch.device:
        """Where everything runs."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic of the decoder."""
        return self._dtype

    # audio and text

    @torch.no_grad()
    def encode_audio(self, audio: NDArray[np.float32]) -> Tensor:
        """See `MusicModel.encode_audio`."""
        mono = self._split_channels(audio)
        codes = cast("Any", self.network.audio_encoder).encode(mono).audio_codes
        if codes.shape[0] != 1:
            raise ModelError(
                f"{self._info.name}: the codec cuts audio into chunks, expected one that does not"
            )
        channels = self._info.audio_format.channels
        n_clips, n_frames = len(audio), codes.shape[-1]
        # [B * C, K / C, F] -> interleaved codebooks [B, K, F]
        codes = codes[0].reshape(n_clips, channels, -1, n_frames).transpose(1, 2)
        return codes.reshape(n_clips, self._info.n_codebooks, n_frames).long().cpu()

    @torch.no_grad()
    def decode_audio(self, codes: Tensor) -> NDArray[np.float32]:
        """See `MusicModel.decode_audio`."""
        n_clips, _, n_frames = codes.shape
        channels = self._info.audio_format.channels
        mono = codes.to(self._device).reshape(n_clips, -1, channels, n_frames).transpose(1, 2)
        mono = mono.reshape(1, n_clips * channels, -1, n_frames)
        codec = cast("Any", self.network.audio_encoder)
        audio = codec.decode(mono, [None] * (n_clips * channels)).audio_values
        audio = audio[..., : n_frames * self._info.hop_samples]
        return audio.reshape(n_clips, channels, -1).float().cpu().numpy()

    @torch.no_grad()
    def audio_latents(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `MusicModel.audio_latents`."""
        mono = self._split_channels(audio)
        latents = cast("Any", self.network.audio_encoder).encoder(mono)  # [B * C, D, F]
        latents = latents.reshape(len(audio), -1, *latents.shape[1:]).mean(dim=1)
        return latents.transpose(1, 2).float().cpu().numpy()

    def _split_channels(self, audio: NDArray[np.float32]) -> Tensor:
        """Audio [B, C, S] as mono clips [B * C, 1, S] on the device."""
        channels = self._info.audio_format.channels
        if audio.ndim != 3 or audio.shape[1] != channels:
            raise ModelError(
                f"{self._info.name}: audio of shape {audio.shape}, expected (clips, {channels}, samples); "
                "bring it to the model's number of channels first"
            )
        return torch.from_numpy(audio).to(self._device).reshape(-1, 1, audio.shape[-1])

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> list[TextState]:
        """See `MusicModel.encode_text`."""
        states: list[TextState] = []
        for text in texts:
            ids = cast("Any", self._tokenizer)(text, return_tensors="pt").input_ids.to(self._device)
            encoded = cast("Any", self.network.text_encoder)(input_ids=ids)
            states.append(encoded.last_hidden_state[0].float().cpu())
        return states

    # adapters

    def linear_module_names(self) -> tuple[str, ...]:
        """See `MusicModel.linear_module_names`; text encoder and codec are left out."""
        suffix = ".base_layer"  # of adapted layers
        found = [name for name, module in self.network.named_modules() if isinstance(module, nn.Linear)]
        names = [name.removesuffix(suffix) for name in found if ".lora_" not in name]
        return tuple(name for name in names if name.startswith("decoder.") or name == "enc_to_dec_proj")

    def inject_lora(self, lora: LoraSpec, seed: int) -> LoraInjection:
        """See `MusicModel.inject_lora`."""
        self.remove_adapter()
        names = resolve_targets(lora.targets, self.linear_module_names())
        self._peft = adapters.add_adapter(self.network, names, lora, seed)
        self._lora = lora
        self.set_training(False)
        return LoraInjection(*adapters.count_adapter(self._peft))

    def load_adapter(self, folder: Path) -> None:
        """See `MusicModel.load_adapter`."""
        adapters.check_adapter(folder, model_name=self._info.name, weights_hash=self._info.weights_hash)
        self.remove_adapter()
        self._peft = adapters.load_adapter(self.network, folder)
        self.set_training(False)

    def save_adapter(self, folder: Path, notes: Mapping[str, Any] | None = None) -> None:
        """See `MusicModel.save_adapter`."""
        if self._peft is None:
            raise ModelError(f"{folder}: there is no adapter to save; inject or load one first")
        facts = {"model": self._info.name, "weights_hash": self._info.weights_hash, "lora": self._lora}
        provenance = {**facts, **(notes or {})}
        adapters.save_adapter(self._peft, folder, provenance, self._hub_id)

    def remove_adapter(self) -> None:
        """See `MusicModel.remove_adapter`."""
        if self._peft is not None:
            adapters.remove_adapter(self._peft)
            self._peft = None
            self._lora = None

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """See `MusicModel.adapter_parameters`."""
        return {} if self._peft is None else adapters.adapter_parameters(self._peft)

    # training and decoding

    def set_training(self, training: bool, *, gradient_checkpointing: bool = False) -> None:
        """See `MusicModel.set_training`."""
        decoder = cast("Any", self.network.decoder)
        # not `..._enable`, which has a new name in transformers 5 and warns under the old one
        decoder._set_gradient_checkpointing(gradient_checkpointing, partial(checkpoint, use_reentrant=False))
        self.network.eval()
        # all dropout but the adapter's is zero; the decoder's mode also switches the checkpointing
        decoder.train(training)
        if hasattr(self.network, "enc_to_dec_proj"):
            self.network.enc_to_dec_proj.train(training)

    def training_loss(
        self, codes: Tensor, valid_frames: Tensor, text_states: Sequence[TextState | None]
    ) -> Tensor:
        """See `MusicModel.training_loss`."""
        codes, valid_frames = codes.to(self._device), valid_frames.to(self._device)
        codes = codes[..., : int(valid_frames.max())]
        n_frames = codes.shape[-1]
        start_id, delays = self._info.codebook_size, self._info.delays
        inputs = decoder_inputs(delay_codes(codes, valid_frames, delays, start_id), start_id)
        text, text_mask = self._batch_text(text_states)
        decoder = cast("Any", self.network.decoder)
        hidden = decoder.model(
            input_ids=inputs.flatten(0, 1),
            encoder_hidden_states=text,
            encoder_attention_mask=text_mask,
            use_cache=False,
        ).last_hidden_state  # [B, F + max(delays), D]
        in_clip = torch.arange(n_frames, device=self._device) < valid_frames[:, None]  # [B, F]
        losses: list[Tensor] = []
        for codebook, delay in enumerate(delays):
            # heads see the frames that count, and no others: padding costs neither memory nor gradient
            logits = decoder.lm_heads[codebook](hidden[:, delay : delay + n_frames][in_clip])
            losses.append(F.cross_entropy(logits.float(), codes[:, codebook][in_clip]))
        return torch.stack(losses).mean()

    def _batch_text(self, text_states: Sequence[TextState | None]) -> tuple[Tensor, Tensor | None]:
        """Projected states [B, L, D] and a mask [B, L] (None if no state was padded)."""
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
        text = states.to(self._device)
        if hasattr(self.network, "enc_to_dec_proj"):
            text = self.network.enc_to_dec_proj(text)
        text = (text * keep.to(self._device)).to(self._dtype)
        return text, None if bool(mask.all()) else mask.to(self._device)

    def decoder_weights(self) -> DecoderWeights:
        """See `MusicModel.decoder_weights`."""
        return extract_decoder_weights(self.network, start_id=self._info.codebook_size)
