"""Chiptune: forty loops in the style of eight-bit consoles, composed and rendered by code.

Ten styles of four songs; every song lasts about 35 s and has its own key, tempo, harmony and melody.  The same version
gives the same bytes at the same sample rate.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lora_bench.audio import save_wav
from lora_bench.genres.chip_sound import render_song
from lora_bench.genres.chip_styles import STYLES
from lora_bench.genres.composer import Song, compose_song
from lora_bench.progress import Progress, SilentProgress
from lora_bench.store import write_text

CHIPTUNE_VERSION = 1
"""Raise it when a rendered byte or a caption changes: stores keep renderings by version."""

SONGS_A_STYLE = 4
N_TRACKS = len(STYLES) * SONGS_A_STYLE

WAVE_WORDS = {"square": "square", "pulse 25": "pulse", "pulse 12.5": "thin pulse", "triangle": "triangle"}


def compose_track(index: int) -> Song:
    """Compose song `index` of the catalogue, 0 to `N_TRACKS` - 1; keys follow the circle of fifths."""
    return compose_song(STYLES[index % len(STYLES)], index // len(STYLES), tonic=index * 7 % 12)


def caption_song(song: Song) -> str:
    """Describe a song as a listener would: character, key, tempo, meter, instruments."""
    words = [
        "chiptune",
        f"{song.style.mood} 8-bit game loop",
        song.style.scene,
        song.key.name,
        f"{song.bpm} bpm",
        f"{song.meter.name} swing" if song.style.swing else song.meter.name,
        f"{WAVE_WORDS[song.lead_wave]} lead",
        song.harmony_name,
        "triangle bass",
        "noise drums" if song.hits else "no drums",
    ]
    return ", ".join(words)


def render_chiptune(folder: Path, sample_rate_hz: int, progress: Progress | None = None) -> None:
    """Write `00.wav` (16 bits, mono) with its caption `00.txt`, and so on, into `folder`.

    Args:
        folder: target folder.
        sample_rate_hz: harmonics end below 0.45 of it.
        progress: advances with each track.

    Raises:
        StoreError: the disk is full.
    """
    progress = progress or SilentProgress()
    for index in range(N_TRACKS):
        song = compose_track(index)
        samples = render_song(song, sample_rate_hz)[np.newaxis, :].astype(np.float32)
        save_wav(folder / f"{index:02d}.wav", samples, sample_rate_hz)
        write_text(folder / f"{index:02d}.txt", caption_song(song) + "\n")
        progress.advance(note=f"{index:02d}.wav")
