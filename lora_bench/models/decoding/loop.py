"""Run decoding steps until clips are complete: one by one, or as replayed CUDA graphs."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_bench.models.decoding.kv_cache import FixedPast, GrowingPast, KeyValueCache
from lora_bench.models.decoding.sampling import sample_codes
from lora_bench.models.decoding.step import DecoderStep, TextReader
from lora_bench.models.memory import is_out_of_memory
from lora_bench.models.records import TextState

if TYPE_CHECKING:
    from lora_bench.models.decoding.small_batch_step import StreamedStep

BUCKET = 64
"""Positions by which the attended part of the past grows if shapes are fixed; a multiple of 8, which attention kernels
with a mask require."""
N_WARM_UPS = 2


@dataclass(frozen=True)
class Sampling:
    """Parameters of drawing codes.

    Attributes:
        delays: int64 [K] on the model's device.
        n_frames: length of the clips.
        start_id: token of codebooks before their first and after their last frame.
        temperature: see `sampling.py`, as is `top_k`.
    """

    delays: Tensor
    n_frames: int
    start_id: int
    temperature: float
    top_k: int | None

    @property
    def n_positions(self) -> int:
        """Decoding steps of a clip."""
        return self.n_frames + int(self.delays.max())

    def draw_tokens(self, logits: Tensor, uniform: Tensor, position: int | Tensor) -> Tensor:
        """Draw tokens int64 [N, K] after `position`, from logits [N, K, V] and uniform numbers [N, K]."""
        frame = position - self.delays
        speaks = (frame >= 0) & (frame < self.n_frames)
        drawn = sample_codes(logits, uniform, temperature=self.temperature, top_k=self.top_k)
        return torch.where(speaks, drawn, self.start_id)


class Steps(ABC):
    """Decodes batches of one size, a position at a time.

    Attributes:
        delayed: int64 [N, K, positions], filled up to the current position.
        finite: bool [], False once a logit was not finite; reading it waits for the device.
    """

    def __init__(self, step: TextReader, sampling: Sampling) -> None:
        self.sampling = sampling
        shape, device = (step.n_clips, len(sampling.delays)), sampling.delays.device
        self.tokens = torch.full(shape, sampling.start_id, device=device)
        self.delayed = torch.full((*shape, sampling.n_positions), sampling.start_id, device=device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def reset(self) -> None:
        """Reset the state before a batch."""
        self.tokens.fill_(self.sampling.start_id)
        self.finite.fill_(True)

    @abstractmethod
    def begin(self, text: TextState, noise: Tensor) -> None:
        """Start a batch of a prompt's state [L, D] and noise float64 [positions, N, K]."""

    @abstractmethod
    def advance(self) -> None:
        """Take one step."""


class EagerSteps(Steps):
    """Steps whose shapes grow with the position."""

    def __init__(self, step: DecoderStep | StreamedStep, cache: KeyValueCache, sampling: Sampling) -> None:
        super().__init__(step, sampling)
        self._step = step
        self._past = GrowingPast(cache)
        self._noise = torch.empty(0)

    def begin(self, text: TextState, noise: Tensor) -> None:
        """See `Steps.begin`."""
        self.reset()
        self._step.read_text(text)
        self._noise = noise
        self._past.position = 0

    def advance(self) -> None:
        """See `Steps.advance`."""
        position = self._past.position
        logits = self._step(self.tokens, self._step.positions[position], self._past)
        self.finite &= logits.isfinite().all()
        self.tokens.copy_(self.sampling.draw_tokens(logits, self._noise[position], position))
        self.delayed[..., position] = self.tokens
        self._past.position = position + 1


class FixedSteps(Steps):
    """Steps whose shapes and addresses stay the same within `BUCKET` positions, so that they can be replayed.

    Args:
        step: the decoder.
        cache: for all positions, rounded up to whole buckets.
        sampling: parameters of drawing codes.
        is_captured: replay CUDA graphs; else run steps one by one (slower: for tests, and without graphs).
    """

    def __init__(
        self, step: DecoderStep, cache: KeyValueCache, sampling: Sampling, *, is_captured: bool
    ) -> None:
        super().__init__(step, sampling)
        self._step = step
        self._cache = cache
        self._is_captured = is_captured
        self._done = 0
        device = self.tokens.device
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        shape = (sampling.n_positions, *self.tokens.shape)
        self._noise = torch.full(shape, 0.5, dtype=torch.float64, device=device)
        self._replays: dict[int, Callable[[], None]] = {}
        self._pool = torch.cuda.graph_pool_handle() if is_captured else None

    def begin(self, text: TextState, noise: Tensor) -> None:
        """See `Steps.begin`."""
        self.reset()
        if self._step.read_text(text):
            self._replays.clear()  # they read the old text's memory
        self._done = 0
        self._position.zero_()
        self._noise.copy_(noise)

    def advance(self) -> None:
        """See `Steps.advance`."""
        n_attended = round_up(self._done + 1, BUCKET)
        if n_attended not in self._replays:
            past = FixedPast(self._cache, self._position, n_attended)
            self._replays[n_attended] = self._capture(past) if self._is_captured else lambda: self._run(past)
        self._replays[n_attended]()
        self._done += 1

    def _run(self, past: FixedPast) -> None:
        """Run one position without any value that the CPU needs."""
        past.begin_step()
        embedding = self._step.positions.index_select(0, self._position)[0]
        logits = self._step(self.tokens, embedding, past)
        self.finite.logical_and_(logits.isfinite().all())
        uniform = self._noise.index_select(0, self._position)[0]
        self.tokens.copy_(self.sampling.draw_tokens(logits, uniform, self._position))
        self.delayed.index_copy_(2, self._position, self.tokens[..., None])
        self._position.add_(1)

    def _capture(self, past: FixedPast) -> Callable[[], None]:
        """Capture a CUDA graph of one position; the state before the warm-up is restored."""
        state = (self.tokens, self.finite, self._position)
        before = [tensor.clone() for tensor in state]
        device = self.tokens.device
        stream = torch.cuda.Stream(device=device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(N_WARM_UPS):
                self._run(past)
                for tensor, value in zip(state, before, strict=True):
                    tensor.copy_(value)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                self._run(past)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"a step cannot be captured ({reason}); steps run one by one, slower", stacklevel=2)
            self._is_captured = False
            return lambda: self._run(past)
        return graph.replay


def round_up(number: int, unit: int) -> int:
    """Round up to a multiple of `unit`."""
    return -(-number // unit) * unit
