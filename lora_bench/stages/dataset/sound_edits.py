"""Changes to the sound of a recording that `dataset.prepare` asks for: offset, silence at the ends, loudness."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import Preparation
from lora_bench.audio.loudness import measure_loudness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_bench.spec.prepare import PrepareSpec

BLOCK_S = 0.01
"""Silence is cut in steps of this length."""
MAX_PEAK_DBFS = -1.0
CLIP_SAMPLES = 4
"""Samples in a row at the highest or lowest level that make a clip; a loud wave touches it for one or two."""
CLIP_LEVEL = 0.5
"""A limiter or a recorder clips near full scale; quieter square waves are sound."""


def edit_sound(
    audio: NDArray[np.float32], rate_hz: int, spec: PrepareSpec, *, clipped_samples: int
) -> tuple[NDArray[np.float32], Preparation]:
    """Return changed samples [C, S], and what was changed.

    Args:
        audio: samples at the model's rate and channels.
        rate_hz: their rate.
        spec: what to change.
        clipped_samples: counted in the file, before its rate and channels were changed.
    """
    offset = lead_s = tail_s = gain_db = loudness = None
    is_limited = False
    if spec.remove_dc and audio.size:
        means = audio.mean(axis=1, dtype=np.float64)
        offset = float(max(means, key=abs))
        audio = (audio - means[:, None]).astype(np.float32)
    if spec.trim_silence_db is not None:
        start, end = find_sound(audio, rate_hz, spec.trim_silence_db)
        lead_s, tail_s = start / rate_hz, (audio.shape[1] - end) / rate_hz
        audio = np.ascontiguousarray(audio[:, start:end])
    if spec.loudness_lufs is not None:
        before = measure_loudness(audio[:2].T, rate_hz)
        if math.isfinite(before):
            gain_db = choose_gain(before, float(np.abs(audio).max()), spec.loudness_lufs)
            audio = audio * np.float32(10 ** (gain_db / 20))
            loudness = before + gain_db
            is_limited = gain_db < spec.loudness_lufs - before
    return audio, Preparation(clipped_samples, offset, lead_s, tail_s, gain_db, loudness, is_limited)


def count_clipped(audio: NDArray[np.float32]) -> int:
    """Count the samples in runs of four or more at a channel's highest or lowest level; `audio` is [C, S]."""
    n_clipped = 0
    for channel in audio:
        for signed in (channel, -channel):
            level = float(signed.max(initial=0.0))
            if level < CLIP_LEVEL:
                continue
            flat = signed >= level * 0.9995
            edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]]).astype(np.int8)))
            runs = edges[1::2] - edges[::2]
            n_clipped += int(runs[runs >= CLIP_SAMPLES].sum())
    return n_clipped


def choose_gain(loudness_lufs: float, peak: float, wanted_lufs: float) -> float:
    """Return the gain in dB that brings a sound to a loudness, or its peak to -1 dBFS if that is less."""
    return min(wanted_lufs - loudness_lufs, MAX_PEAK_DBFS - 20 * math.log10(peak))


def find_sound(audio: NDArray[np.float32], rate_hz: int, level_db: float) -> tuple[int, int]:
    """Return the first sample of the sound, and the one after its last; everything if all of it is zero.

    Args:
        audio: samples [C, S].
        rate_hz: their rate.
        level_db: what is below this level relative to the peak, in all channels, is silence.
    """
    n_samples = audio.shape[1]
    if not n_samples:
        return 0, 0
    levels = np.abs(audio).max(axis=0)
    n_block = max(1, round(BLOCK_S * rate_hz))
    peaks = np.maximum.reduceat(levels, np.arange(0, n_samples, n_block))
    heard = np.flatnonzero(peaks >= peaks.max() * 10 ** (level_db / 20))
    return int(heard[0]) * n_block, min(n_samples, (int(heard[-1]) + 1) * n_block)
