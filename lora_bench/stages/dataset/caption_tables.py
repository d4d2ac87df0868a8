"""Captions in csv files: rows of cells by the names in the first row."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.stages.dataset.caption_files import read_text
from lora_bench.stages.dataset.field_names import CAPTION_KEYS, FILE_KEYS

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
OWN_NAMES = frozenset({"captions", "metadata"})
"""Tables of these names hold captions; others are used if their columns say so."""
_DELIMITERS = (",", ";", "\t")


class ForeignTableError(DatasetError):
    """A table that is not about captions; the message says why."""


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Yield the rows of a table: the number of the first line, and the cells by lower-case column, without empty ones.

    For a row that is wrong, yield what is wrong with it.  Commas, semicolons or tabs divide cells, as in the first
    row.

    Raises:
        ForeignTableError: no column names the files.
        DatasetError: the file is not text.
    """
    lines = list(io.StringIO(read_text(path), newline=""))
    head = next((line for line in lines if line.strip()), "")
    delimiter, columns = max(
        ((mark, _read_head(head, mark)) for mark in _DELIMITERS),
        key=lambda found: (bool(set(FILE_KEYS) & set(found[1])), len(found[1])),
    )
    if not set(FILE_KEYS) & set(columns):
        raise ForeignTableError(
            f"{spell_path(path)}:1: none of the columns {', '.join(f'`{name[:40]}`' for name in columns[:8])} names "
            f"audio files; expected a first row such as `file,caption` ({', '.join(FILE_KEYS)})"
        )
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number, has_head = 1, False
    try:
        for cells in reader:
            first, number = number, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not has_head:
                has_head = True
            elif len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
                words = f"has {len(cells)} cells, the first row has {len(columns)}"
                example = f'"calm{delimiter} slow"'
                yield first, f"{words}; put text that holds `{delimiter}` in double quotes, such as {example}"
            else:
                named = zip(columns, cells, strict=False)
                yield first, {name: cell.strip() for name, cell in named if name and cell.strip()}
    except csv.Error as error:
        yield number, f"{error}; write a quote within a quoted cell twice"


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
    head = next((line for line in text.splitlines() if line.strip()), "")
    named = [set(_read_head(head, mark)) for mark in _DELIMITERS]
    return any(set(FILE_KEYS) & names and (with_fields or set(CAPTION_KEYS) & names) for names in named)


def _read_head(line: str, delimiter: str) -> list[str]:
    names = next(csv.reader([line], delimiter=delimiter), [])
    return [name.lstrip("\ufeff").strip().casefold() for name in names]
