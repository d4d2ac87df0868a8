"""Musical measures as encoders: one vector per clip, computed by librosa, BS.1770 and EBU Tech 3342, without weights.

Those of one dimension have a unit, and their Frechet distance is (difference of the means)^2 + (difference of the
standard deviations)^2 over clips; the means are in each score's provenance.  `tonality` has twelve dimensions.

tempo       octaves from 120 beats per minute, by librosa's estimate, which can be off by an octave; none without onsets
pulse       clarity of the beat, 0 to 1: highest peak of the autocorrelation of onset strength at 40 to 240 BPM
onsets      onsets per second
loudness    integrated loudness in LUFS; -70 for silence
loudness-range  LRA of EBU Tech 3342 in LU; 0 for a steady sound, none for silence and for less than 3.1 s
brightness  octaves of the spectral centroid above 1 kHz; none for silence
tonality    chroma, turned so that the best-fitting key of Krumhansl and Kessler (1982) is C; sums to 1
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_bench.audio.librosa_import import load_librosa
from lora_bench.audio.loudness import RANGE_S, SHORT_TERM_S, measure_loudness, measure_loudness_range
from lora_bench.errors import UnscoredError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SAMPLE_RATE_HZ = 22_050
HOP_SAMPLES = 512
SLOWEST_BPM, FASTEST_BPM = 40.0, 240.0
SILENCE_LUFS = -70.0
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
"""How well each degree fits a key, by C. L. Krumhansl and E. J. Kessler (1982)."""


def measure_tempo(audio: NDArray[np.float32]) -> list[float]:
    """Return the tempo of [S] in octaves from 120 BPM.

    Raises:
        UnscoredError: nothing begins in the clip; librosa's answer would be its guess before hearing anything.
    """
    librosa = load_librosa()

    strength = _onset_strength(audio)
    if not strength.any():
        raise UnscoredError("tempo: a clip without onsets has none; the guard of silence counts silent clips")
    tempo = librosa.feature.tempo(onset_envelope=strength, sr=SAMPLE_RATE_HZ, hop_length=HOP_SAMPLES)
    return [float(np.log2(tempo[0] / 120.0))]


def measure_pulse(audio: NDArray[np.float32]) -> list[float]:
    """Return the clarity of the beat of [S]."""
    strength = _onset_strength(audio)
    strength = strength - strength.mean()
    power = float(strength @ strength)
    if power <= 0.0:
        return [0.0]
    rate_hz = SAMPLE_RATE_HZ / HOP_SAMPLES
    first, last = round(60.0 / FASTEST_BPM * rate_hz), round(60.0 / SLOWEST_BPM * rate_hz)
    lags = range(first, min(last, len(strength) - 1) + 1)
    similar = [float(strength[lag:] @ strength[:-lag]) / power for lag in lags]
    return [max(0.0, *similar) if similar else 0.0]


def measure_onsets(audio: NDArray[np.float32]) -> list[float]:
    """Return the onsets of [S] per second."""
    librosa = load_librosa()

    found = librosa.onset.onset_detect(
        onset_envelope=_onset_strength(audio), sr=SAMPLE_RATE_HZ, hop_length=HOP_SAMPLES, units="time"
    )
    return [len(found) * SAMPLE_RATE_HZ / len(audio)]


def measure_lufs(audio: NDArray[np.float32]) -> list[float]:
    """Return the integrated loudness of [S] in LUFS."""
    return [max(SILENCE_LUFS, measure_loudness(audio[:, None], SAMPLE_RATE_HZ))]


def measure_lra(audio: NDArray[np.float32]) -> list[float]:
    """Return the loudness range of [S] in LU.

    Raises:
        UnscoredError: the clip is shorter than 3.1 s, or silent.
    """
    seconds = len(audio) / SAMPLE_RATE_HZ
    if seconds < RANGE_S:
        raise UnscoredError(
            f"loudness-range: a clip of {seconds:.2f} s has none, for it is the range of loudness over "
            f"{SHORT_TERM_S:g} s at different times; use clips of at least {RANGE_S:g} s"
        )
    found = measure_loudness_range(audio[:, None], SAMPLE_RATE_HZ)
    if np.isnan(found):
        raise UnscoredError("loudness-range: a silent clip has none; the guard of silence counts them")
    return [found]


def measure_brightness(audio: NDArray[np.float32]) -> list[float]:
    """Return the spectral centroid of [S] in octaves above 1 kHz; each frame counts by its level.

    Raises:
        UnscoredError: the clip is silent.
    """
    librosa = load_librosa()

    spectrum = np.abs(librosa.stft(audio, hop_length=HOP_SAMPLES)).sum(axis=1)
    total = float(spectrum.sum())
    if total <= 0.0:
        raise UnscoredError("brightness: a silent clip has none; the guard of silence counts them")
    centroid_hz = float(librosa.fft_frequencies(sr=SAMPLE_RATE_HZ) @ spectrum) / total
    return [float(np.log2(max(centroid_hz, 1.0) / 1000.0))]


def measure_tonality(audio: NDArray[np.float32]) -> list[float]:
    """Return the chroma of [S], turned to C; equal shares for silence."""
    librosa = load_librosa()

    chroma = librosa.feature.chroma_stft(
        y=audio, sr=SAMPLE_RATE_HZ, hop_length=HOP_SAMPLES, norm=None, tuning=0.0
    )
    profile = chroma.sum(axis=1).astype(np.float64)
    total = float(profile.sum())
    if total <= 0.0:
        return [1.0 / 12] * 12
    tonic, _ = find_key(profile)
    return list(np.roll(profile / total, -tonic))


def find_key(chroma: NDArray[np.float64]) -> tuple[int, str]:
    """Return the tonic (0 is C) and the mode whose profile a chroma vector [12] fits best."""
    fits = {
        (tonic, mode): float(np.corrcoef(np.roll(profile, tonic), chroma)[0, 1])
        for mode, profile in PROFILES.items()
        for tonic in range(12)
    }
    return max(fits, key=lambda key: fits[key])


def _onset_strength(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    librosa = load_librosa()

    return librosa.onset.onset_strength(y=audio, sr=SAMPLE_RATE_HZ, hop_length=HOP_SAMPLES)


MEASURES: dict[str, tuple[int, Callable[[NDArray[np.float32]], list[float]]]] = {
    "tempo": (1, measure_tempo),
    "pulse": (1, measure_pulse),
    "onsets": (1, measure_onsets),
    "loudness": (1, measure_lufs),
    "loudness-range": (1, measure_lra),
    "brightness": (1, measure_brightness),
    "tonality": (12, measure_tonality),
}
"""D and function, by the encoder's name."""


@cache
def make_measure(name: str) -> type[Any]:
    """Return the plug-in's class of a measure; see `lora_bench.encoders.plugin.Plugin`."""
    dim, measure = MEASURES[name]

    class Measure:
        sample_rate_hz = SAMPLE_RATE_HZ

        def __init__(self, _settings: object, _device: str) -> None:
            self.dim = dim
            self.provenance = {"weights": "none", "librosa": metadata.version("librosa")}

        def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.array([measure(clip) for clip in audio], dtype=np.float32)

    return Measure
