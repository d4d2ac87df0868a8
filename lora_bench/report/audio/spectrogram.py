"""Spectrograms as small PNG files: numpy's FFT, a palette of 64 colours, and zlib."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, HEIGHT = 240, 72
LOWEST_HZ = 50.0
RANGE_DB = 70.0
N_COLOURS = 64
# Dark violet to pale yellow with rising lightness, so that it reads in grey as well.
_STOPS = ((4, 3, 20), (66, 15, 105), (140, 41, 108), (212, 72, 66), (250, 150, 30), (252, 250, 190))


def draw_spectrogram(audio: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """PNG of a clip's level over time and logarithmic frequency, loudest bin at full brightness.

    Args:
        audio: float [S] or [S, C]; channels are averaged.
        sample_rate_hz: rate of the samples.

    Returns:
        A PNG of `WIDTH` x `HEIGHT` pixels; low frequencies at the bottom.
    """
    mono = audio if audio.ndim == 1 else audio.mean(axis=1)
    n_fft = 1 << max(5, round(np.log2(sample_rate_hz * 0.04)))
    padded = np.pad(mono.astype(np.float64), (0, max(0, n_fft - len(mono))))
    starts = np.linspace(0, len(padded) - n_fft, WIDTH).astype(int)
    frames = padded[starts[:, None] + np.arange(n_fft)] * np.hanning(n_fft)  # [WIDTH, n_fft]
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = np.geomspace(LOWEST_HZ, sample_rate_hz / 2, HEIGHT + 1) * n_fft / sample_rate_hz
    low = np.minimum(edges[:-1].astype(int), power.shape[1] - 1)
    high = np.maximum(np.ceil(edges[1:]).astype(int), low + 1)
    bands = np.stack([power[:, a:b].max(axis=1) for a, b in zip(low, high, strict=True)])  # [HEIGHT, WIDTH]
    level_db = 10 * np.log10(np.maximum(bands, 1e-12))
    shade = np.clip((level_db - level_db.max()) / RANGE_DB + 1, 0, 1) if bands.max() > 1e-9 else bands * 0
    return encode_png(np.flipud(np.round(shade * (N_COLOURS - 1)).astype(np.uint8)), _make_palette())


def _make_palette() -> NDArray[np.uint8]:
    """`N_COLOURS` colours [N_COLOURS, 3], interpolated between the stops."""
    at = np.linspace(0, len(_STOPS) - 1, N_COLOURS)
    stops = np.array(_STOPS, dtype=np.float64)
    mixed = [np.interp(at, np.arange(len(_STOPS)), stops[:, channel]) for channel in range(3)]
    return np.round(np.stack(mixed, axis=1)).astype(np.uint8)


def encode_png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Indexed-colour PNG (colour type 3, 8 bits) of `pixels` [rows, columns] with `palette` [colours, 3].

    Source: https://www.w3.org/TR/png-3/
    """
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    rows = b"".join(b"\x00" + row.tobytes() for row in pixels)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_make_chunk(kind, data) for kind, data in chunks)


def _make_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
