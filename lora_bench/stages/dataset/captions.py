"""The training text of each file: one fixed text, `metadata.jsonl`, or sidecar files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.spec.schema import CaptionSpec
from lora_bench.stages.dataset.caption_files import read_json_text, read_text
from lora_bench.stages.dataset.metadata import (
    METADATA_NAME,
    Line,
    choose_source,
    fold_name,
    list_unmatched,
    match_lines,
    read_caption,
    read_metadata,
    shorten,
)

__all__ = ["CaptionSearch", "find_captions", "list_unmatched", "read_metadata", "search_captions"]

HOW_TO_CAPTION = (
    "give each a `song.txt` or `song.json` beside `song.wav`, or a line "
    '{"file_name": "song.wav", "caption": "..."} in metadata.jsonl, or one text for all in '
    "dataset.captions.text"
)


class NoCaptionError(Exception):
    """One file has no caption; the message says what was looked for."""


class CaptionFileError(NoCaptionError):
    """One file's caption is there, but cannot be used."""


@dataclass
class CaptionSearch:
    """What was found for a set of files.

    Attributes:
        captions: by path relative to the folder.
        missing: files without a caption, with what was looked for.
        unusable: files whose caption cannot be used, with the reason.
        unmatched: lines of `metadata.jsonl` that fit no file.
    """

    captions: dict[str, str] = field(default_factory=dict[str, str])
    missing: dict[str, str] = field(default_factory=dict[str, str])
    unusable: dict[str, str] = field(default_factory=dict[str, str])
    unmatched: list[str] = field(default_factory=list[str])


def find_captions(
    folder: Path,
    sources: Iterable[str],
    spec: CaptionSpec,
    metadata: Mapping[str, Line],
    others: Iterable[str] = (),
) -> dict[str, str]:
    """Return the caption of every source (path relative to `folder`).

    Fixed text comes first, then metadata, then sidecars, unless `spec.source` names one.

    Args:
        folder: of the dataset.
        sources: files that need a caption.
        spec: where captions come from.
        metadata: from `read_metadata`.
        others: files that are there and need none.

    Raises:
        DatasetError: files without a caption; up to 10 are listed, each with what was looked for, after the
            lines of metadata that fit no file.
    """
    found = search_captions(folder, sources, spec, metadata, others)
    problems = [
        f"  {spell_path(name)}: {error}" for name, error in sorted((found.missing | found.unusable).items())
    ]
    if problems:
        n_files = len(problems) + len(found.captions)
        unmatched = [f"  {text}" for text in found.unmatched]
        raise DatasetError(
            f"{spell_path(folder)}: {len(problems)} of {n_files} files have no caption; {HOW_TO_CAPTION}\n"
            + "\n".join([*shorten(unmatched), *shorten(problems)])
        )
    return found.captions


def search_captions(
    folder: Path,
    sources: Iterable[str],
    spec: CaptionSpec,
    metadata: Mapping[str, Line],
    others: Iterable[str] = (),
) -> CaptionSearch:
    """Look for the captions of files; arguments as of `find_captions`.

    Raises:
        DatasetError: two lines of metadata have different captions for one file.
    """
    found = CaptionSearch()
    names = list(sources)
    by_name = match_lines(metadata, [*names, *others], found.unmatched)
    sidecars = _Sidecars()
    wanted = choose_source(spec)
    for name in names:
        try:
            if wanted == "text" and spec.text is not None:
                found.captions[name] = spec.text
            elif name in by_name:
                found.captions[name] = by_name[name].caption
            elif wanted == "metadata":
                found.missing[name] = f"no line of {METADATA_NAME} has this file_name"
            else:
                found.captions[name] = sidecars.read(folder / name)
        except CaptionFileError as error:
            found.unusable[name] = str(error)
        except NoCaptionError as error:
            found.missing[name] = str(error)
    return found


class _Sidecars:
    """`song.txt` or `song.json` next to `song.wav`; folders are listed once, if exact names are not there."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def read(self, audio: Path) -> str:
        """Return the caption of an audio file.

        Raises:
            NoCaptionError: there is none.
        """
        text, document = audio.with_suffix(".txt"), audio.with_suffix(".json")
        for wanted, parse in ((text, _parse_text), (document, _parse_document)):
            path = self._find(wanted)
            if path is None:
                continue
            try:
                caption = parse(read_text(path))
            except DatasetError as error:  # has the file's name
                raise CaptionFileError(str(error)) from error
            except ValueError as error:
                raise CaptionFileError(f"{spell_path(path.name)}: {error}") from error
            if not caption:
                raise CaptionFileError(f"{spell_path(path.name)} is empty")
            return caption
        raise NoCaptionError(f"no {spell_path(text.name)} or {spell_path(document.name)}")

    def _find(self, wanted: Path) -> Path | None:
        if wanted.is_file():
            return wanted
        if wanted.parent not in self._listed:
            listed = self._listed[wanted.parent] = {}
            for path in wanted.parent.iterdir() if wanted.parent.is_dir() else ():
                if path.suffix.lower() in {".txt", ".json"} and path.is_file():
                    listed.setdefault(fold_name(path.name), []).append(path)
        near = self._listed[wanted.parent].get(fold_name(wanted.name), [])
        return near[0] if len(near) == 1 else None


def _parse_text(text: str) -> str:
    return " ".join(text.split())


def _parse_document(text: str) -> str:
    return read_caption(read_json_text(text))
