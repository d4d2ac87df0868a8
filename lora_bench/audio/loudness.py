"""Loudness by ITU-R BS.1770-4, and loudness range by EBU Tech 3342.

torchaudio's reads -3.28 LUFS where the recommendation says -3.01 (a full-scale sine of 997 Hz in one channel), and
loading it takes seconds; the recommendation's filters and gates are these few lines.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import lfilter

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_S, STEP_S = 0.4, 0.1
SHORT_TERM_S = 3.0
RANGE_S = SHORT_TERM_S + STEP_S
"""The shortest sound that has a loudness range: one value of the loudness over 3 s has none."""
CHUNK = 1 << 20
_SILENCE_LUFS, _RELATIVE_LU, _RANGE_RELATIVE_LU = -70.0, -10.0, -20.0
_RANGE_SHARES = (0.10, 0.95)


@cache
def _design_filters(rate_hz: int) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return both filters of the K-weighting: at 48 kHz, those of the recommendation.

    The parameters are those of B. De Man, "Evaluation of implementations of the EBU R128 loudness measurement" (2018).
    """
    filters: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    gain, band = 10 ** (3.999843853973347 / 20), 10 ** (3.999843853973347 * 0.4996667741545416 / 20)
    for corner_hz, quality, (high, middle, low) in (
        (1681.974450955533, 0.7071752369554196, (gain, band, 1.0)),
        (38.13547087602444, 0.5003270373238773, (1.0, 0.0, 0.0)),
    ):
        k = math.tan(math.pi * corner_hz / rate_hz)
        a = np.array([1 + k / quality + k * k, 2 * (k * k - 1), 1 - k / quality + k * k])
        b = np.array(
            [
                high + middle * k / quality + low * k * k,
                2 * (low * k * k - high),
                high - middle * k / quality + low * k * k,
            ]
        )
        # the standard leaves the gain of the high-pass's numerator at 1
        filters.append((b / a[0] if low else b, a / a[0]))
    return filters


def measure_loudness(audio: NDArray[np.float32], rate_hz: int) -> float:
    """Return the integrated loudness in LUFS; minus infinity for silence.

    Args:
        audio: samples [S, C] of one or two channels; a sound shorter than one block of 0.4 s is repeated.
        rate_hz: sample rate.
    """
    block = round(BLOCK_S * rate_hz)
    if len(audio) == 0:
        return -math.inf
    sound = np.tile(audio, (math.ceil(block / len(audio)), 1)) if len(audio) < block else audio
    heard = _measure_heard(sound, rate_hz, BLOCK_S, _RELATIVE_LU)
    return -0.691 + 10 * math.log10(float(np.mean(heard))) if len(heard) else -math.inf


def measure_loudness_range(audio: NDArray[np.float32], rate_hz: int) -> float:
    """Return the loudness range in LU: the 10th to the 95th percentile of loudness over 3 s, every 0.1 s.

    Args:
        audio: samples [S, C] of one or two channels.
        rate_hz: sample rate.

    Returns:
        NaN for silence, and for a sound that is shorter than 3.1 s.
    """
    if len(audio) < round(SHORT_TERM_S * rate_hz) + round(STEP_S * rate_hz):
        return math.nan
    heard = np.sort(_measure_heard(audio, rate_hz, SHORT_TERM_S, _RANGE_RELATIVE_LU))
    if len(heard) == 0:
        return math.nan
    # the nearest rank, as in the document's own program
    low, high = (heard[math.floor((len(heard) - 1) * share + 0.5)] for share in _RANGE_SHARES)
    return 10 * math.log10(high / low)


def _measure_heard(
    sound: NDArray[np.float32], rate_hz: int, block_s: float, relative_lu: float
) -> NDArray[np.float64]:
    """Return the power of the blocks that pass the absolute gate, then the one relative to their mean."""
    block, step = round(block_s * rate_hz), round(STEP_S * rate_hz)
    starts = np.arange(0, len(sound) - block + 1, step)
    begins, ends = np.split(_sum_energy(sound, rate_hz, np.concatenate([starts, starts + block])), 2)
    power = (ends - begins) / block
    heard = power[power > _to_power(_SILENCE_LUFS)]
    return heard[heard > np.mean(heard) * 10 ** (relative_lu / 10)] if len(heard) else heard


def _sum_energy(sound: NDArray[np.float32], rate_hz: int, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the energy of the filtered sound [S, C] before each place; holds `CHUNK` samples at a time as doubles."""
    sums = np.zeros(len(places))
    filters = _design_filters(rate_hz)
    states = [np.zeros((len(a) - 1, sound.shape[1])) for _, a in filters]
    total = 0.0
    for start in range(0, len(sound), CHUNK):
        part = sound[start : start + CHUNK].astype(np.float64)
        for index, (b, a) in enumerate(filters):
            part, states[index] = lfilter(b, a, part, axis=0, zi=states[index])
        energy = np.cumsum(np.concatenate([[total], np.sum(np.square(part), axis=1)]))
        inside = (places > start) & (places <= start + len(part))
        sums[inside] = energy[places[inside] - start]
        total = float(energy[-1])
    return sums


def _to_power(lufs: float) -> float:
    return 10 ** ((lufs + 0.691) / 10)
