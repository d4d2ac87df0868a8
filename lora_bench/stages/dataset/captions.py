"""The training text of each file: one fixed text, `metadata.jsonl`, or sidecar files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lora_bench.errors import DatasetError
from lora_bench.spec.schema import CaptionSpec

METADATA_NAME = "metadata.jsonl"
CAPTION_KEYS = ("caption", "text", "description")
N_LISTED = 10

HOW_TO_CAPTION = (
    "give each a `song.txt` or `song.json` beside `song.wav`, or a line "
    '{"file_name": "song.wav", "caption": "..."} in metadata.jsonl, or one text for all in '
    "dataset.captions.text"
)


class _NoCaptionError(Exception):
    """One file has no caption; the message says what was looked for."""


def read_metadata(folder: Path, spec: CaptionSpec) -> Mapping[str, str]:
    """Captions of `folder/metadata.jsonl` by relative path; empty where the spec does not want it.

    Raises:
        DatasetError: the file is wanted and missing, or lines of it are wrong (up to 10 are listed).
    """
    if _choose_source(spec) == "text" or spec.source == "sidecar":
        return {}
    path = folder / METADATA_NAME
    if not path.is_file():
        if spec.source == "metadata":
            raise DatasetError(
                f"{path}: does not exist, but dataset.captions.source is `metadata`; expected one line "
                '{"file_name": "song.wav", "caption": "..."} per file'
            )
        return {}
    captions: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            name, caption = _parse_line(line)
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        if captions.setdefault(name, caption) != caption:
            problems.append(f"{path}:{number}: `{name}` has another caption above; keep one")
    if problems:
        raise DatasetError("\n".join(_shorten(problems)))
    return captions


def find_captions(
    folder: Path, sources: Iterable[str], spec: CaptionSpec, metadata: Mapping[str, str]
) -> dict[str, str]:
    """The caption of every source (path relative to `folder`).

    Fixed text comes first, then metadata, then sidecars, unless `spec.source` names one.

    Raises:
        DatasetError: files without a caption; up to 10 are listed, each with what was looked for.
    """
    captions: dict[str, str] = {}
    problems: list[str] = []
    for source in sources:
        try:
            captions[source] = _find_caption(folder, source, spec, metadata)
        except _NoCaptionError as error:
            problems.append(f"  {source}: {error}")
    if problems:
        n_files = len(problems) + len(captions)
        raise DatasetError(
            f"{folder}: {len(problems)} of {n_files} files have no caption; {HOW_TO_CAPTION}\n"
            + "\n".join(_shorten(problems))
        )
    return captions


def _choose_source(spec: CaptionSpec) -> str | None:
    if spec.source is None and spec.text is not None:
        return "text"
    return spec.source


def _find_caption(folder: Path, source: str, spec: CaptionSpec, metadata: Mapping[str, str]) -> str:
    wanted = _choose_source(spec)
    if wanted == "text" and spec.text is not None:
        return spec.text
    if source in metadata:
        return metadata[source]
    if wanted == "metadata":
        raise _NoCaptionError(f"no line of {METADATA_NAME} has this file_name")
    return _read_sidecar(folder / source)


def _read_sidecar(audio: Path) -> str:
    text, document = audio.with_suffix(".txt"), audio.with_suffix(".json")
    try:
        if text.is_file():
            caption = " ".join(_read_text(text).split())
            if not caption:
                raise _NoCaptionError(f"{text.name} is empty")
            return caption
        if document.is_file():
            return _caption_of(json.loads(_read_text(document)))
    except (ValueError, DatasetError) as error:
        raise _NoCaptionError(f"{document.name if not text.is_file() else text.name}: {error}") from error
    raise _NoCaptionError(f"no {text.name} or {document.name}")


def _parse_line(line: str) -> tuple[str, str]:
    record = json.loads(line)
    caption = _caption_of(record)
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError("`file_name` is missing; expected the path of an audio file below this folder")
    return PurePosixPath(name.replace("\\", "/")).as_posix(), caption


def _caption_of(record: Any) -> str:
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object, found {type(record).__name__}")
    for key in CAPTION_KEYS:
        value = record.get(key)
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())
    raise ValueError(f"no text under any of the keys {', '.join(CAPTION_KEYS)}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error


def _shorten(lines: list[str]) -> list[str]:
    n_more = len(lines) - N_LISTED
    return lines if n_more <= 0 else [*lines[:N_LISTED], f"  and {n_more} more"]
