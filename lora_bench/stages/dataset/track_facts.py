"""Facts about the sound of one recording that tell faults: level, silence, clipping, false stereo, bandwidth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.audio.loudness import measure_loudness
from lora_bench.stages.dataset.recordings import find_fault
from lora_bench.stages.dataset.sound_edits import count_clipped

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACTS_VERSION = 2
"""Part of the cache key; raise it when the same file would be judged differently."""
BLOCK_S = 0.05
SILENT_DBFS = -60.0
N_FFT = 4096
MAX_FRAMES = 400
"""Frames of the mean spectrum, spread evenly over the track."""
EDGE_DB, EDGE_HZ = 20.0, 400.0
"""A spectrum that falls by this much within this width, and stays below, ends there: a codec's or resampler's cut."""
MAX_CLIPPED, MAX_SILENT, MAX_EDGE_S, MAX_OFFSET = 1e-4, 0.3, 2.0, 0.01
LOUD_LUFS, QUIET_LUFS = -6.0, -35.0
MODEL_HZ = 16_000.0
"""MusicGen's codec keeps sound up to this frequency, so a lower bandwidth is heard."""
FEW_FRAC = 0.8
SAME_DB = -50.0


@dataclass(frozen=True)
class TrackFacts:
    """What was measured in a recording.

    Attributes:
        duration_s: length.
        loudness_lufs: integrated loudness by ITU-R BS.1770 of at most two channels; None for silence.
        peak_dbfs: highest sample; None for silence.
        silent_frac: share of blocks of 50 ms whose peak is below -60 dBFS.
        lead_s, tail_s: silence at the start and the end.
        clipped_frac: share of samples in runs at the peak level.
        dc_offset: mean of the samples, as a share of full scale, of the channel where it is largest.
        is_false_stereo: whether all channels are the same.
        bandwidth_hz: frequency where the spectrum ends; half the sample rate if it does not end before.
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    loudness_lufs: float | None
    peak_dbfs: float | None
    silent_frac: float
    lead_s: float
    tail_s: float
    clipped_frac: float
    dc_offset: float
    is_false_stereo: bool
    bandwidth_hz: float

    def find_exclusion(self, min_track_s: float) -> str | None:
        """Return why a run leaves the recording out; None if it does not."""
        peak = 0.0 if self.peak_dbfs is None else 10 ** (self.peak_dbfs / 20)
        return find_fault(self.duration_s, peak, min_track_s)

    def list_faults(self) -> Iterator[str]:
        """Yield what is odd, in words."""
        if self.clipped_frac > MAX_CLIPPED:
            yield f"clipped ({self.clipped_frac:.2%} of the samples)"
        if self.silent_frac > MAX_SILENT:
            yield f"{self.silent_frac:.0%} silence"
        elif self.lead_s > MAX_EDGE_S or self.tail_s > MAX_EDGE_S:
            yield f"silence of {self.lead_s:.1f} s at the start and {self.tail_s:.1f} s at the end"
        if self.is_false_stereo:
            yield f"mono in {self.channels} channels"
        if self.bandwidth_hz < FEW_FRAC * min(MODEL_HZ, self.sample_rate_hz / 2) or (
            self.bandwidth_hz < FEW_FRAC * self.sample_rate_hz / 2
        ):
            yield f"nothing above {self.bandwidth_hz / 1000:.1f} kHz (a lossy or resampled source)"
        if abs(self.dc_offset) > MAX_OFFSET:
            yield f"DC offset of {self.dc_offset:.1%} of full scale"
        if self.loudness_lufs is not None and not QUIET_LUFS <= self.loudness_lufs <= LOUD_LUFS:
            yield f"{'loud' if self.loudness_lufs > LOUD_LUFS else 'quiet'} ({self.loudness_lufs:.0f} LUFS)"


def measure_samples(audio: NDArray[np.float32], rate_hz: int) -> TrackFacts:
    """Measure samples [C, S]."""
    peak = float(np.abs(audio).max(initial=0.0))
    loudness = measure_loudness(audio[:2].T, rate_hz) if peak > 0 else -math.inf
    lead_s, tail_s, silent_frac = _measure_silence(audio, rate_hz)
    return TrackFacts(
        duration_s=audio.shape[1] / rate_hz,
        sample_rate_hz=rate_hz,
        channels=audio.shape[0],
        loudness_lufs=loudness if math.isfinite(loudness) else None,
        peak_dbfs=20 * math.log10(peak) if peak > 0 else None,
        silent_frac=silent_frac,
        lead_s=lead_s,
        tail_s=tail_s,
        clipped_frac=count_clipped(audio) / max(1, audio.size),
        dc_offset=float(max(audio.mean(axis=1, dtype=np.float64), key=abs)) if audio.size else 0.0,
        is_false_stereo=_is_false_stereo(audio),
        bandwidth_hz=_find_bandwidth(audio, rate_hz),
    )


def _measure_silence(audio: NDArray[np.float32], rate_hz: int) -> tuple[float, float, float]:
    """Return silence at the start and at the end in seconds, and the share of silent blocks."""
    n_block = max(1, round(BLOCK_S * rate_hz))
    n_blocks = audio.shape[1] // n_block
    if not n_blocks:
        return 0.0, 0.0, 0.0
    peaks = np.zeros(n_blocks, dtype=np.float32)
    for channel in audio:
        peaks = np.maximum(
            peaks, np.abs(channel[: n_blocks * n_block]).reshape(n_blocks, n_block).max(axis=1)
        )
    heard = np.flatnonzero(peaks >= 10 ** (SILENT_DBFS / 20))
    if not len(heard):
        return audio.shape[1] / rate_hz, 0.0, 1.0
    silent_frac = 1.0 - len(heard) / n_blocks
    return float(heard[0]) * BLOCK_S, float(n_blocks - 1 - heard[-1]) * BLOCK_S, silent_frac


def _is_false_stereo(audio: NDArray[np.float32]) -> bool:
    if len(audio) < 2 or not audio.size:
        return False
    power = float(np.mean(np.square(audio[0], dtype=np.float64)))
    rest = max(float(np.mean(np.square(audio[0] - channel, dtype=np.float64))) for channel in audio[1:])
    return power > 0 and rest < power * 10 ** (SAME_DB / 10)


def _find_bandwidth(audio: NDArray[np.float32], rate_hz: int) -> float:
    """Return the frequency of the steepest fall of the mean spectrum that nothing above rises over again."""
    half = rate_hz / 2
    n_frames = audio.shape[1] // N_FFT
    if n_frames < 4:
        return half
    chosen = np.unique(np.linspace(0, n_frames - 1, min(n_frames, MAX_FRAMES)).astype(int))
    window = np.hanning(N_FFT).astype(np.float32)
    frames = np.stack(
        [audio[:, place * N_FFT : (place + 1) * N_FFT].mean(axis=0) * window for place in chosen]
    )
    power = np.mean(np.abs(np.fft.rfft(frames, axis=1)) ** 2, axis=0)
    width = max(1, round(EDGE_HZ / 4 * N_FFT / rate_hz))  # a quarter of the edge
    n_bands = len(power) // width
    levels = 10 * np.log10(power[: n_bands * width].reshape(n_bands, width).mean(axis=1) + 1e-20)
    above = np.maximum.accumulate(levels[::-1])[::-1]
    falls = levels[:-4] - above[4:]
    falls[: max(1, round(1000 / (width * rate_hz / N_FFT)))] = (
        0.0  # below 1 kHz, it is a sound's own spectrum
    )
    place = int(np.argmax(falls)) if len(falls) else 0
    if not len(falls) or falls[place] < EDGE_DB or not power.max() > 0:
        return half
    return min(half, (place + 1.5) * width * rate_hz / N_FFT)
