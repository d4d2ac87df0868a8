"""Decoding of a model that reads melody and text before the codes, and has no cross-attention (MusicGen Melody).

Without melodies, these first positions are the same for all clips of a prompt.  They are computed once per prompt, in
one pass, and their keys and values are copied to every row of the cache.  With melodies, that is so for the null half.
The other half is computed once per batch and melody, each melody by itself, so that clips do not depend on their batch.
The steps after them are those of other models.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        text = self._project(state)
        halves = (text, torch.zeros_like(text)) if self._is_guided else (text,)
        self._layers = self._compute(torch.stack([torch.cat([self._melody, half]) for half in halves]))
        self._state = state
        return True

    def _compute(self, states: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's keys and values [N, heads, P, D / heads] of states [N, P, D]."""
        x = (states + self.embed_positions(states.shape[1])).to(states.dtype)
        n_halves, n_positions, width = x.shape
        layers: list[tuple[Tensor, Tensor]] = []
        for layer in self._weights.layers:
            qkv = layer.self_qkv(normalize(x, layer.self_norm))
            qkv = qkv.view(n_halves, n_positions, 3, self._weights.n_heads, -1).permute(2, 0, 3, 1, 4)
            query, key, value = qkv.unbind(0)
            layers.append((key, value))
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + layer.self_out(mixed.transpose(1, 2).reshape(n_halves, n_positions, width))
            inner = self._weights.activation(layer.ffn_in(normalize(x, layer.ffn_norm)))
            x = x + layer.ffn_out(inner)
        return layers

    def _project(self, state: TextState) -> Tensor:
        """Return a prompt's states [L, D] of the decoder."""
        text = state.to(self._melody.device)
        if self._weights.text_projection is not None:
            text = self._weights.text_projection(text)
        return text.to(self._melody.dtype)

    def write(self, cache: KeyValueCache, n_clips: int, melodies: Sequence[Tensor] | None = None) -> None:
        """Write the first positions of every row: `n_clips` captioned rows, then their null halves.

        Args:
            cache: of all rows.
            n_clips: number of clips.
            melodies: states [M, D] of each clip's melody, equal ones as one tensor; None is the null melody.
        """
        captioned, null = slice(None, n_clips), slice(n_clips, None)
        if self._is_guided:
            _copy(self._layers, 1, cache, null)
        if melodies is None or self._state is None:
            _copy(self._layers, 0, cache, captioned)
            return
        text = self._project(self._state)
        places: dict[int, list[int]] = {}
        for clip, melody in enumerate(melodies):
            places.setdefault(id(melody), []).append(clip)
        for clips in places.values():
            states = torch.cat([melodies[clips[0]], text])
            _copy(self._compute(states[None]), 0, cache, clips)

    def count_positions(self, state: TextState) -> int:
        """Return the number of positions before the codes."""
        return len(self._melody) + len(state)

    def embed_positions(self, n_positions: int) -> Tensor:
        """Return the sinusoids of any number of positions, float32 [n_positions, D]."""
        return Sinusoids.get_embedding(n_positions, self._weights.width).float().to(self._melody.device)


def _copy(
    layers: Sequence[tuple[Tensor, Tensor]], half: int, cache: KeyValueCache, rows: slice | list[int]
) -> None:
    """Copy keys and values of one half to the first positions of some rows."""
    for index, (keys, values) in enumerate(layers):
        cache.keys[index, rows, :, : keys.shape[2]] = keys[half].to(cache.keys.dtype)
        cache.values[index, rows, :, : keys.shape[2]] = values[half].to(cache.values.dtype)


def normalize(x: Tensor, norm: LayerNormWeights) -> Tensor:
    """Apply a layer norm to x [..., D]."""
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)
