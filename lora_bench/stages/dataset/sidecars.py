"""Captions in files next to the recordings: `song.txt` or `song.json` next to `song.wav`."""

from __future__ import annotations

from pathlib import Path

from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.stages.dataset.field_names import Value
from lora_bench.stages.dataset.metadata import fold_name, read_caption, read_fields
from lora_bench.text.files import read_json_text, read_text


class NoCaptionError(Exception):
    """One file has no caption; the message says what was looked for."""


class CaptionFileError(NoCaptionError):
    """One file's caption is there, but cannot be used."""


class Sidecars:
    """`song.txt` or `song.json` next to `song.wav`; folders are listed once, if exact names are not there."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def read(self, audio: Path) -> Value:
        """Return the caption of an audio file, and the sidecar's name.

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
            return Value(caption, spell_path(path.name))
        raise NoCaptionError(f"no {spell_path(text.name)} or {spell_path(document.name)}")

    def read_fields(self, audio: Path) -> dict[str, Value]:
        """Return the fields of `song.json`, and the caption of `song.txt`, which comes first.

        Raises:
            DatasetError: a file cannot be read.
        """
        fields: dict[str, Value] = {}
        text, document = self._find(audio.with_suffix(".txt")), self._find(audio.with_suffix(".json"))
        if text is not None and (caption := _parse_text(read_text(text))):
            fields["caption"] = Value(caption, spell_path(text.name))
        if document is not None:
            try:
                record = read_json_text(read_text(document))
            except ValueError as error:
                raise DatasetError(
                    f"{spell_path(document)}: {error}; correct the file, or move it away"
                ) from error
            found = read_fields(record) if isinstance(record, dict) else {}
            for name, value in found.items():
                fields.setdefault(name, Value(value, spell_path(document.name)))
        return fields

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
