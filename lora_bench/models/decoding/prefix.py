"""Decoding of a model that reads melody and text before the codes, and has no cross-attention (MusicGen Melody).

These first positions are the same for all clips of a prompt.  They are computed once per prompt, in one pass, and their
keys and values are copied to every row of the cache.  The steps after them are those of other models.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.musicgen_melody.modeling_musicgen_melody import (
    MusicgenMelodySinusoidalPositionalEmbedding as Sinusoids,
)

from lora_bench.models.decoding.kv_cache import KeyValueCache
from lora_bench.models.records import DecoderWeights, LayerNormWeights, TextState


class Prefix:
    """Keys and values of melody and text, and with guidance those of the null half.

    Args:
        weights: of the decoder; layers are read one by one at every new text.
        melody: states before the text [M, D].
        is_guided: whether there is a null half.
    """

    def __init__(self, weights: DecoderWeights, melody: Tensor, *, is_guided: bool) -> None:
        self._weights = weights
        self._melody = melody
        self._is_guided = is_guided
        self._state: TextState | None = None
        self._layers: list[tuple[Tensor, Tensor]] = []  # [halves, heads, P, D / heads] each

    def read(self, state: TextState) -> bool:
        """Read a prompt's state [L, D]; return False if it was read before."""
        if self._state is not None and torch.equal(self._state, state):
            return False
        x = self._embed(state)
        n_halves, n_positions, width = x.shape
        self._layers = []
        for layer in self._weights.layers:
            qkv = layer.self_qkv(normalize(x, layer.self_norm))
            qkv = qkv.view(n_halves, n_positions, 3, self._weights.n_heads, -1).permute(2, 0, 3, 1, 4)
            query, key, value = qkv.unbind(0)
            self._layers.append((key, value))
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + layer.self_out(mixed.transpose(1, 2).reshape(n_halves, n_positions, width))
            inner = self._weights.activation(layer.ffn_in(normalize(x, layer.ffn_norm)))
            x = x + layer.ffn_out(inner)
        self._state = state
        return True

    def _embed(self, state: TextState) -> Tensor:
        """Return the first layer's input [halves, P, D]."""
        text = state.to(self._melody.device)
        if self._weights.text_projection is not None:
            text = self._weights.text_projection(text)
        text = text.to(self._melody.dtype)
        halves = (text, torch.zeros_like(text)) if self._is_guided else (text,)
        x = torch.stack([torch.cat([self._melody, half]) for half in halves])
        return (x + self.embed_positions(x.shape[1])).to(x.dtype)

    def write(self, cache: KeyValueCache, n_clips: int) -> None:
        """Write the first positions of every row: `n_clips` captioned rows, then their null halves."""
        for index, (keys, values) in enumerate(self._layers):
            for half, rows in enumerate((slice(None, n_clips), slice(n_clips, None))[: len(keys)]):
                cache.keys[index, rows, :, : keys.shape[2]] = keys[half].to(cache.keys.dtype)
                cache.values[index, rows, :, : keys.shape[2]] = values[half].to(cache.values.dtype)

    def count_positions(self, state: TextState) -> int:
        """Return the number of positions before the codes."""
        return len(self._melody) + len(state)

    def embed_positions(self, n_positions: int) -> Tensor:
        """Return the sinusoids of any number of positions, float32 [n_positions, D]."""
        return Sinusoids.get_embedding(n_positions, self._weights.width).float().to(self._melody.device)


def normalize(x: Tensor, norm: LayerNormWeights) -> Tensor:
    """Apply a layer norm to x [..., D]."""
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)
