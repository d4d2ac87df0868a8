"""MusicGen on transformers' classes.

Decisions:

- Text encoder, codec and text projection stay float32; only the decoder may have a lower precision.
- The decoder's own dropout (0.1 in published configs) is off, also in training, so that `lora.dropout` in the spec is
  the only dropout.
- The decoder is called directly, because `MusicgenForConditionalGeneration.forward` encodes the null condition with a
  mask of zeros.
- Text encoder and codec are read at their first use, and may be released: training needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lora_bench.errors import ModelError
from lora_bench.models.base import MusicModel
from lora_bench.models.memory import release_cached
from lora_bench.models.network_parts import ENCODERS
from lora_bench.models.records import ModelInfo, TextState

if TYPE_CHECKING:
    from transformers import MusicgenForConditionalGeneration, PreTrainedTokenizerBase


class TransformersMusicGen(MusicModel):
    """A frozen transformers MusicGen with at most one adapter.

    Args:
        network: moved to `device`; its decoder becomes `dtype`; `text_encoder` and `audio_encoder` may be None.
        tokenizer: of the text encoder.
        info: fixed facts about it.
        device: of the whole network.
        dtype: arithmetic of the decoder.
        hub_id: for the adapter's config; None if the model is not on the hub.
        load_encoder: reads `text_encoder` or `audio_encoder` by name; None for a network in memory, whose encoders
            are never released.
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
        load_encoder: Callable[[str], nn.Module] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._load_encoder = load_encoder
        # the decoder first: the whole model may fit in half precision but not in float32
        cast("nn.Module", network.decoder).to(device=device, dtype=dtype)
        cast("nn.Module", network).to(device)
        text_width = int(cast("Any", network.config).text_encoder.hidden_size)
        super().__init__(network, info, device=device, dtype=dtype, text_width=text_width, hub_id=hub_id)

    @property
    def network(self) -> MusicgenForConditionalGeneration:
        """The whole network; missing encoders are read first."""
        for part in ENCODERS:
            self._find_encoder(part)
        return self._network

    def _find_encoder(self, part: str) -> Any:
        """Return one of `ENCODERS`; read it if it is missing.

        Raises:
            ModelError: the model's files are gone, changed or damaged.
        """
        if getattr(self._network, part) is None and self._load_encoder is not None:
            loaded = self._load_encoder(part).to(self.device).requires_grad_(False)
            setattr(self._network, part, loaded.eval())
        return getattr(self._network, part)

    def release_encoders(self) -> None:
        """See `MusicModel.release_encoders`; those of a network made in memory stay."""
        if self._load_encoder is None:
            return
        for part in ENCODERS:
            setattr(self._network, part, None)
        release_cached(self.device)

    def _encode_mono(self, audio: Tensor) -> Tensor:
        codes = self._find_encoder("audio_encoder").encode(audio).audio_codes
        if codes.shape[0] != 1:
            raise ModelError(
                f"{self.info.name}: the codec cuts audio into chunks, expected one that does not"
            )
        return codes[0]

    def _decode_mono(self, codes: Tensor) -> Tensor:
        codec = self._find_encoder("audio_encoder")
        return codec.decode(codes[None], [None] * len(codes)).audio_values

    def _find_latents(self, audio: Tensor) -> Tensor:
        return self._find_encoder("audio_encoder").encoder(audio)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> list[TextState]:
        """See `MusicModel.encode_text`."""
        states: list[TextState] = []
        for text in texts:
            ids = cast("Any", self._tokenizer)(text, return_tensors="pt").input_ids.to(self.device)
            encoded = self._find_encoder("text_encoder")(input_ids=ids)
            states.append(encoded.last_hidden_state[0].float().cpu())
        return states

    def _find_layers(self) -> Sequence[nn.Module]:
        return self._network.decoder.model.decoder.layers

    def _switch_checkpointing(self, on: bool) -> None:
        decoder = self._network.decoder
        # `..._enable` was renamed in transformers 5 and warns under its old name
        decoder._set_gradient_checkpointing(on, partial(checkpoint, use_reentrant=False))

    def _run_decoder(self, inputs: Tensor, text: Tensor, text_mask: Tensor | None) -> Tensor:
        return self._network.decoder.model(
            input_ids=inputs.flatten(0, 1),
            encoder_hidden_states=text,
            encoder_attention_mask=text_mask,
            use_cache=False,
        ).last_hidden_state
