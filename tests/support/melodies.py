"""Melodies of plain notes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE_HZ = 32_000


def play_notes(pitches: Sequence[int], *, note_s: float = 0.5, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """Play notes, in semitones above C5, with three harmonics; float32 [S]."""
    time_s = np.arange(round(note_s * rate_hz)) / rate_hz
    notes = [
        sum(0.3 / n * np.sin(2.0 * np.pi * n * 523.2511 * 2.0 ** (pitch / 12) * time_s) for n in (1, 2, 3))
        for pitch in pitches
    ]
    return np.concatenate(notes).astype(np.float32)


def save_melodies(folder: Path) -> Path:
    """Write three melodies: 1 s, 31 s, and 2 s in stereo at 44.1 kHz in a folder below; returns `folder`."""
    soundfile.write(folder / "a.wav", play_notes([0, 7]), RATE_HZ)
    scale = [0, 2, 4, 5, 7, 9, 11, 12]
    soundfile.write(folder / "b.flac", play_notes([scale[n * 3 % 8] for n in range(62)]), RATE_HZ)
    (folder / "c").mkdir()
    left = play_notes([4, 9, 2, 11], rate_hz=44_100)
    soundfile.write(folder / "c" / "wide.wav", np.stack([left, 0.5 * left], axis=1), 44_100)
    return folder
