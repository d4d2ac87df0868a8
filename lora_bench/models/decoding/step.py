"""One decoding step, from the tokens of a position to the logits of the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_bench.models.decoding.kernels import Kernel, Product
from lora_bench.models.decoding.kv_cache import Past, round_up
from lora_bench.models.decoding.prefix import Prefix
from lora_bench.models.decoding.prefix import normalize as _normalize
from lora_bench.models.records import (
    DecoderLayerWeights,
    DecoderWeights,
    LayerNormWeights,
    ModelInfo,
    TextState,
)


@dataclass(frozen=True)
class PreparedLayer:
    """A decoder layer with prepared matrices."""

    self_norm: LayerNormWeights
    self_qkv: Product
    self_out: Product
    cross_norm: LayerNormWeights
    cross_q: Product
    cross_out: Product
    ffn_norm: LayerNormWeights
    ffn_in: Product
    ffn_out: Product


class TextReader:
    """Base of all steps: shapes, embeddings, and the text's keys and values.

    Args:
        weights: of the decoder.
        info: of the model.
        n_clips: rows of every step; with guidance most layers process twice as many.
        guidance: scale; 1 is off.
    """

    def __init__(self, weights: DecoderWeights, info: ModelInfo, n_clips: int, guidance: float) -> None:
        self.n_clips = n_clips
        self.positions = weights.positions
        self.guidance = guidance
        self.codebooks = (info.n_codebooks, info.codebook_size)
        self.text: list[tuple[Tensor, Tensor]] = []
        self.prefix: Prefix | None = None
        if weights.melody is not None:
            self.prefix = Prefix(weights, weights.melody, is_guided=self.is_guided)
            nothing = weights.melody.new_empty(1, weights.n_heads, 0, weights.width // weights.n_heads)
            self.text = [(nothing, nothing)] * len(weights.layers)
        self._n_heads = weights.n_heads
        self._embeddings = weights.embeddings.flatten(0, 1)
        self._offsets = torch.arange(info.n_codebooks, device=self._embeddings.device) * (
            info.codebook_size + 1
        )
        self._weights = weights
        self._state: TextState | None = None

    @property
    def n_rows(self) -> int:
        """Rows of the cache: captioned clips, and with guidance their null halves."""
        return self.n_clips * (2 if self.is_guided else 1)

    @property
    def is_guided(self) -> bool:
        """Whether there is a null half."""
        return self.guidance > 1.0

    def adapt(self, n_clips: int) -> bool:
        """Return whether steps of `n_clips` are possible; this class is prepared for one number only."""
        return n_clips == self.n_clips

    def read_text(self, state: TextState) -> bool:
        """Compute keys and values [1, heads, L, D / heads] of a prompt's state [L, D].

        Returns:
            Whether they lie at new addresses.
        """
        if self.prefix is not None:
            return self.prefix.read(state)
        if self._state is not None and torch.equal(self._state, state):
            return False
        states = state.to(self._embeddings.device)
        if self._weights.text_projection is not None:
            states = self._weights.text_projection.folded()(states)
        states = states.to(self._embeddings.dtype)
        self.text = []
        for layer in self._weights.layers:
            both = layer.cross_kv.folded()(states).view(len(states), 2, self._n_heads, -1).permute(1, 2, 0, 3)
            self.text.append((both[0:1].contiguous(), both[1:2].contiguous()))
        self._state = state
        return True

    def embed(self, tokens: Tensor, position: Tensor) -> Tensor:
        """Return the first layer's input [rows, D] from tokens int64 [N, K] and the position's embedding [D]."""
        x = F.embedding(tokens + self._offsets, self._embeddings).sum(dim=1)
        x = (x + position).to(self._embeddings.dtype)  # [N, D]
        return x.repeat(2, 1) if self.is_guided else x  # captioned half, null half


class DecoderStep(TextReader):
    """A decoder that reads tokens of `n_clips` clips of one prompt, after `read_text`.

    Args:
        weights: layers are read one by one, so that memory never holds copies of all.
        info: see `TextReader`.
        n_clips: see `TextReader`.
        guidance: see `TextReader`.
        kernel: method of multiplication.
        text_unit: keep the text's keys and values in place from prompt to prompt, padded to a multiple of this length;
            only a longer text moves them.  None keeps each prompt's own.
    """

    def __init__(
        self,
        weights: DecoderWeights,
        info: ModelInfo,
        n_clips: int,
        guidance: float,
        kernel: Kernel,
        text_unit: int | None = None,
    ) -> None:
        super().__init__(weights, info, n_clips, guidance)
        self._text_unit = text_unit
        self._text_mask: Tensor | None = None
        self._norm = weights.norm
        self._activation = weights.activation
        self._layers = [self._prepare(layer, kernel) for layer in weights.layers]
        self._heads = kernel.prepare_heads(weights.heads)

    def _prepare(self, layer: DecoderLayerWeights, kernel: Kernel) -> PreparedLayer:
        return PreparedLayer(
            self_norm=layer.self_norm,
            self_qkv=kernel.prepare(layer.self_qkv),
            self_out=kernel.prepare(layer.self_out),
            cross_norm=layer.cross_norm,
            cross_q=kernel.prepare(layer.cross_q),
            cross_out=kernel.prepare(layer.cross_out),
            ffn_norm=layer.ffn_norm,
            ffn_in=kernel.prepare(layer.ffn_in),
            ffn_out=kernel.prepare(layer.ffn_out),
        )

    def read_text(self, state: TextState) -> bool:
        """See `TextReader.read_text`."""
        held = self.text
        is_new = super().read_text(state)
        if not is_new or self._text_unit is None or self.prefix is not None:
            return is_new
        return self._hold_text(held, self._text_unit)

    def _hold_text(self, held: list[tuple[Tensor, Tensor]], unit: int) -> bool:
        """Write the text into the memory of the last one, masked beyond its end; True if that was too short."""
        length = self.text[0][0].shape[2]
        is_moved = self._text_mask is None or self._text_mask.shape[-1] < length
        if self._text_mask is None or is_moved:
            missing = round_up(length, unit) - length
            held = [
                (F.pad(key, (0, 0, 0, missing)), F.pad(value, (0, 0, 0, missing))) for key, value in self.text
            ]
            self._text_mask = held[0][0].new_empty(1, 1, 1, length + missing)
        for places, parts in zip(held, self.text, strict=True):
            for place, part in zip(places, parts, strict=True):
                place[:, :, :length] = part
        self._text_mask.fill_(-torch.inf)
        self._text_mask[..., :length] = 0.0
        self.text = held
        return is_moved

    def __call__(self, tokens: Tensor, position: Tensor, past: Past) -> Tensor:
        """Read tokens and return logits float32 [N, K, V].

        Args:
            tokens: int64 [N, K].
            position: the position's embedding, float32 [D].
            past: the earlier positions; this one is added.
        """
        n_clips = self.n_clips
        x = self.embed(tokens, position)
        for index, layer in enumerate(self._layers):
            x = x + self._attend_to_past(layer, _normalize(x, layer.self_norm), index, past)
            if self.prefix is None:
                captioned = x[:n_clips]
                # the null half's cross-attention is zero: no bias, zero states
                captioned += self._attend_to_text(layer, _normalize(captioned, layer.cross_norm), index)
            x = x + layer.ffn_out(self._activation(layer.ffn_in(_normalize(x, layer.ffn_norm))))
        x = _normalize(x, self._norm)
        if self.is_guided:
            captioned, null = x.float().chunk(2)
            x = (null + self.guidance * (captioned - null)).to(x.dtype)
        return self._heads(x).view(n_clips, *self.codebooks).float()

    def _attend_to_past(self, layer: PreparedLayer, x: Tensor, index: int, past: Past) -> Tensor:
        query, key, value = layer.self_qkv(x).view(len(x), 3, self._n_heads, -1).unbind(1)
        return layer.self_out(past.attend(index, query, key, value))

    def _attend_to_text(self, layer: PreparedLayer, x: Tensor, index: int) -> Tensor:
        # all clips share the prompt: they are the queries of one attention [1, heads, N, D / heads]
        query = layer.cross_q(x).view(1, len(x), self._n_heads, -1).transpose(1, 2)
        out = F.scaled_dot_product_attention(query, *self.text[index], attn_mask=self._text_mask)
        return layer.cross_out(out.transpose(1, 2).reshape(len(x), -1))
