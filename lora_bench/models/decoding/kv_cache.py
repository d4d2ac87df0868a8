"""Keys and values of the past while decoding: one allocation, and two ways of attending to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_bench.models.protocol import DecoderWeights


@dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of the past, [layers, rows, heads, positions, D / heads] each."""

    keys: Tensor
    values: Tensor

    @classmethod
    def allocate(
        cls, weights: DecoderWeights, n_rows: int, n_positions: int, dtype: torch.dtype
    ) -> KeyValueCache:
        """Room for all positions at once, zeros: what is not yet written must not be NaN under a mask."""
        like = weights.embeddings
        shape = (len(weights.layers), n_rows, weights.n_heads, n_positions, weights.width // weights.n_heads)
        return cls(like.new_zeros(shape, dtype=dtype), like.new_zeros(shape, dtype=dtype))


class Past(Protocol):
    """What a layer's self-attention sees."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Write this position's key and value, and attend up to it.

        Args:
            layer: index of the layer.
            query: [rows, heads, D / heads].
            key: of the same shape.
            value: of the same shape.

        Returns:
            [rows, D].
        """
        ...


class GrowingPast:
    """Attends to the positions that are there: the least work, but other shapes at every step."""

    def __init__(self, cache: KeyValueCache) -> None:
        self.cache = cache
        self.position = 0

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Past.attend`."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[:, :, self.position] = key
        values[:, :, self.position] = value
        upto = self.position + 1
        seen = query[:, :, None].to(keys.dtype)
        out = F.scaled_dot_product_attention(seen, keys[:, :, :upto], values[:, :, :upto])
        return out.reshape(len(query), -1).to(query.dtype)


class FixedPast:
    """Attends to the first `n_attended` positions behind a mask: the same shapes at every step.

    Args:
        cache: keys and values.
        position: int64 [1], on the cache's device; read when a step begins.
        n_attended: above every position that it is used at.
    """

    def __init__(self, cache: KeyValueCache, position: Tensor, n_attended: int) -> None:
        self._cache = cache
        self._position = position
        self._n_attended = n_attended
        self._places = torch.arange(n_attended, device=position.device)
        self._mask: Tensor | None = None

    def begin_step(self) -> None:
        """Read the position."""
        self._mask = (self._places <= self._position)[None, None, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Past.attend`."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys.index_copy_(2, self._position, key[:, :, None].to(keys.dtype))
        values.index_copy_(2, self._position, value[:, :, None].to(keys.dtype))
        out = F.scaled_dot_product_attention(
            query[:, :, None].to(keys.dtype),
            keys[:, :, : self._n_attended],
            values[:, :, : self._n_attended],
            attn_mask=self._mask,
        )
        return out.reshape(len(query), -1).to(query.dtype)
