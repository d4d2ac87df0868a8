"""Our own decoding loop over a MusicGen decoder's weights.

What makes it fast: keys and values go into a cache that is allocated once; queries, keys and values come
from one matrix; the text's keys and values are computed once per prompt and shared by all clips; the null
half of guidance skips cross-attention, which is exactly zero there (no bias, zero states); guidance is
applied to hidden states, so that the bias-free heads, packed into one matrix, run once.

What makes it reproducible: a clip's noise depends on nothing but the clip (see `noise.py`), and batches
are padded to `MIN_ROWS`.  A matrix product of few rows takes another way through the CPU's BLAS and differs
in the last bit; from 16 rows on (measured with MKL on AVX-512: 13) each row's result is the same whatever
the others are and however many.  So on such a CPU, in float32, a clip is the same alone and in any batch
of 16 or more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_bench.errors import ModelError, OutOfMemoryError
from lora_bench.models.labels import undelay_codes
from lora_bench.models.memory import available_bytes, is_out_of_memory, release_cached, total_gib
from lora_bench.models.noise import draw_noise
from lora_bench.models.protocol import (
    DecoderLayerWeights,
    DecoderWeights,
    LayerNormWeights,
    MusicModel,
    TextState,
)
from lora_bench.models.sampling import sample_codes
from lora_bench.progress import Progress
from lora_bench.spec.schema import GenerationSpec

MIN_ROWS = 16
MAX_BATCH = {"cpu": 64, "cuda": 256}
MEMORY_FRAC = 0.5  # of what is free; the rest is for everything else
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
    """Codes of the clips `clip_ids` of a prompt, int64 [N, K, n_frames] on the CPU.

    Raises:
        ModelError: the clip is longer than the model's positions, or logits are not finite.
        OutOfMemoryError: not even one clip fits.
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
) -> Iterator[CodeBatch]:
    """Like `generate_codes`, batch by batch in order; out of memory halves the batch and goes on.

    Args:
        model: with or without an adapter.
        prompt: the text; part of every clip's noise.
        clip_ids: indices of clips; they need not be consecutive.
        n_frames: length of each clip.
        generation: sampling; `batch_size` None chooses by memory.
        progress: advanced by codec frames, told of a halved batch.
    """
    info = model.info
    if n_frames > info.max_frames:
        raise ModelError(
            f"generation.clip_s: {n_frames} frames are more than {info.name} has positions for "
            f"({info.max_frames}); make clips shorter"
        )
    (text,) = model.encode_text([prompt])
    decoder = PromptDecoder(model, prompt, text, n_frames, generation)
    left = list(clip_ids)
    asked = generation.batch_size
    size = decoder.choose_batch_size() if asked is None else asked
    if asked is None and left:
        size = math.ceil(len(left) / math.ceil(len(left) / size))  # equal batches leave less padding
        size = max(size, min(MIN_ROWS, decoder.choose_batch_size()))
    while left:
        batch = tuple(left[:size])
        try:
            codes = decoder.decode(batch, max(len(batch), min(size, MIN_ROWS)), progress)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size = _halve(size, error, model, progress)
            continue
        yield CodeBatch(batch, codes)
        left = left[size:]


def _halve(size: int, error: Exception, model: MusicModel, progress: Progress) -> int:
    release_cached(model.device)
    if size == 1:
        raise OutOfMemoryError(
            f"generating one clip did not fit into the memory of {model.device} "
            f"({total_gib(model.device):.1f} GiB); lower generation.clip_s or choose a smaller model"
        ) from error
    progress.log(f"out of memory while generating {size} clips at once; going on with {size // 2}")
    return size // 2


class PromptDecoder:
    """Weights and text of one prompt, ready to decode batches of its clips.

    Args:
        model: its weights are read, it is not changed.
        prompt: for the noise.
        text: state [L, D] of the prompt.
        n_frames: length of every clip.
        generation: sampling.
    """

    def __init__(
        self, model: MusicModel, prompt: str, text: TextState, n_frames: int, generation: GenerationSpec
    ) -> None:
        self._info = model.info
        self._device = model.device
        self._dtype = model.dtype
        self._prompt = prompt
        self._n_frames = n_frames
        self._generation = generation
        self._guided = generation.guidance > 1.0
        with torch.inference_mode():
            self._weights = model.decoder_weights()
            self._text = self._project_text(text)

    @property
    def n_positions(self) -> int:
        """Decoding steps of a clip."""
        return self._n_frames + max(self._info.delays)

    def _project_text(self, text: TextState) -> list[tuple[Tensor, Tensor]]:
        """Keys and values [1, heads, L, D / heads] of the prompt, for each layer."""
        weights = self._weights
        states = text.to(self._device)
        if weights.text_projection is not None:
            states = weights.text_projection(states)
        states = states.to(self._dtype)
        pairs: list[tuple[Tensor, Tensor]] = []
        for layer in weights.layers:
            both = layer.cross_kv(states).view(len(states), 2, weights.n_heads, -1).permute(1, 2, 0, 3)
            pairs.append((both[0:1].contiguous(), both[1:2].contiguous()))
        return pairs

    def choose_batch_size(self) -> int:
        """Clips that take half of the free memory, at most `MAX_BATCH`."""
        weights, info = self._weights, self._info
        halves = 2 if self._guided else 1
        item = torch.finfo(self._dtype).bits // 8
        cache = 2 * len(weights.layers) * self.n_positions * weights.width * item
        logits = info.n_codebooks * info.codebook_size * 24  # float32 and float64 copies while sampling
        activations = weights.width * 64 * item
        per_clip = halves * (cache + activations) + logits
        fits = int(available_bytes(self._device) * MEMORY_FRAC / per_clip)
        return max(1, min(fits, MAX_BATCH.get(self._device.type, MIN_ROWS)))

    @torch.inference_mode()
    def decode(self, clip_ids: Sequence[int], n_rows: int, progress: Progress) -> Tensor:
        """Codes int64 [N, K, F] of `clip_ids`, computed in a batch of `n_rows` (at least N)."""
        info, generation = self._info, self._generation
        rows = [*clip_ids, *[clip_ids[-1]] * (n_rows - len(clip_ids))]
        noise = torch.from_numpy(draw_noise(generation.seed, self._prompt, rows, self._n_frames, info.delays))
        noise = noise.to(self._device)
        delays = torch.tensor(info.delays, device=self._device)
        cache = KeyValueCache.allocate(self._weights, n_rows * (2 if self._guided else 1), self.n_positions)
        tokens = torch.full((n_rows, info.n_codebooks), info.codebook_size, device=self._device)
        delayed = tokens.new_empty(n_rows, info.n_codebooks, self.n_positions)
        finite = torch.ones((), dtype=torch.bool, device=self._device)
        begin = time.monotonic()
        for position in range(self.n_positions):
            logits = self._step(tokens, position, cache)
            finite &= logits.isfinite().all()
            drawn = sample_codes(
                logits, noise[position], temperature=generation.temperature, top_k=generation.top_k
            )
            frame = position - delays
            speaks = (frame >= 0) & (frame < self._n_frames)
            tokens = torch.where(speaks, drawn, info.codebook_size)
            delayed[..., position] = tokens
            done = position + 1
            if done % REPORT_STEPS == 0 or done == self.n_positions:
                self._report(clip_ids, done, finite, time.monotonic() - begin, progress)
        return undelay_codes(delayed, info.delays)[: len(clip_ids)].cpu()

    def _report(
        self, clip_ids: Sequence[int], done: int, finite: Tensor, wall_s: float, progress: Progress
    ) -> None:
        if not bool(finite):
            raise ModelError(
                f"{self._info.name}: logits are not finite near step {done} of {self.n_positions}; use "
                "model.dtype float32, and if that does not help the adapter or the weights are damaged"
            )
        before = (done - 1) // REPORT_STEPS * REPORT_STEPS
        n_frames = min(done, self._n_frames) - min(before, self._n_frames)
        speed = done / self._info.frame_rate_hz * len(clip_ids) / max(wall_s, 1e-9)
        progress.advance(n_frames * len(clip_ids), note=f"{speed:.1f} s of audio per s")

    def _step(self, tokens: Tensor, position: int, cache: KeyValueCache) -> Tensor:
        """Logits [N, K, V] after reading `tokens` [N, K] at `position`."""
        weights, info = self._weights, self._info
        n_clips = len(tokens)
        offsets = torch.arange(info.n_codebooks, device=tokens.device) * (info.codebook_size + 1)
        x = F.embedding(tokens + offsets, weights.embeddings.flatten(0, 1)).sum(dim=1)
        x = (x + weights.positions[position]).to(self._dtype)  # [N, D]
        if self._guided:
            x = x.repeat(2, 1)  # captioned half, null half
        for index, layer in enumerate(weights.layers):
            x = x + self._attend_to_past(layer, _normalize(x, layer.self_norm), index, position, cache)
            captioned = x[:n_clips]
            # the null half's cross-attention is zero
            captioned += self._attend_to_text(layer, _normalize(captioned, layer.cross_norm), index)
            x = x + layer.ffn_out(weights.activation(layer.ffn_in(_normalize(x, layer.ffn_norm))))
        x = _normalize(x, weights.norm)
        if self._guided:
            captioned, null = x.float().chunk(2)
            x = (null + self._generation.guidance * (captioned - null)).to(self._dtype)
        return weights.heads(x).view(n_clips, info.n_codebooks, info.codebook_size).float()

    def _attend_to_past(
        self, layer: DecoderLayerWeights, x: Tensor, index: int, position: int, cache: KeyValueCache
    ) -> Tensor:
        n_rows = len(x)
        query, key, value = layer.self_qkv(x).view(n_rows, 3, self._weights.n_heads, -1).unbind(1)
        keys, values = cache.keys[index], cache.values[index]
        keys[:, :, position] = key
        values[:, :, position] = value
        upto = position + 1
        out = F.scaled_dot_product_attention(query[:, :, None], keys[:, :, :upto], values[:, :, :upto])
        return layer.self_out(out.reshape(n_rows, -1))

    def _attend_to_text(self, layer: DecoderLayerWeights, x: Tensor, index: int) -> Tensor:
        keys, values = self._text[index]
        # all clips share the prompt: they are the queries of one attention [1, heads, N, D / heads]
        query = layer.cross_q(x).view(1, len(x), self._weights.n_heads, -1).transpose(1, 2)
        out = F.scaled_dot_product_attention(query, keys, values)
        return layer.cross_out(out.transpose(1, 2).reshape(len(x), -1))


@dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of the past, [layers, rows, heads, positions, D / heads] each."""

    keys: Tensor
    values: Tensor

    @classmethod
    def allocate(cls, weights: DecoderWeights, n_rows: int, n_positions: int) -> KeyValueCache:
        """Room for all positions at once."""
        like = weights.embeddings
        shape = (len(weights.layers), n_rows, weights.n_heads, n_positions, weights.width // weights.n_heads)
        return cls(like.new_empty(shape), like.new_empty(shape))


def _normalize(x: Tensor, norm: LayerNormWeights) -> Tensor:
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)
