"""Genres rendered by code, so that a benchmark needs no recordings.

chiptune.py    loops in the style of game consoles of the eighties: the catalogue and the entry point
theory.py      scales, chords, progressions
composer.py    compose a song from a style and a seed: melody, harmony, bass and drums as notes
chip_styles.py the ten styles: moods, tempos, modes, instruments
chip_parts.py  accompaniment: patterns of harmony, bass and drums
chip_sound.py  render notes: pulse waves, the stepped triangle, shift-register noise, echo
"""

from __future__ import annotations

from pathlib import Path

from lora_bench.errors import UsageError
from lora_bench.genres.chiptune import CHIPTUNE_VERSION, N_TRACKS, render_chiptune
from lora_bench.progress import Progress
from lora_bench.store import Store


def render_genre(name: str, sample_rate_hz: int, store: Store, progress: Progress) -> Path:
    """Return the folder of a genre's recordings and captions; the first call renders them.

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
