"""Genres that are rendered by code, so that a benchmark needs no recordings.

chiptune.py    loops in the manner of game consoles of the eighties: the catalogue and the entry point
theory.py      scales, chords, progressions
composer.py    a style and a seed become a song: melody, harmony, bass, drums as notes
chip_styles.py the ten styles: moods, tempos, modes, instruments
chip_parts.py  accompaniment: the patterns of harmony, bass and drums
chip_sound.py  notes become sound: pulse waves, the stepped triangle, shift-register noise, echo
"""

from __future__ import annotations

from pathlib import Path

from lora_bench.errors import UsageError
from lora_bench.genres.chiptune import CHIPTUNE_VERSION, N_TRACKS, render_chiptune
from lora_bench.progress import Progress
from lora_bench.store import Store


def render_genre(name: str, sample_rate_hz: int, store: Store, progress: Progress) -> Path:
    """The folder of a genre's recordings and caption sidecars; rendered on the first call.

    Raises:
        UsageError: there is no such genre.
        StoreError: the disk is full.
    """
    if name != "chiptune":
        raise UsageError(f"dataset.builtin: `{name}` is not a genre that is rendered; expected `chiptune`")

    def render(draft: Path) -> None:
        progress.start("render", N_TRACKS)
        render_chiptune(draft, sample_rate_hz, progress)

    return store.get_or_make("genre", f"chiptune-v{CHIPTUNE_VERSION}-{sample_rate_hz}", render)
