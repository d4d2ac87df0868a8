"""Decode clips with the weights of a MusicGen decoder.

Speed: keys and values go into a cache that is allocated once; queries, keys and values come from one matrix; the text's
keys and values are computed once per prompt and shared by all clips; the null half of guidance skips cross-attention,
which is exactly zero there (no bias, zero states); guidance is applied to hidden states, so that the bias-free heads,
packed into one matrix, run once; on a CPU steps are compiled (`small_batch_step.py`); on a GPU a step is captured once
and replayed (`loop.py`).

Reproducibility: a clip's noise depends only on the clip (see `noise.py`), and on a CPU its steps do not depend on the
batch: they are compiled, or run in blocks of one size (see `kernels.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_bench.errors import ModelError, ResourceError
from lora_bench.models import device as devices
from lora_bench.models.base import MusicModel
from lora_bench.models.decoding.graphs import GraphRecorder
from lora_bench.models.decoding.kernels import choose_kernel, has_exact_int8
from lora_bench.models.decoding.kv_cache import KeyValueCache
from lora_bench.models.decoding.loop import BUCKET, UNKNOWN, EagerSteps, FixedSteps, Sampling, Steps, round_up
from lora_bench.models.decoding.melodies import ReadMelodies
from lora_bench.models.decoding.noise import draw_noise
from lora_bench.models.decoding.prefixed_steps import PrefixedSteps
from lora_bench.models.decoding.step import DecoderStep
from lora_bench.models.delay_pattern import undelay_codes
from lora_bench.models.memory import Halving, available_bytes
from lora_bench.models.records import DecoderWeights, ModelInfo
from lora_bench.progress import Progress
from lora_bench.spec.clip_windows import WINDOW_S, Window, cut_windows
from lora_bench.spec.schema import GenerationSpec

if TYPE_CHECKING:
    from lora_bench.models.decoding.small_batch_step import StreamedStep

MAX_BATCH = {"cpu": 16, "cuda": 256}
MEMORY_FRAC = 0.5  # share of the free memory; the rest stays free
MAX_PADDING = 2
"""Rows computed per clip at most, to use the graphs of a larger batch."""
TEXT_UNIT = 64
"""Tokens by which the text's memory grows on a GPU; a multiple of 8, as `BUCKET` is."""
REPORT_STEPS = 25


@dataclass(frozen=True)
class CodeBatch:
    """Codes int64 [N, K, F] of some clips, on the CPU."""

    clip_ids: tuple[int, ...]
    codes: Tensor


def generate_codes(
    model: MusicModel,
    prompt: str,
    clip_ids: Sequence[int],
    n_frames: int,
    generation: GenerationSpec,
    progress: Progress,
) -> Tensor:
    """Generate the codes of the clips `clip_ids` of a prompt, int64 [N, K, n_frames] on the CPU.

    Raises:
        ModelError: the clip is longer than the model's positions, or logits are not finite.
        OutOfMemoryError: even one clip does not fit.
    """
    batches = list(generate_batches(model, prompt, clip_ids, n_frames, generation, progress))
    return torch.cat([batch.codes for batch in batches])


def generate_batches(
    model: MusicModel,
    prompt: str,
    clip_ids: Sequence[int],
    n_frames: int,
    generation: GenerationSpec,
    progress: Progress,
    decoder: Decoder | None = None,
) -> Iterator[CodeBatch]:
    """Generate like `generate_codes`, batch by batch in order; if memory runs out, halve the batch and continue.

    Args:
        model: with or without an adapter.
        prompt: the text, which also determines every clip's noise.
        clip_ids: indices of clips, not necessarily consecutive.
        n_frames: length of each clip.
        generation: sampling; `batch_size` None chooses by memory.
        progress: advances by codec frames, and logs a halved batch.
        decoder: of this model in its current state, and of these settings; keeps prepared weights between prompts.
    """
    info = model.info
    windows = plan_windows(info, n_frames, generation)
    longest = windows[0].n_frames
    if longest > info.max_frames:
        raise ModelError(
            f"generation.clip_s: {longest} frames are more than {info.name} has positions for "
            f"({info.max_frames}); make clips shorter"
        )
    decoder = Decoder(model, generation) if decoder is None else decoder
    decoder.read_prompt(prompt)
    left = list(clip_ids)
    asked = generation.batch_size
    size = decoder.choose_batch_size(longest) if asked is None else asked
    if asked is None and left:
        size = math.ceil(len(left) / math.ceil(len(left) / size))  # equal batches, no small last one

    def tell(size: int, half: int) -> None:
        progress.log(f"out of memory while generating {size} clips at once; continuing with {half}")

    block = decoder.block
    halving = Halving(
        model.device,
        f"generating {'one clip' if block is None else f'a block of {block} clips'}",
        "lower generation.clip_s or choose a smaller model",
        tell=tell,
        free=decoder.release,
    )
    known_problem = decoder.problem
    while left:
        rest = left

        def decode(size: int, rest: Sequence[int] = rest) -> CodeBatch:
            batch = _choose_batch(rest, size, block)
            return CodeBatch(batch, decoder.decode(batch, n_frames, progress))

        # a smaller batch would be computed in a block of the same size
        done = halving.run(size, decode) if block is None else halving.run(1, lambda _: decode(size))
        if decoder.problem is not None and known_problem is None:
            known_problem = decoder.problem
            progress.log(known_problem)
        yield done
        left = left[len(done.clip_ids) :]


def plan_windows(info: ModelInfo, n_frames: int, generation: GenerationSpec) -> list[Window]:
    """Cut clips of `n_frames` into windows; one, unless they are longer than `WINDOW_S`."""
    longest, overlap = (
        info.count_frames(round(seconds * info.audio_format.sample_rate_hz))
        for seconds in (WINDOW_S, generation.overlap_s)
    )
    return cut_windows(n_frames, longest, overlap)


def _choose_batch(clips: Sequence[int], size: int, block: int | None) -> tuple[int, ...]:
    """Choose the first clips to decode together: at most `size`, and in a block no two at the same place."""
    chosen = clips[:size]
    if block is not None:
        places = [clip % block for clip in chosen]
        n_distinct = next((i for i, place in enumerate(places) if place in places[:i]), len(places))
        chosen = chosen[:n_distinct]
    return tuple(chosen)


class Decoder:
    """A model's weights, ready to decode batches of clips of one prompt after another.

    It becomes invalid when the model's adapter or weights change.

    Args:
        model: its weights are read; it does not change.
        generation: sampling, and whether weights are rounded.

    Attributes:
        problem: why steps were slower than they could be; None if they were not.

    Raises:
        ResourceError: this machine cannot decode with the requested rounding.
        DatasetError: there are no melodies where the settings name them.
    """

    def __init__(self, model: MusicModel, generation: GenerationSpec) -> None:
        self._model = model
        self._info = model.info
        self._device = model.device
        self._generation = generation
        self._kernel = choose_kernel(
            model.device, model.dtype, generation.quantization, generation.batch_size
        )
        self.problem: str | None = None
        self._prompt = ""
        self._text = torch.empty(0)
        self._step: DecoderStep | StreamedStep | None = None
        self._made: tuple[int, int, Steps] | None = None
        self._melodies = None if generation.melodies is None else ReadMelodies(model, generation.melodies)

    @property
    def block(self) -> int | None:
        """Number of clips in every step, where a clip's index gives its place; None if batches are free."""
        return None if self._is_streamed else self._kernel.block

    @property
    def method(self) -> str:
        """Decoding method in words, for the clips' provenance."""
        if self._is_streamed:
            return "compiled steps"
        library = f"torch on {self._device.type}"
        return library if self.block is None else f"{library}, blocks of {self.block} clips"

    @cached_property
    def _weights(self) -> DecoderWeights:
        with torch.inference_mode():
            return self._model.decoder_weights()

    @cached_property
    def _is_streamed(self) -> bool:
        if not self._kernel.is_streamed:
            return False
        from lora_bench.models.decoding.small_batch_step import can_stream  # a second of numba's

        if can_stream(self._weights):
            return True
        if self._kernel.name == "int8" and not has_exact_int8():
            raise ResourceError(
                f"generation.quantization: int8 is compiled for other shapes than those of {self._info.name}, and "
                "this processor's library cuts sums of 8-bit products off; leave it out"
            )
        return False

    def _prepare_step(self, n_clips: int) -> DecoderStep | StreamedStep:
        weights, info, guidance = self._weights, self._info, self._generation.guidance
        if not self._is_streamed:
            text_unit = TEXT_UNIT if devices.is_gpu(self._device) else None
            return DecoderStep(weights, info, n_clips, guidance, self._kernel, text_unit)
        from lora_bench.models.decoding.small_batch_step import StreamedStep

        return StreamedStep(weights, info, n_clips, guidance, is_int8=self._kernel.name == "int8")

    def read_prompt(self, prompt: str) -> None:
        """Set the prompt of the following batches."""
        if prompt != self._prompt:
            (text,) = self._model.encode_text([prompt])
            self._prompt, self._text = prompt, text

    def _count_positions(self, n_frames: int) -> int:
        """Return the number of positions that the cache is allocated for."""
        n_positions = n_frames + self._info.max_delay
        return round_up(n_positions, BUCKET) if devices.is_gpu(self._device) else n_positions

    def choose_batch_size(self, n_frames: int) -> int:
        """Return the number of clips that take half of the free memory, at most `MAX_BATCH`."""
        weights, info, dtype = self._weights, self._info, self._model.dtype
        n_positions = self._count_positions(n_frames)
        if weights.melody is not None:
            n_positions += len(weights.melody) + len(self._text)
        halves = 2 if self._generation.guidance > 1.0 else 1
        item = torch.finfo(dtype).bits // 8
        past_item = torch.finfo(self._kernel.past_dtype(dtype)).bits // 8
        cache = 2 * len(weights.layers) * n_positions * weights.width * past_item
        logits = info.n_codebooks * info.codebook_size * 24  # float32 and float64 copies while sampling
        activations = weights.width * 64 * item
        per_clip = halves * (cache + activations) + logits
        copied = self._kernel.copied_frac * weights.n_bytes if self._step is None else 0.0
        free = available_bytes(self._device) * MEMORY_FRAC - copied
        fits = int(free / per_clip)
        return max(1, min(fits, MAX_BATCH.get(self._device.type, MAX_BATCH["cpu"])))

    @torch.inference_mode()
    def decode(self, clip_ids: Sequence[int], n_frames: int, progress: Progress) -> Tensor:
        """Decode clips of the current prompt to codes int64 [N, K, F].

        Args:
            clip_ids: the clips; with a `block`, no two at the same place.
            n_frames: length of every clip.
            progress: advances by codec frames.
        """
        n_rows = self._count_rows(len(clip_ids), n_frames)
        places = [clip % n_rows if self.block else place for place, clip in enumerate(clip_ids)]
        rows = [clip_ids[0]] * n_rows  # unused places may hold any clip
        for place, clip in zip(places, clip_ids, strict=True):
            rows[place] = clip
        windows = plan_windows(self._info, n_frames, self._generation)
        steps = self._make_steps(n_rows, windows[0].n_frames)
        codes = torch.full((n_rows, self._info.n_codebooks, n_frames), UNKNOWN, device=self._device)
        for window in windows:
            clock = _Clock(self._info, len(clip_ids), window, progress)
            part = codes[..., window.begin : window.begin + window.n_frames]  # of which the first are given
            if self._melodies is not None:
                steps.melodies = self._melodies.find(rows, window.begin if len(windows) > 1 else None)
            part.copy_(self._decode_window(steps, rows, window, part, clock))
        return codes[places].cpu()

    def _decode_window(
        self, steps: Steps, rows: Sequence[int], window: Window, codes: Tensor, clock: _Clock
    ) -> Tensor:
        """Decode a window of the clips `rows`: replace what is unknown of codes int64 [N, K, frames]."""
        seed, delays = self._generation.seed, self._info.delays
        noise = draw_noise(seed, self._prompt, rows, window.n_frames, delays, window.begin)
        steps.begin(self._text, torch.from_numpy(noise).to(self._device), codes)
        for done in range(1, clock.n_positions + 1):
            steps.advance()
            if done % REPORT_STEPS == 0 or done == clock.n_positions:
                clock.report(done, steps.finite)
        self.problem = self.problem or steps.problem
        return undelay_codes(steps.delayed[..., : clock.n_positions], delays)

    def _count_rows(self, n_clips: int, n_frames: int) -> int:
        """Return the number of clips to compute: on a GPU a smaller batch fills the graphs of the last one."""
        if self.block is not None:
            return self.block
        if self._made is not None and devices.is_gpu(self._device):
            made, made_frames, _ = self._made
            longest = plan_windows(self._info, n_frames, self._generation)[0].n_frames
            if made_frames == longest and n_clips <= made <= n_clips * MAX_PADDING:
                return made
        return n_clips

    def release(self) -> None:
        """Release weights and caches of the last batch; the next one prepares its own."""
        self._step = self._made = None

    def _make_steps(self, n_clips: int, n_frames: int) -> Steps:
        """Prepare weights and caches for `n_clips` at once, or return those of the last batch of this size."""
        sizes = n_clips, n_frames
        if self._made is not None and self._made[:2] == sizes:
            return self._made[2]
        self._made = None  # frees memory before the next allocation
        generation, info = self._generation, self._info
        if self._step is None or not self._step.adapt(n_clips):
            self._step = None
            self._step = self._prepare_step(n_clips)
        step = self._step
        sampling = Sampling(
            delays=info.delays,
            n_frames=n_frames,
            start_id=info.codebook_size,
            temperature=generation.temperature,
            top_k=generation.top_k,
            device=self._device,
        )
        n_positions = self._count_positions(n_frames)
        dtype = self._kernel.past_dtype(self._model.dtype)
        if step.prefix is not None:
            allocate = partial(KeyValueCache.allocate, self._weights, step.n_rows, dtype=dtype)
            steps: Steps = PrefixedSteps(step, step.prefix, allocate, sampling)
        elif devices.is_gpu(self._device) and isinstance(step, DecoderStep):
            cache = KeyValueCache.allocate(self._weights, step.n_rows, n_positions, dtype)
            steps = FixedSteps(step, cache, sampling, GraphRecorder(self._device))
        else:
            cache = KeyValueCache.allocate(self._weights, step.n_rows, n_positions, dtype)
            steps = EagerSteps(step, cache, sampling)
        self._made = (*sizes, steps)
        return steps


class _Clock:
    """Reports the progress of a batch, and checks that its logits are finite."""

    def __init__(self, info: ModelInfo, n_clips: int, window: Window, progress: Progress) -> None:
        self._info = info
        self._n_clips = n_clips
        self._window = window
        self._progress = progress
        self._began_s = time.monotonic()
        self._told = 0
        self.n_positions = window.n_frames + info.max_delay

    def report(self, done: int, finite: Tensor) -> None:
        if not bool(finite):
            raise ModelError(
                f"{self._info.name}: logits are not finite near step {done} of {self.n_positions}; use "
                "model.dtype float32, and if that does not help the adapter or the weights are damaged"
            )
        n_frames = max(0, min(done, self._window.n_frames) - self._window.n_given)
        wall_s = max(time.monotonic() - self._began_s, 1e-9)
        speed = done / self._info.frame_rate_hz * self._n_clips / wall_s
        self._progress.advance((n_frames - self._told) * self._n_clips, note=f"{speed:.1f} s of audio per s")
        self._told = n_frames
