"""MusicGen on audiocraft's classes.

Decisions, in addition to those that all libraries share (see `base.py`):

- The language model's layers are called one by one: positions are added in float32 first, padding of the text is
  masked in cross-attention, and gradient checkpointing recomputes with the same mask.
- Left and right of a stereo model pass through the codec of one channel, as in audiocraft's own wrapper.
- audiocraft's condition dropouts stay off; the training stage drops captions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from audiocraft.models.encodec import EncodecModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import T5EncoderModel

from lora_bench.models.audiocraft_backend.attention import SplitAttention
from lora_bench.models.audiocraft_backend.networks import build_codec, build_lm, find_conditioner
from lora_bench.models.audiocraft_backend.view import MusicgenView
from lora_bench.models.base import MusicModel
from lora_bench.models.bridges.parts import MusicGenParts
from lora_bench.models.memory import release_cached
from lora_bench.models.records import ModelInfo, TextState

ReadEncoders = Callable[[], tuple[T5EncoderModel, EncodecModel]]


class AudiocraftMusicGen(MusicModel):
    """A frozen audiocraft MusicGen with at most one adapter.

    Args:
        parts: the model; audiocraft's networks are built around its tensors.
        info: fixed facts about it.
        device: of the whole network.
        dtype: arithmetic of the decoder.
        hub_id: for the adapter's config; None if the model is not on the hub.
        read_encoders: reads text encoder and codec again; None keeps them (for a model in memory, or an export of
            audiocraft, which is read as a whole).

    Raises:
        ModelError: the weights do not fit the config.
    """

    def __init__(
        self,
        parts: MusicGenParts,
        info: ModelInfo,
        *,
        device: torch.device,
        dtype: torch.dtype,
        hub_id: str | None = None,
        read_encoders: ReadEncoders | None = None,
    ) -> None:
        self._read_encoders = read_encoders
        self.lm = build_lm(parts, info.name, is_split=True).to(device)
        self._conditioner = find_conditioner(self.lm)
        self._codec: EncodecModel | None = None
        self._place_encoders(cast("Any", self._conditioner).t5, build_codec(parts, info.name), device)
        cast("Any", self._conditioner).device = device  # for audiocraft's own generation
        self.lm.requires_grad_(False)
        view: Any = MusicgenView(self.lm, parts.config, has_projection=parts.has_projection)
        view.decoder.to(dtype)
        text_width = int(cast("Any", parts.config).text_encoder.hidden_size)
        super().__init__(view, info, device=device, dtype=dtype, text_width=text_width, hub_id=hub_id)
        table = view.decoder.model.decoder.embed_positions
        positions = table.get_embedding(table.num_positions, table.embedding_dim)
        self._positions: Tensor = positions.to(device, dtype)
        self._checkpointing = False

    def _place_encoders(self, text_encoder: Any, codec: EncodecModel, device: torch.device) -> None:
        # bypasses `nn.Module`, like the conditioner's own constructor
        self._conditioner.__dict__["t5"] = text_encoder.eval().requires_grad_(False).to(device)
        self._codec = codec.eval().requires_grad_(False).to(device)

    def _restore_encoders(self) -> None:
        """Read text encoder and codec if they were released.

        Raises:
            ModelError: the model's files are gone, changed or damaged.
        """
        if self._codec is None and self._read_encoders is not None:
            self._place_encoders(*self._read_encoders(), self.device)

    @property
    def codec(self) -> EncodecModel:
        """The codec, of one channel."""
        self._restore_encoders()
        return cast("EncodecModel", self._codec)

    def release_encoders(self) -> None:
        """See `MusicModel.release_encoders`; those of a model in memory, or of an export of audiocraft, stay."""
        if self._read_encoders is None:
            return
        self._conditioner.__dict__["t5"] = self._codec = None
        release_cached(self.device)

    def _encode_mono(self, audio: Tensor) -> Tensor:
        return self.codec.encode(audio)[0]

    def _decode_mono(self, codes: Tensor) -> Tensor:
        return self.codec.decode(codes)

    def _find_latents(self, audio: Tensor) -> Tensor:
        return self.codec.encoder(audio)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> list[TextState]:
        """See `MusicModel.encode_text`."""
        self._restore_encoders()
        conditioner = cast("Any", self._conditioner)
        states: list[TextState] = []
        for text in texts:
            ids = conditioner.t5_tokenizer(text, return_tensors="pt").input_ids.to(self.device)
            states.append(conditioner.t5(input_ids=ids).last_hidden_state[0].float().cpu())
        return states

    def _find_layers(self) -> Sequence[nn.Module]:
        return cast("Sequence[nn.Module]", self.lm.transformer.layers)

    def _switch_checkpointing(self, on: bool) -> None:
        self._checkpointing = on

    def _run_decoder(self, inputs: Tensor, text: Tensor, text_mask: Tensor | None) -> Tensor:
        lm = self.lm
        embedded = [embedding(inputs[:, book]) for book, embedding in enumerate(lm.emb)]
        x = torch.stack(embedded).sum(dim=0) + self._positions[: inputs.shape[-1]]
        mask = None if text_mask is None else text_mask.bool()[:, None, None]
        recompute = self._checkpointing and self.network.decoder.training
        for layer in lm.transformer.layers:
            if recompute:
                x = cast("Tensor", checkpoint(_run_layer, layer, x, text, mask, use_reentrant=False))
            else:
                x = _run_layer(layer, x, text, mask)
        return cast("nn.Module", lm.out_norm)(x)


def _run_layer(layer: nn.Module, x: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
    attention = cast("SplitAttention", layer.cross_attention)
    attention.text_mask = mask
    try:
        return layer(x, cross_attention_src=text)
    finally:
        attention.text_mask = None
