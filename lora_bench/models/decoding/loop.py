"""Run decoding steps until clips are complete: one by one, or as replayed CUDA graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_bench.models.decoding.graphs import GraphRecorder
from lora_bench.models.decoding.kv_cache import FixedPast, GrowingPast, KeyValueCache, round_up
from lora_bench.models.decoding.sampling import sample_codes
from lora_bench.models.decoding.step import DecoderStep, TextReader
from lora_bench.models.delay_pattern import delay_codes
from lora_bench.models.memory import is_out_of_memory
from lora_bench.models.records import TextState

if TYPE_CHECKING:
    from lora_bench.models.decoding.small_batch_step import StreamedStep

BUCKET = 64
"""Positions by which the attended part of the past grows if shapes are fixed; a multiple of 8, which attention kernels
with a mask require."""


UNKNOWN = -1
"""In place of a code that is yet to be drawn."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sampling:
    """Parameters of drawing codes.

    Attributes:
        delays: K delays, in frames.
        n_frames: length of the longest clips.
        start_id: token of codebooks before their first and after their last frame.
        temperature: see `sampling.py`, as is `top_k`.
        device: of the model.
    """

    delays: tuple[int, ...]
    n_frames: int
    start_id: int
    temperature: float
    top_k: int | None
    device: torch.device = CPU

    @property
    def n_positions(self) -> int:
        """Decoding steps of the longest clips."""
        return self.n_frames + max(self.delays)

    def draw_tokens(self, logits: Tensor, uniform: Tensor, known: Tensor) -> Tensor:
        """Draw the tokens of a position that are `UNKNOWN`.

        Args:
            logits: [N, K, V].
            uniform: numbers [N, K].
            known: int64 [N, K], tokens of the position: given ones, the start token or `UNKNOWN`.

        Returns:
            int64 [N, K].
        """
        drawn = sample_codes(logits, uniform, temperature=self.temperature, top_k=self.top_k)
        return torch.where(known == UNKNOWN, drawn, known)


class Steps(ABC):
    """Decodes batches of one size, a position at a time.

    Attributes:
        delayed: int64 [N, K, positions], `UNKNOWN` where codes are yet to be drawn.
        finite: bool [], False once a logit was not finite; reading it waits for the device.
        problem: why steps are slower than they could be; None if they are not.
        melodies: states [M, D] of each clip's melody, which `begin` reads; None is the null melody, or none.
    """

    problem: str | None = None
    melodies: Sequence[Tensor] | None = None

    def __init__(self, step: TextReader, sampling: Sampling) -> None:
        self.sampling = sampling
        shape, device = (step.n_clips, len(sampling.delays)), sampling.device
        self.tokens = torch.full(shape, sampling.start_id, device=device)
        self.delayed = torch.full((*shape, sampling.n_positions), sampling.start_id, device=device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def reset(self, codes: Tensor) -> None:
        """Reset the state before a batch; see `begin`."""
        self.tokens.fill_(self.sampling.start_id)
        self.finite.fill_(True)
        n_frames = codes.new_full((len(codes),), codes.shape[-1])
        delayed = delay_codes(codes, n_frames, self.sampling.delays, self.sampling.start_id)
        self.delayed[..., : delayed.shape[-1]] = delayed

    @abstractmethod
    def begin(self, text: TextState, noise: Tensor, codes: Tensor) -> None:
        """Start a batch.

        Args:
            text: a prompt's state [L, D].
            noise: float64 [positions, N, K].
            codes: int64 [N, K, F] of clips that may be shorter than the longest: given ones, and `UNKNOWN`.
        """

    @abstractmethod
    def advance(self) -> None:
        """Take one step."""

    def take(self, logits: Tensor, uniform: Tensor, position: int) -> None:
        """Draw the tokens of a position from logits [N, K, V] and uniform numbers [N, K], and keep them."""
        self.finite &= logits.isfinite().all()
        self.tokens.copy_(self.sampling.draw_tokens(logits, uniform, self.delayed[..., position]))
        self.delayed[..., position] = self.tokens


class EagerSteps(Steps):
    """Steps whose shapes grow with the position."""

    def __init__(self, step: DecoderStep | StreamedStep, cache: KeyValueCache, sampling: Sampling) -> None:
        super().__init__(step, sampling)
        self._step = step
        self._past = GrowingPast(cache)
        self._noise = torch.empty(0)

    def begin(self, text: TextState, noise: Tensor, codes: Tensor) -> None:
        """See `Steps.begin`."""
        self.reset(codes)
        self._step.read_text(text)
        self._noise = noise
        self._past.position = 0

    def advance(self) -> None:
        """See `Steps.advance`."""
        position = self._past.position
        logits = self._step(self.tokens, self._step.positions[position], self._past)
        self.take(logits, self._noise[position], position)
        self._past.position = position + 1


class FixedSteps(Steps):
    """Steps whose shapes and addresses stay the same within `BUCKET` positions, so that they can be replayed.

    Graphs stay valid from prompt to prompt: everything that they read is kept here or in `step`, and is written in
    place.

    Args:
        step: the decoder, whose text stays in place (see `DecoderStep`).
        cache: for all positions, rounded up to whole buckets.
        sampling: parameters of drawing codes.
        recorder: captures CUDA graphs; None runs steps one by one (slower: for tests).
    """

    def __init__(
        self, step: DecoderStep, cache: KeyValueCache, sampling: Sampling, recorder: GraphRecorder | None
    ) -> None:
        super().__init__(step, sampling)
        self._step = step
        self._recorder = recorder
        self._done = 0
        device = self.tokens.device
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self._past = FixedPast(cache, self._position)
        shape = (sampling.n_positions, *self.tokens.shape)
        self._noise = torch.full(shape, 0.5, dtype=torch.float64, device=device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def begin(self, text: TextState, noise: Tensor, codes: Tensor) -> None:
        """See `Steps.begin`."""
        self.reset(codes)
        if self._step.read_text(text):
            self._graphs.clear()  # they read the old text's memory
            if self._recorder is not None:
                self._recorder.renew_pool()
        self._done = 0
        self._position.zero_()
        self._past.reset()
        self._noise[: len(noise)].copy_(noise)

    def advance(self) -> None:
        """See `Steps.advance`."""
        n_attended = round_up(self._done + 1, BUCKET)
        self._past.n_attended = n_attended
        if n_attended not in self._graphs and self._recorder is not None:
            self._capture(self._recorder, n_attended)
        graph = self._graphs.get(n_attended)
        if graph is None:
            self._run()
        else:
            graph.replay()
        self._done += 1

    def _run(self) -> None:
        """Run one position without any value that the CPU needs."""
        self._past.begin_step()
        embedding = self._step.positions.index_select(0, self._position)[0]
        logits = self._step(self.tokens, embedding, self._past)
        self.finite.logical_and_(logits.isfinite().all())
        uniform = self._noise.index_select(0, self._position)[0]
        known = self.delayed.index_select(2, self._position)[..., 0]
        self.tokens.copy_(self.sampling.draw_tokens(logits, uniform, known))
        self.delayed.index_copy_(2, self._position, self.tokens[..., None])
        self._position.add_(1)

    def _capture(self, recorder: GraphRecorder, n_attended: int) -> None:
        """Capture the steps of a bucket; if torch cannot, note the problem and do not try again."""
        try:
            state = self.tokens, self.finite, self._position, self.delayed
            self._graphs[n_attended] = recorder.capture(self._run, state)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            self.problem = (
                f"a step could not be captured as a CUDA graph ({reason}); steps ran one by one, slower"
            )
            self._recorder = None
