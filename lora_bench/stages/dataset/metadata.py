"""Captions and fields in `metadata.jsonl` and csv files: their lines, and the file that each of them means."""

from __future__ import annotations

import ntpath
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_bench.audio.folder_walk import is_regular, walk_folder
from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.spec.captions import CaptionSpec
from lora_bench.stages.dataset.caption_tables import OWN_NAMES, is_wanted
from lora_bench.stages.dataset.field_names import CAPTION_KEYS, FILE_KEYS, name_field, read_value
from lora_bench.text.tables import TABLE_SUFFIXES, ForeignTableError, read_records

METADATA_NAME = "metadata.jsonl"
N_LISTED = 10


@dataclass(frozen=True)
class Line:
    """One line of a `metadata.jsonl` or of a csv file.

    Attributes:
        place: `path:line`.
        origin: the same relative to the dataset's folder.
        name: the file's name as written.
        paths: paths relative to the dataset's folder that the name can stand for, the likeliest first.
        caption: None where the line has other fields alone.
        fields: everything that the line says about the file, by field.
    """

    place: str
    origin: str
    name: str
    paths: tuple[str, ...]
    caption: str | None
    fields: Mapping[str, str | float]

    @property
    def unmatched(self) -> str:
        """What to say where no file has this name."""
        return (
            f"{self.place}: there is no audio file {spell_path(self.name)} (`file_name` is relative to the "
            f"folder of {self.place.rpartition(':')[0].rpartition('/')[2]})"
        )


class Metadata(dict[str, Line]):
    """Lines by path; `unused` has a sentence for each table that is about something else."""

    def __init__(self) -> None:
        super().__init__()
        self.unused: list[str] = []


def read_metadata(folder: Path, spec: CaptionSpec) -> Metadata:
    """Read the lines of every `metadata.jsonl` and csv file of captions in `folder`, or of `spec.file`.

    Empty where the spec does not want them.

    Raises:
        DatasetError: a file is wanted and missing, or lines of it are wrong (up to 10 are listed).
    """
    found = Metadata()
    if choose_source(spec) == "text" or spec.source == "sidecar":
        return found
    files = [spec.file] if spec.file is not None else _list_files(folder, spec, found)
    if not files and spec.source == "metadata":
        raise DatasetError(
            f"{spell_path(folder / METADATA_NAME)}: does not exist, but dataset.captions.source is "
            '`metadata`; expected one line {"file_name": "song.wav", "caption": "..."} per file, or a captions.csv '
            "with the columns `file` and `caption`"
        )
    problems: list[str] = []
    for path in files:
        base = folder if spec.file is not None else path.parent
        try:
            for place, line in _read_lines(path, base, folder, needs_caption=spec.resolved_template is None):
                _add(found, line if isinstance(line, Line) else f"{place}: {line}", problems)
        except ForeignTableError as error:
            if spec.file is None and path.stem.casefold() != "captions":
                found.unused.append(f"{error}; not used for captions")
            else:
                problems.append(str(error))
    if problems:
        raise DatasetError("\n".join(shorten(problems)))
    return found


def _list_files(folder: Path, spec: CaptionSpec, found: Metadata) -> list[Path]:
    files: list[Path] = []
    for path, status in walk_folder(folder).files:
        suffix, stem = path.suffix.casefold(), path.stem.casefold()
        if not is_regular(status):
            continue
        if suffix == ".jsonl" and stem in OWN_NAMES:
            files.append(path)
        elif suffix in TABLE_SUFFIXES:
            if is_wanted(path, with_fields=spec.resolved_template is not None):
                files.append(path)
            else:
                found.unused.append(
                    f"{spell_path(path)}: not used for captions, because its first row does not name the columns "
                    "`file` and `caption`"
                )
    return files


def _read_lines(
    path: Path, base: Path, folder: Path, *, needs_caption: bool
) -> Iterator[tuple[str, Line | str]]:
    """Yield `path:line` and a line, or what is wrong with it."""
    for number, row in read_records(path, FILE_KEYS):
        place = f"{spell_path(path)}:{number}"
        try:
            if isinstance(row, str):
                yield place, row  # what is wrong with it
            else:
                yield place, _parse_line(row, place, base, folder, needs_caption=needs_caption)
        except ValueError as error:
            yield place, str(error)


def _add(found: Metadata, line: Line | str, problems: list[str]) -> None:
    """Add a line to those of its file; what two lines say differently is a problem."""
    if isinstance(line, str):
        problems.append(line)
        return
    before = found.setdefault(line.paths[0], line)
    differing = _find_difference(before, line)
    if differing is None:
        found[line.paths[0]] = _merge(before, line)
        return
    above = before.place
    where = "above" if above.rpartition(":")[0] == line.place.rpartition(":")[0] else f"in {above}"
    problems.append(f"{line.place}: `{line.paths[0]}` has another {differing} {where}; keep one")


def _find_difference(before: Line, line: Line) -> str | None:
    return next(
        (name for name, value in line.fields.items() if before.fields.get(name, value) != value), None
    )


def _merge(before: Line, line: Line) -> Line:
    caption = line.caption if before.caption is None else before.caption
    return replace(before, caption=caption, fields={**line.fields, **before.fields})


def list_unmatched(metadata: Metadata, names: Iterable[str]) -> list[str]:
    """Return a sentence for each line that fits none of the files, and for each table that is not used."""
    unmatched = list(metadata.unused)
    match_lines(metadata, list(names), unmatched)
    return unmatched


def match_lines(metadata: Mapping[str, Line], names: list[str], unmatched: list[str]) -> dict[str, Line]:
    """Lines by the file that each means: as written, or else in other case or Unicode form if one fits.

    Args:
        metadata: from `read_metadata`.
        names: paths of the files that are there.
        unmatched: gets a sentence for each line that fits none of them.

    Raises:
        DatasetError: two lines have different captions for one file.
    """
    exact = set(names)
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(fold_name(name), []).append(name)
    matched: dict[str, Line] = {}
    for line in metadata.values():
        name = next((path for path in line.paths if path in exact), None)
        if name is None:
            near = next((alike[fold_name(path)] for path in line.paths if fold_name(path) in alike), [])
            same = [item for item in near if any(_compose(item) == _compose(path) for path in line.paths)]
            name = same[0] if len(same) == 1 else near[0] if len(near) == 1 else None
        if name is None:
            unmatched.append(line.unmatched)
            continue
        before = matched.setdefault(name, line)
        differing = _find_difference(before, line)
        if differing is not None:
            raise DatasetError(
                f"{line.place}: `{spell_path(name)}` has another {differing} in {before.place}; keep one"
            )
        matched[name] = _merge(before, line)
    return matched


def choose_source(spec: CaptionSpec) -> str | None:
    """Return the source that the spec names; None takes what is there."""
    if spec.source is None and spec.text is not None:
        return "text"
    return spec.source


def _parse_line(
    record: Mapping[str, object], place: str, base: Path, folder: Path, *, needs_caption: bool
) -> Line:
    caption = read_caption(record) if needs_caption or has_caption(record) else None
    name = next((record[key] for key in FILE_KEYS if key in record), None)
    if not isinstance(name, str) or not name:
        raise ValueError("`file_name` is missing; expected the path of an audio file below this folder")
    fields = read_fields(record) if not needs_caption or caption is None else {"caption": caption}
    origin = place.removeprefix(f"{spell_path(folder)}/")
    if origin == place:  # a file elsewhere
        origin = place.rpartition("/")[2]
    return Line(place, origin, name, tuple(dict.fromkeys(_list_paths(name, base, folder))), caption, fields)


def read_fields(record: Mapping[str, object]) -> dict[str, str | float]:
    """Return what a JSON object or a row says about a track, by field."""
    fields: dict[str, str | float] = {}
    for key, given in record.items():
        value = read_value(given)
        if value is not None and key not in FILE_KEYS and key not in CAPTION_KEYS:
            fields.setdefault(name_field(key), value)
    if has_caption(record):
        fields["caption"] = read_caption(record)
    return fields


def _list_paths(name: str, base: Path, folder: Path) -> Iterable[str]:
    """Paths below `folder` that a name in `base` can stand for; a name that stands for none is kept."""
    slashed = name.replace("\\", "/")
    below = base.relative_to(folder).as_posix()
    for spelling in (slashed, name):
        if posixpath.isabs(spelling) or ntpath.splitdrive(spelling)[0]:
            roots = (folder.absolute(), folder.resolve(), base.resolve())
            for root in roots:
                clean = posixpath.normpath(spelling)
                if clean.startswith(f"{root.as_posix()}/"):
                    prefix = below if root == base.resolve() else "."
                    yield posixpath.normpath(posixpath.join(prefix, clean[len(root.as_posix()) + 1 :]))
        else:
            yield posixpath.normpath(posixpath.join(below, spelling))
    yield slashed


def has_caption(document: Any) -> bool:
    """Return whether a document has text under a key of captions; what is no object is left to `read_caption`."""
    if not isinstance(document, dict):
        return True
    return any(isinstance(document.get(key), str) and document[key].strip() for key in CAPTION_KEYS)


def read_caption(record: Any) -> str:
    """Return the caption in a JSON document.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object, found {type(record).__name__}")
    for key in CAPTION_KEYS:
        value = record.get(key)
        if isinstance(value, str) and value.strip():
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise ValueError(f"`{key}` holds half of a character (a lone surrogate); write the whole one")
            return " ".join(value.split())
    raise ValueError(f"no text under any of the keys {', '.join(CAPTION_KEYS)}")


def _compose(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def fold_name(name: str) -> str:
    """Return what a name has in common with others of another case or Unicode form."""
    return _compose(_compose(name).casefold())


def shorten(lines: list[str]) -> list[str]:
    """Return at most ten lines, and how many more there are."""
    n_more = len(lines) - N_LISTED
    return lines if n_more <= 0 else [*lines[:N_LISTED], f"  and {n_more} more"]
