"""Lists of recordings: a path a line, or a table with a column of files and others that become fields of captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.stages.dataset.field_names import FILE_KEYS
from lora_bench.stages.dataset.metadata import shorten
from lora_bench.stages.dataset.unpacked_folder import UnpackedFolder
from lora_bench.text.files import read_text, split_lines
from lora_bench.text.tables import TABLE_SUFFIXES, read_rows

SIDECARS = (".txt", ".json")


@dataclass(frozen=True)
class ListedFile:
    """A file of a list, with what other columns say about it."""

    path: Path
    fields: Mapping[str, str]


def read_list(path: Path) -> list[ListedFile]:
    """Return the files of a list in its order, each once.

    Raises:
        DatasetError: files are not there, or the list cannot be read (up to 10 lines are named).
    """
    problems: list[str] = []
    files: dict[Path, ListedFile] = {}
    for number, row in _read_rows(path):
        if isinstance(row, str):
            problems.append(f"dataset.path: {spell_path(path)}:{number}: {row}")
            continue
        name = next((row[key] for key in FILE_KEYS if key in row), "")
        found = path.parent / Path(name.replace("\\", "/") if "\\" in name else name).expanduser()
        if not name:
            problems.append(f"dataset.path: {spell_path(path)}:{number}: no file is named in this row")
        elif not found.is_file():
            state = "is not a file" if found.exists() else "does not exist"
            problems.append(
                f"dataset.path: {spell_path(path)}:{number}: {spell_path(name)} {state}; names are relative to the "
                "list's folder"
            )
        else:
            fields = {key: value for key, value in row.items() if key not in FILE_KEYS}
            files.setdefault(found, ListedFile(found, fields))
    if problems:
        raise DatasetError("\n".join(shorten(problems)))
    return list(files.values())


def _read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, str] | str]]:
    if path.suffix.lower() in TABLE_SUFFIXES:
        yield from read_rows(path, FILE_KEYS)
        return
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, {"file": line.strip()}


def link_list(path: Path, target: UnpackedFolder) -> list[Mapping[str, object]]:
    """Link the files of a list, with their sidecars, into a folder; return the fields of each.

    Raises:
        DatasetError: see `read_list`.
    """
    lines: list[Mapping[str, object]] = []
    taken: set[str] = set()
    for file in read_list(path):
        name = _name(file.path, path.parent, taken)
        taken.add(name)
        place = target.place(name)
        if place is None:  # the list names it, so it is wanted though it is hidden
            raise target.complain(
                f"lists {spell_path(file.path)}, which is hidden or in a hidden folder; rename it"
            )
        place.symlink_to(file.path.absolute())
        for suffix in SIDECARS:
            sidecar = file.path.with_suffix(suffix)
            beside = place.with_suffix(suffix)
            if sidecar.is_file() and not beside.is_symlink():
                beside.symlink_to(sidecar.absolute())
        if file.fields:
            lines.append({"file_name": name, **file.fields})
    return lines


def _name(file: Path, base: Path, taken: set[str]) -> str:
    """Return a relative name for a file that may lie anywhere: its path below the list, or below the root."""
    try:
        parts = file.relative_to(base).parts
    except ValueError:
        parts = file.absolute().parts
    kept = [part for part in parts if part not in {"..", "/"}]
    name = PurePosixPath(*kept).as_posix()
    number = 2
    while name in taken:
        name = PurePosixPath(*kept[:-1], f"{file.stem} ({number}){file.suffix}").as_posix()
        number += 1
    return name
