"""Equal loudness of the two sides of a pair, and the damage of attention checks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.audio.loudness import measure_loudness

if TYPE_CHECKING:
    from numpy.typing import NDArray

TARGET_LUFS = -23.0  # EBU R 128
MIN_LUFS = -40.0  # a clip with a single loud click does not make its pair inaudible
PEAK = 10 ** (-1 / 20)


def choose_gains(sounds: list[NDArray[np.float32]], rate_hz: int) -> list[float]:
    """Return factors that make sounds equally loud without clipping; silence keeps its level."""
    levels = [measure_loudness(sound, rate_hz) for sound in sounds]
    peaks = [float(np.max(np.abs(sound), initial=0.0)) for sound in sounds]
    loud = [
        (level, peak) for level, peak in zip(levels, peaks, strict=True) if math.isfinite(level) and peak > 0
    ]
    reach = [level + 20 * math.log10(PEAK / peak) for level, peak in loud]
    target = max(MIN_LUFS, min(TARGET_LUFS, *reach)) if reach else TARGET_LUFS
    return [
        min(10 ** ((target - level) / 20), PEAK / peak) if math.isfinite(level) and peak > 0 else 1.0
        for level, peak in zip(levels, peaks, strict=True)
    ]


def damage_sound(audio: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Return a copy that nobody prefers: a square wave in white noise, off every other quarter of a second."""
    chance = np.random.default_rng(0)
    level = float(np.sqrt(np.mean(np.square(audio)))) or 1.0
    noise = chance.standard_normal(audio.shape) * level
    on = (np.arange(len(audio)) * 4 // rate_hz) % 2 == 0
    return ((np.sign(audio) * level + noise) * on[:, None]).astype(np.float32)
