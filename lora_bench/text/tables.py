"""Rows of csv and tsv files by the names in the first row, and lines of JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.text.files import read_json_text, read_text, split_lines

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
DELIMITERS = (",", ";", "\t")


class ForeignTableError(DatasetError):
    """A table without the column that is asked for; the message says which columns it has."""


def read_rows(
    path: Path, file_keys: Collection[str], example: str = "file,caption"
) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Yield the rows of a table: the number of the first line, and the cells by lower-case column, without empty ones.

    For a row that is wrong, yield what is wrong with it.  Commas, semicolons or tabs divide cells, as in the first
    row.

    Args:
        path: the table.
        file_keys: names of columns that name files; one of them must be there.
        example: a first row, for messages.

    Raises:
        ForeignTableError: no column names the files.
        DatasetError: the file is not text.
    """
    lines = list(io.StringIO(read_text(path), newline=""))
    head = next((line for line in lines if line.strip()), "")
    delimiter, columns = max(
        ((mark, read_head(head, mark)) for mark in DELIMITERS),
        key=lambda found: (bool(set(file_keys) & set(found[1])), len(found[1])),
    )
    if not set(file_keys) & set(columns):
        raise ForeignTableError(
            f"{spell_path(path)}:1: none of the columns {', '.join(f'`{name[:40]}`' for name in columns[:8])} names "
            f"audio files; expected a first row such as `{example}` ({', '.join(file_keys)})"
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


def read_records(
    path: Path, file_keys: Collection[str], example: str = "file,caption"
) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    """Yield the line number and the record of each row of a table, or of each line of JSON that is not blank.

    For one that is wrong, yield what is wrong with it.  Arguments and errors as of `read_rows`.
    """
    if path.suffix.casefold() in TABLE_SUFFIXES:
        yield from read_rows(path, file_keys, example)
        return
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if line.strip():
            yield number, _parse_line(line)


def _parse_line(line: str) -> Mapping[str, object] | str:
    try:
        document = read_json_text(line)
    except json.JSONDecodeError as error:
        return f"not valid JSON ({error})"
    except ValueError as error:
        return str(error)
    return (
        document if isinstance(document, dict) else f"expected a JSON object, found {type(document).__name__}"
    )


def read_head(line: str, delimiter: str) -> list[str]:
    """Return the lower-case names of the columns in a first row."""
    names = next(csv.reader([line], delimiter=delimiter), [])
    return [name.lstrip("\ufeff").strip().casefold() for name in names]
