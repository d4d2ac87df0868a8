"""The training text of each file: one fixed text, lines of tables, or sidecar files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.spec.captions import CaptionSpec
from lora_bench.stages.dataset.metadata import (
    METADATA_NAME,
    Metadata,
    choose_source,
    list_unmatched,
    match_lines,
    read_metadata,
    shorten,
)
from lora_bench.stages.dataset.sidecars import CaptionFileError, NoCaptionError, Sidecars

__all__ = ["CaptionSearch", "find_captions", "list_unmatched", "read_metadata", "search_captions"]

HOW_TO_CAPTION = (
    "give each a `song.txt` or `song.json` beside `song.wav`, or a line "
    '{"file_name": "song.wav", "caption": "..."} in metadata.jsonl, or a row in captions.csv (columns `file` and '
    "`caption`), or one text for all in dataset.captions.text"
)


@dataclass
class CaptionSearch:
    """What was found for a set of files.

    Attributes:
        captions: by path relative to the folder.
        origins: where each was found, by path relative to the folder.
        missing: files without a caption, with what was looked for.
        unusable: files whose caption cannot be used, with the reason.
        unmatched: lines of metadata that fit no file, and tables that are not used.
    """

    captions: dict[str, str] = field(default_factory=dict[str, str])
    origins: dict[str, str] = field(default_factory=dict[str, str])
    missing: dict[str, str] = field(default_factory=dict[str, str])
    unusable: dict[str, str] = field(default_factory=dict[str, str])
    unmatched: list[str] = field(default_factory=list[str])


def find_captions(
    folder: Path,
    sources: Iterable[str],
    spec: CaptionSpec,
    metadata: Metadata,
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
    return check_captions(folder, search_captions(folder, sources, spec, metadata, others)).captions


def check_captions(folder: Path, found: CaptionSearch) -> CaptionSearch:
    """Return what was found if every file has a caption.

    Raises:
        DatasetError: as `find_captions`.
    """
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
    return found


def search_captions(
    folder: Path,
    sources: Iterable[str],
    spec: CaptionSpec,
    metadata: Metadata,
    others: Iterable[str] = (),
) -> CaptionSearch:
    """Look for the captions of files; arguments as of `find_captions`.

    Raises:
        DatasetError: two lines of metadata have different captions for one file.
    """
    found = CaptionSearch(unmatched=list(metadata.unused))
    names = list(sources)
    by_name = match_lines(metadata, [*names, *others], found.unmatched)
    sidecars = Sidecars()
    wanted = choose_source(spec)
    for name in names:
        try:
            if wanted == "text" and spec.text is not None:
                caption, origin = spec.text, "dataset.captions.text"
            elif name in by_name and (written := by_name[name].caption) is not None:
                caption, origin = written, by_name[name].origin
            elif wanted == "metadata":
                found.missing[name] = f"no line of {METADATA_NAME} has this file_name"
                continue
            else:
                sidecar = sidecars.read(folder / name)
                caption, origin = str(sidecar.value), sidecar.origin
            found.captions[name] = add_trigger(caption, spec.trigger)
            found.origins[name] = origin
        except CaptionFileError as error:
            found.unusable[name] = str(error)
        except NoCaptionError as error:
            found.missing[name] = str(error)
    return found


def add_trigger(caption: str, trigger: str | None) -> str:
    """Return a caption that begins with the trigger word, unless it holds the word already."""
    if trigger is None or trigger.casefold() in caption.casefold():
        return caption
    return f"{trigger}, {caption}"
