"""Decoding steps of a model that reads melody and text before the codes (see `prefix.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from lora_bench.models.decoding.kv_cache import GrowingPast, KeyValueCache
from lora_bench.models.decoding.loop import Sampling, Steps
from lora_bench.models.decoding.prefix import Prefix

if TYPE_CHECKING:
    from torch import Tensor

    from lora_bench.models.decoding.small_batch_step import StreamedStep
    from lora_bench.models.decoding.step import DecoderStep
    from lora_bench.models.records import TextState


class PrefixedSteps(Steps):
    """Steps after a prefix; shapes grow with the position.

    Args:
        step: the decoder.
        prefix: of the same decoder.
        allocate: makes a cache of so many positions.
        sampling: parameters of drawing codes.
    """

    def __init__(
        self,
        step: DecoderStep | StreamedStep,
        prefix: Prefix,
        allocate: Callable[[int], KeyValueCache],
        sampling: Sampling,
    ) -> None:
        super().__init__(step, sampling)
        self._step = step
        self._prefix = prefix
        self._allocate = allocate
        self._past: GrowingPast | None = None
        self._embedded = self._noise = torch.empty(0)
        self._n_before = 0

    def begin(self, text: TextState, noise: Tensor, codes: Tensor) -> None:
        """See `Steps.begin`."""
        self.reset(codes)
        self._step.read_text(text)
        self._n_before = self._prefix.count_positions(text)
        n_positions = self._n_before + self.sampling.n_positions
        if self._past is None or self._past.cache.keys.shape[3] < n_positions:
            self._past = None  # frees memory before the next allocation
            self._past = GrowingPast(self._allocate(n_positions))
            self._embedded = self._prefix.embed_positions(n_positions)
        self._prefix.write(self._past.cache, self._step.n_clips, self.melodies)
        self._past.position = self._n_before
        self._noise = noise

    def advance(self) -> None:
        """See `Steps.advance`."""
        if self._past is None:
            raise RuntimeError("begin a batch first")
        place = self._past.position
        done = place - self._n_before
        logits = self._step(self.tokens, self._embedded[place], self._past)
        self.take(logits, self._noise[done], done)
        self._past.position = place + 1
