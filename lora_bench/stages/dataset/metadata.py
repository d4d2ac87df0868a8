"""Captions in `metadata.jsonl`: its lines, and the file that each of them means."""

from __future__ import annotations

import ntpath
import posixpath
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_bench.audio.folder_walk import is_regular, walk_folder
from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.spec.schema import CaptionSpec
from lora_bench.stages.dataset.caption_files import read_json_text, read_text, split_lines

METADATA_NAME = "metadata.jsonl"
CAPTION_KEYS = ("caption", "text", "description")
N_LISTED = 10


@dataclass(frozen=True)
class Line:
    """One line of a `metadata.jsonl`.

    Attributes:
        place: `path:line`.
        name: the `file_name` as written.
        paths: paths relative to the dataset's folder that the name can stand for, the likeliest first.
    """

    place: str
    name: str
    paths: tuple[str, ...]
    caption: str

    @property
    def unmatched(self) -> str:
        """What to say where no file has this name."""
        return (
            f"{self.place}: there is no audio file {spell_path(self.name)} (`file_name` is relative to the "
            f"folder of {METADATA_NAME})"
        )


def read_metadata(folder: Path, spec: CaptionSpec) -> Mapping[str, Line]:
    """Lines of every `metadata.jsonl` in `folder` by path; empty where the spec does not want them.

    Raises:
        DatasetError: the file is wanted and missing, or lines of it are wrong (up to 10 are listed).
    """
    if choose_source(spec) == "text" or spec.source == "sidecar":
        return {}
    files = [
        path
        for path, status in walk_folder(folder).files
        if path.name.casefold() == METADATA_NAME and is_regular(status)
    ]
    if not files and spec.source == "metadata":
        raise DatasetError(
            f"{spell_path(folder / METADATA_NAME)}: does not exist, but dataset.captions.source is "
            '`metadata`; expected one line {"file_name": "song.wav", "caption": "..."} per file'
        )
    lines: dict[str, Line] = {}
    problems: list[str] = []
    for path in files:
        for number, text in enumerate(split_lines(read_text(path)), start=1):
            if not text.strip():
                continue
            place = f"{spell_path(path)}:{number}"
            try:
                line = _parse_line(text, place, path.parent, folder)
            except ValueError as error:
                problems.append(f"{place}: {error}")
                continue
            if lines.setdefault(line.paths[0], line).caption != line.caption:
                above = lines[line.paths[0]].place
                where = "above" if above.rpartition(":")[0] == spell_path(path) else f"in {above}"
                problems.append(f"{place}: `{line.paths[0]}` has another caption {where}; keep one")
    if problems:
        raise DatasetError("\n".join(shorten(problems)))
    return lines


def list_unmatched(metadata: Mapping[str, Line], names: Iterable[str]) -> list[str]:
    """Return a sentence for each line that fits none of the files."""
    unmatched: list[str] = []
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
        elif matched.setdefault(name, line).caption != line.caption:
            raise DatasetError(
                f"{line.place}: `{spell_path(name)}` has another caption in {matched[name].place}; keep one"
            )
    return matched


def choose_source(spec: CaptionSpec) -> str | None:
    """Return the source that the spec names; None takes what is there."""
    if spec.source is None and spec.text is not None:
        return "text"
    return spec.source


def _parse_line(text: str, place: str, base: Path, folder: Path) -> Line:
    record = read_json_text(text)
    caption = read_caption(record)
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError("`file_name` is missing; expected the path of an audio file below this folder")
    return Line(place, name, tuple(dict.fromkeys(_list_paths(name, base, folder))), caption)


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
