"""Which csv files of a folder hold captions."""

from __future__ import annotations

import codecs
from pathlib import Path

from lora_bench.stages.dataset.field_names import CAPTION_KEYS, FILE_KEYS
from lora_bench.text.files import split_lines
from lora_bench.text.tables import DELIMITERS, read_head

OWN_NAMES = frozenset({"captions", "metadata"})
"""Tables of these names hold captions; others are used if their columns say so."""


def is_wanted(path: Path, *, with_fields: bool) -> bool:
    """Return whether a table is about captions: by its name, or by the columns in its first row.

    Args:
        path: the table.
        with_fields: other columns than a caption will do.
    """
    if path.stem.casefold() in OWN_NAMES:
        return True
    with path.open("rb") as stream:  # a table of something else may be large, and in any encoding
        data = stream.read(1 << 16)
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if is_wide else "utf-8-sig", "replace")
    head = next((line for line in split_lines(text) if line.strip()), "")
    named = [set(read_head(head, mark)) for mark in DELIMITERS]
    return any(set(FILE_KEYS) & names and (with_fields or set(CAPTION_KEYS) & names) for names in named)
