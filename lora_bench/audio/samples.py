"""Samples in memory: resample, change channels, save."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

from lora_bench.errors import AudioFileError
from lora_bench.store import write_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLER = f"soxr-hq {soxr.__version__}"
"""Name and version of the one resampler, for provenance."""


def resample(audio: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Change the sample rate with soxr HQ; [C, S] to [C, round(S * to_hz / from_hz)].

    At equal rates the samples are returned unchanged.
    """
    if from_hz == to_hz:
        return audio
    resampled: NDArray[np.float32] = soxr.resample(audio.T, from_hz, to_hz, quality="HQ")
    return np.ascontiguousarray(resampled.T, dtype=np.float32)


def to_channels(audio: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Convert [C, S] to [channels, S]: mono is the mean of all channels; a mono sound is repeated.

    Surround becomes stereo by its first two channels, the front pair.
    """
    n_given = audio.shape[0]
    if n_given == channels:
        return audio
    if channels == 1:
        return audio.mean(axis=0, keepdims=True, dtype=np.float32)
    if n_given == 1:
        return np.repeat(audio, channels, axis=0)
    if n_given > channels:
        return np.ascontiguousarray(audio[:channels])
    raise ValueError(f"{n_given} channels cannot become {channels}; expected 1, or {channels} or more")


def save_wav(path: Path, audio: NDArray[np.float32], sample_rate_hz: int) -> None:
    """Write [C, S] in 16 bits as wav or flac, by the suffix, atomically; rounded without dither, clipped at full scale.

    Raises:
        AudioFileError: there are NaN or infinite samples; nothing is written.
        StoreError: the disk is full.
    """
    if not np.isfinite(audio).all():
        raise AudioFileError(str(path), "not written, because the samples hold NaN or infinite values")
    # libsndfile scales floats by 32767; by 32768 a 16-bit file that is loaded and saved stays equal.
    pcm = np.clip(np.rint(audio.T * np.float32(32768.0)), -32768, 32767).astype(np.int16)
    kind = "FLAC" if path.suffix.lower() == ".flac" else "WAV"
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, sample_rate_hz, format=kind, subtype="PCM_16")
    write_bytes(path, buffer.getvalue())
