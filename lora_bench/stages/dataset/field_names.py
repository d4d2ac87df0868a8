"""One name for each fact of a track: aliases of fields, and values as text or numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lora_bench.spec.captions import Measured

CAPTION_KEYS = ("caption", "text", "description")
FILE_KEYS = ("file_name", "file", "filename", "path")
MEASURED_FIELDS: Mapping[Measured, tuple[str, ...]] = {
    "bpm": ("bpm",),
    "key": ("key",),
    "tags": ("tags", "genre", "mood", "instruments"),
}
"""Fields that each measurement gives."""
KNOWN_FIELDS = (
    *("title", "artist", "album", "album_artist", "composer", "genre", "mood", "instruments", "bpm", "key", "tags"),
    *("year", "comment", "grouping", "language", "caption", "folder", "name", "trigger", "keywords"),
)  # fmt: skip
"""Names that a template may use even where no track has them."""
_ALIASES = {
    **dict.fromkeys(("text", "description"), "caption"),
    **dict.fromkeys(("tempo", "tempo_bpm", "beats_per_minute", "beatsperminute", "tmpo"), "bpm"),
    **dict.fromkeys(("initialkey", "initial_key", "musical_key", "keyscale", "key_scale"), "key"),
    **dict.fromkeys(("genres", "style", "styles"), "genre"),
    **dict.fromkeys(("moods",), "mood"),
    **dict.fromkeys(("instrument", "instrumentation"), "instruments"),
    **dict.fromkeys(("date", "originaldate", "recording_date"), "year"),
    **dict.fromkeys(("albumartist",), "album_artist"),
    **dict.fromkeys(("contentgroup", "content_group"), "grouping"),
    **dict.fromkeys(("keyword",), "keywords"),
}


@dataclass(frozen=True)
class Value:
    """A fact of a track, and where it was found: `captions.csv:3`, `tag TCON`, `measured`."""

    value: str | float
    origin: str


def name_field(written: str) -> str:
    """Return the one name of a field: lower case, `_` for spaces and hyphens, aliases resolved."""
    name = re.sub(r"[\s-]+", "_", written.strip().casefold())
    return _ALIASES.get(name, name)


def read_value(value: object) -> str | float | None:
    """Return a value of a JSON document or a tag as a number or as one line; None if it says nothing."""
    if isinstance(value, str):
        return " ".join(re.sub(r"[\x00-\x1f\x7f]+", " ", value).split()) or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return join_values(read_value(item) for item in value)
    return None


def join_values(values: Iterable[str | float | None]) -> str | None:
    """Return several values as a list in words, each once."""
    texts = [value if isinstance(value, str) else f"{value:g}" for value in values if value is not None]
    distinct: dict[str, str] = {}
    for text in texts:
        distinct.setdefault(text.casefold(), text)
    return ", ".join(distinct.values()) or None
