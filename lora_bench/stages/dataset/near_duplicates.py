"""Near-duplicates: recordings of the same music that differ in coding, level, start, pitch, tempo or length.

A recording becomes a sequence of spectra in quarter tones, three a second, without its mean spectrum and level.
Excerpts of 8 s of the shorter recording are looked for in the longer one, at every place and transposed by up to two
semitones.  Two recordings are near-duplicates if the 85 % quantile of the excerpts' correlations is high.
Among many recordings, only likely pairs are compared: those with an excerpt whose two-dimensional Fourier magnitude
is near one of the other's, because neither place nor transposition changes it much.

`benchmarks/near_duplicates.py` measures recall and false alarms on planted copies.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.audio import RESAMPLER, load_audio, resample, to_channels
from lora_bench.store import Store, hash_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Sound = tuple[NDArray[np.float32], int]

FINGERPRINT_VERSION = 1
"""Part of the cache key; raise it when the same recording gets another fingerprint."""
RATE_HZ, N_FFT, HOP = 11_025, 4096, 3675
"""Spectra of 0.37 s, three a second."""
LOWEST_HZ, BINS_PER_OCTAVE, N_OCTAVES = 110.0, 24, 5
WINDOW = 24
"""Frames of an excerpt: 8 s."""
N_WINDOWS = 8
MAX_SHIFT = 4
"""Quarter tones."""
MIN_CORRELATION = 0.55
QUANTILE = 0.85
"""Most excerpts may differ: those over the seam of a loop, and those of which only the start or end is common."""
ALL_PAIRS = 80
"""Up to so many recordings, all pairs are compared."""
N_NEAREST = 10
N_LOW = 12
"""Low frequencies of the Fourier magnitude that are kept on each axis."""


@dataclass(frozen=True)
class NearPair:
    """Two near-duplicates by index, and the 85 % quantile of the correlations of their excerpts."""

    first: int
    second: int
    correlation: float


def read_fingerprint(
    path: Path, content_hash: str, store: Store, load: Callable[[Path], Sound] = load_audio
) -> NDArray[np.float32]:
    """Return the fingerprint of a file, [frames, 120], from the store if it lies there.

    Args:
        path: the file.
        content_hash: of the file.
        store: keeps fingerprints.
        load: returns its samples [C, S] and their rate in Hz.

    Raises:
        AudioFileError: the file cannot be decoded.
        StoreError: the disk is full.
    """
    facts = {"version": FINGERPRINT_VERSION, "content": content_hash, "resampler": RESAMPLER}

    def write(draft: Path) -> None:
        audio, rate_hz = load(path)
        mono = resample(to_channels(audio, 1), rate_hz, RATE_HZ)[0]
        with (draft / "fingerprint.npy").open("wb") as stream:
            np.save(stream, compute_fingerprint(mono).astype(np.float16))

    place = store.get_or_make("fingerprint", hash_json(facts, length=32), write)
    return np.load(place / "fingerprint.npy").astype(np.float32)


def compute_fingerprint(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return spectra in quarter tones of mono samples [S] at 11025 Hz: [frames, 120], mean 0 in every frame and bin."""
    padded = np.pad(audio, (0, max(0, N_FFT - len(audio))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    taper = np.hanning(N_FFT).astype(np.float32)
    bank = _make_bank()
    rows = [
        np.abs(np.fft.rfft(windows[at : at + 256] * taper, axis=1)) @ bank
        for at in range(0, len(windows), 256)
    ]
    bands = np.concatenate(rows).astype(np.float32)
    level = np.sqrt(np.mean(np.square(bands)))
    logs = np.log1p(100.0 * bands / level) if level > 0 else bands
    shapes = logs - logs.mean(axis=1, keepdims=True)  # loudness over time alone makes slow pieces alike
    return shapes - shapes.mean(axis=0)


def _make_bank() -> NDArray[np.float32]:
    """Return triangles of quarter tones over the spectrum's bins: [N_FFT / 2 + 1, 120]."""
    n_bins = BINS_PER_OCTAVE * N_OCTAVES
    centres = LOWEST_HZ * 2 ** (np.arange(-1, n_bins + 1) / BINS_PER_OCTAVE)
    hz = np.fft.rfftfreq(N_FFT, 1 / RATE_HZ)[:, None]
    low, middle, high = centres[:-2], centres[1:-1], centres[2:]
    width = np.maximum(middle - low, RATE_HZ / N_FFT), np.maximum(high - middle, RATE_HZ / N_FFT)
    return np.maximum(0.0, np.minimum((hz - middle) / width[0] + 1, (middle - hz) / width[1] + 1)).astype(
        np.float32
    )


def find_near_duplicates(
    fingerprints: Sequence[NDArray[np.float32]], advance: Callable[[int], None] = lambda _: None
) -> list[NearPair]:
    """Return all pairs of near-duplicates, in the order of their indices.

    Args:
        fingerprints: [frames, 120] each.
        advance: told how many recordings are done.
    """
    prints = [prepare(each) for each in fingerprints]
    pairs = _list_pairs(fingerprints)
    found: list[NearPair] = []
    for first, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        for _, second in group:
            correlation = compare(prints[first], prints[second])
            if correlation >= MIN_CORRELATION:
                found.append(NearPair(first, second, round(correlation, 3)))
        advance(first)
    return found


@dataclass(frozen=True)
class Prepared:
    """A fingerprint, prepared for comparisons.

    Attributes:
        passages: [places, frames of an excerpt, 120], a view.
        starts: of the excerpts that are looked for in others.
    """

    passages: NDArray[np.float32]
    starts: NDArray[np.int64]


def prepare(fingerprint: NDArray[np.float32]) -> Prepared:
    """Prepare a fingerprint [frames, 120] for comparisons."""
    padded = np.pad(fingerprint, ((0, max(0, WINDOW - len(fingerprint))), (0, 0)))
    passages = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=0).transpose(0, 2, 1)
    inner = np.square(padded[:, MAX_SHIFT:-MAX_SHIFT]).sum(axis=1)
    sums = np.concatenate([[0.0], np.cumsum(inner, dtype=np.float64)])
    norms = np.sqrt(np.maximum(sums[WINDOW:] - sums[:-WINDOW], 0.0)).astype(np.float32)
    heard = np.flatnonzero(norms > 0.25 * norms.max(initial=0.0))
    chosen = heard[np.unique(np.linspace(0, len(heard) - 1, N_WINDOWS).astype(int))] if len(heard) else heard
    return Prepared(passages, chosen)


def compare(first: Prepared, second: Prepared) -> float:
    """Return how well excerpts of the shorter recording correlate with their best passages in the longer one."""
    short, long = sorted((first, second), key=lambda each: len(each.passages))
    if not len(short.starts) or not len(long.passages):
        return 0.0
    inner = slice(MAX_SHIFT, -MAX_SHIFT)
    queries = short.passages[short.starts][:, :, inner]
    flat = np.ascontiguousarray(queries).reshape(len(queries), -1)
    lengths = np.linalg.norm(flat, axis=1)
    best = np.zeros((2 * MAX_SHIFT + 1, len(queries)), dtype=np.float32)
    for row, shift in enumerate(range(-MAX_SHIFT, MAX_SHIFT + 1)):
        bins = slice(MAX_SHIFT + shift, long.passages.shape[2] - MAX_SHIFT + shift)
        there = np.ascontiguousarray(long.passages[:, :, bins]).reshape(len(long.passages), -1)
        norms = np.linalg.norm(there, axis=1)
        products = flat @ there.T
        fits = products / np.maximum(
            lengths[:, None] * np.maximum(norms, 0.25 * norms.max(initial=0.0)), 1e-9
        )
        best[row] = fits.max(axis=1)
    return float(np.quantile(best, QUANTILE, axis=1).max())


def _list_pairs(fingerprints: Sequence[NDArray[np.float32]]) -> Iterator[tuple[int, int]]:
    n = len(fingerprints)
    if n <= ALL_PAIRS:
        yield from itertools.combinations(range(n), 2)
        return
    near: set[tuple[int, int]] = set()
    vectors, owners = _describe_windows(fingerprints)
    for at in range(0, len(vectors), 512):
        similar = vectors[at : at + 512] @ vectors.T
        for row, fits in enumerate(similar):
            own = owners[at + row]
            fits[owners == own] = -1.0
            for place in np.argpartition(-fits, N_NEAREST)[:N_NEAREST]:
                near.add((min(own, owners[place]), max(own, owners[place])))
    yield from sorted((int(first), int(second)) for first, second in near)


def _describe_windows(
    fingerprints: Sequence[NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the low part of the two-dimensional Fourier magnitude of excerpts every 4 s, and whose they are."""
    rows: list[NDArray[np.float32]] = []
    owners: list[int] = []
    for index, each in enumerate(fingerprints):
        padded = np.pad(each, ((0, max(0, WINDOW - len(each))), (0, 0)))
        for start in range(0, len(padded) - WINDOW + 1, WINDOW // 2):
            magnitude = np.abs(np.fft.rfft2(padded[start : start + WINDOW]))[:N_LOW, : 2 * N_LOW].ravel()
            length = float(np.linalg.norm(np.sqrt(magnitude)))
            if length > 0:
                rows.append((np.sqrt(magnitude) / length).astype(np.float32))
                owners.append(index)
    table = np.stack(rows)
    table -= table.mean(axis=0)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
    return table, np.array(owners)


def group_pairs(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    """Return the first name of each name's group, where pairs join groups."""
    above = {name: name for name in names}

    def find(name: str) -> str:
        while above[name] != name:
            above[name] = above[above[name]]
            name = above[name]
        return name

    for first, second in pairs:
        low, high = sorted((find(first), find(second)))
        above[high] = low
    return {name: find(name) for name in names}
