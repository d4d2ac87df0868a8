"""Keys and values of the past: one allocation, and two methods of attending to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_bench.models.records import DecoderWeights


@dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of the past, [layers, rows, heads, positions, D / heads] each."""

    keys: Tensor
    values: Tensor

    @classmethod
    def allocate(
        cls, weights: DecoderWeights, n_rows: int, n_positions: int, dtype: torch.dtype
    ) -> KeyValueCache:
        """Allocate all positions at once as zeros, because masked positions must not be NaN."""
        like = weights.embeddings
        shape = (len(weights.layers), n_rows, weights.n_heads, n_positions, weights.width // weights.n_heads)
        return cls(like.new_zeros(shape, dtype=dtype), like.new_zeros(shape, dtype=dtype))


class GrowingPast:
    """Attends to the written positions: the least work, but shapes change at every step."""

    def __init__(self, cache: KeyValueCache) -> None:
        self.cache = cache
        self.position = 0

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Write this position's key and value, and attend to all positions up to it.

        Args:
            layer: index of the layer.
            query: [rows, heads, D / heads].
            key: of the same shape.
            value: of the same shape.

        Returns:
            [rows, D].
        """
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[:, :, self.position] = key
        values[:, :, self.position] = value
        upto = self.position + 1
        seen = query[:, :, None].to(keys.dtype)
        out = F.scaled_dot_product_attention(seen, keys[:, :, :upto], values[:, :, :upto])
        return out.reshape(len(query), -1).to(query.dtype)


class FixedPast:
    """Attends to the first `n_attended` positions with a mask: shapes stay the same.

    Args:
        cache: keys and values.
        position: int64 [1], on the cache's device; read at the start of a step.

    Attributes:
        n_attended: greater than every position of its use.
    """

    def __init__(self, cache: KeyValueCache, position: Tensor) -> None:
        self._cache = cache
        self._position = position
        self.n_attended = cache.keys.shape[3]
        # added to attention's scores, in their type: torch would convert a mask of booleans in every layer
        self._mask = cache.keys.new_full((self.n_attended,), -torch.inf)

    def reset(self) -> None:
        """Forget the positions of earlier clips."""
        self._mask.fill_(-torch.inf)

    def begin_step(self) -> None:
        """Read the position."""
        self._mask.index_fill_(0, self._position, 0.0)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `GrowingPast.attend`."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys.index_copy_(2, self._position, key[:, :, None].to(keys.dtype))
        values.index_copy_(2, self._position, value[:, :, None].to(keys.dtype))
        out = F.scaled_dot_product_attention(
            query[:, :, None].to(keys.dtype),
            keys[:, :, : self.n_attended],
            values[:, :, : self.n_attended],
            attn_mask=self._mask[: self.n_attended].view(1, 1, 1, -1),
        )
        return out.reshape(len(query), -1).to(query.dtype)


Past = GrowingPast | FixedPast
"""The past that a layer's self-attention reads."""


def round_up(number: int, unit: int) -> int:
    """Round up to a multiple of `unit`."""
    return -(-number // unit) * unit
