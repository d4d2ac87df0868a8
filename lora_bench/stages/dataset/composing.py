"""Captions by a template: gather the fields of each track, each from the best source that has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.spec.caption_template import CaptionTemplate, FieldFormatError
from lora_bench.spec.captions import CaptionSpec, Measured
from lora_bench.spec.words import suggest
from lora_bench.stages.dataset.caption_command import ask_command
from lora_bench.stages.dataset.captioner import ask_captioner
from lora_bench.stages.dataset.field_names import KNOWN_FIELDS, MEASURED_FIELDS, Value, name_field
from lora_bench.stages.dataset.file_tags import read_tags
from lora_bench.stages.dataset.measured import Measurements
from lora_bench.stages.dataset.metadata import Line, shorten
from lora_bench.stages.dataset.sidecars import Sidecars
from lora_bench.store import Store

N_READERS = 4


@dataclass(frozen=True)
class Described:
    """A track with what is known about it.

    Attributes:
        path: relative to the dataset's folder.
        fields: by name.
    """

    path: str
    fields: Mapping[str, Value]


@dataclass
class Fields:
    """Gathers the fields of tracks, from the best source to the last.

    Attributes:
        folder: of the dataset.
        spec: the section of the spec.
        lines: of csv and metadata files, by path.
        store: keeps what commands and measurements say; None leaves these out.
        hashes: content hash of each file that is measured, by path.
        notes: remarks about files whose tags cannot be read, and answers of a captioner that are kept ones.
    """

    folder: Path
    spec: CaptionSpec
    lines: Mapping[str, Line]
    store: Store | None = None
    hashes: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._sidecars = Sidecars()
        self._told: Mapping[str, Mapping[str, Value]] = {}

    def gather(
        self, paths: Iterable[str], wanted: Iterable[str], advance: Callable[[str], None] = lambda _: None
    ) -> list[Described]:
        """Return what is known about each track; only `wanted` fields are measured.

        Raises:
            DatasetError: a sidecar or the answer of a command or a captioner cannot be used, or musicnn is missing.
        """
        paths = list(paths)
        if self.spec.captioner is not None and self.store is not None:
            hashes = {path: self.hashes[path] for path in paths}
            self._told, remarks = ask_captioner(self.spec, self.folder, hashes, self.store)
            self.notes += remarks
        with ThreadPoolExecutor(
            N_READERS
        ) as pool:  # reading waits for the disk; results are in the order of paths
            written = list(pool.map(self._read_written, paths))
        names = frozenset(wanted)
        described: list[Described] = []
        for path, fields in zip(paths, written, strict=True):
            described.append(Described(path, self._add_measured(path, fields, names)))
            advance(path)
        return described

    def _read_written(self, path: str) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        if path in self.lines:
            line = self.lines[path]
            _add(fields, {name: Value(value, line.origin) for name, value in line.fields.items()})
        if self.spec.source != "metadata":
            _add(fields, self._sidecars.read_fields(self.folder / path))
        if self.spec.command is not None and self.store is not None:
            _add(fields, ask_command(self.spec.command, self.folder / path, self.hashes[path], self.store))
        _add(fields, self._told.get(path, {}))
        try:
            _add(fields, read_tags(self.folder / path))
        except DatasetError as error:
            self.notes.append(str(error))
        _add(fields, self._name_folders(path))
        return fields

    def _name_folders(self, path: str) -> dict[str, Value]:
        pure = PurePosixPath(spell_path(path))
        folders = [" ".join(part.replace("_", " ").split()) for part in pure.parts[:-1]]
        fields = {
            name: Value(folder, "folder")
            for name, folder in zip(self.spec.folders, folders, strict=False)
            if folder
        }
        if folders and folders[-1]:
            fields["folder"] = Value(folders[-1], "folder")
        fields["name"] = Value(" ".join(pure.stem.replace("_", " ").split()) or pure.stem, "file name")
        if self.spec.trigger is not None:
            fields["trigger"] = Value(self.spec.trigger, "dataset.captions.trigger")
        return fields

    def _add_measured(self, path: str, fields: dict[str, Value], wanted: frozenset[str]) -> dict[str, Value]:
        if self.store is None:
            return fields
        kinds: list[Measured] = [
            kind for kind in self.spec.measure if (wanted & set(MEASURED_FIELDS[kind])) - set(fields)
        ]
        if kinds:
            measured = Measurements(self.store).measure(self.folder / path, self.hashes[path], kinds)
            _add(fields, {name: value for name, value in measured.items() if name in wanted})
        return fields


def _add(fields: dict[str, Value], more: Mapping[str, Value]) -> None:
    for name, value in more.items():
        fields.setdefault(name, value)


def check_fields(
    template: CaptionTemplate, described: Iterable[Described], measure: Iterable[Measured]
) -> None:
    """Refuse a field that no track has and nothing gives.

    Raises:
        DatasetError: names the fields, and those that tracks have.
    """
    measured = {name for kind in measure for name in MEASURED_FIELDS[kind]}
    known = {name for track in described for name in track.fields} | measured
    unknown = [name for name in template.fields if name_field(name) not in {*known, *KNOWN_FIELDS}]
    if unknown:
        near = suggest(unknown[0], [*known, *KNOWN_FIELDS])
        raise DatasetError(
            f"dataset.captions.template: no track has the field `{unknown[0]}`{near or '.'} Tracks have "
            f"{', '.join(sorted(known))}. Correct the name, or add a column of this name to captions.csv"
        )


def compose(template: CaptionTemplate, track: Described) -> tuple[str, dict[str, str]]:
    """Return a track's caption, and the origin of each of its fields.

    Raises:
        DatasetError: a value is not the number that the template asks for.
    """
    values = {
        name: track.fields[key].value for name in template.fields if (key := name_field(name)) in track.fields
    }
    try:
        text = template.render(values)
    except FieldFormatError as error:
        origin = track.fields[name_field(error.name)].origin
        raise DatasetError(
            f"{spell_path(track.path)}: {error} (from {origin}); correct the value there, or write "
            f"`{{{error.name}}}` in dataset.captions.template"
        ) from error
    return text, {name: track.fields[name_field(name)].origin for name in values}


def list_empty(template: CaptionTemplate, empty: list[str], n_tracks: int) -> DatasetError:
    """Return the error about tracks whose caption says nothing."""
    lines = "\n".join(shorten([f"  {spell_path(path)}" for path in empty]))
    names = ", ".join(f"`{name}`" for name in template.fields)
    return DatasetError(
        f"dataset.captions.template: {len(empty)} of {n_tracks} tracks have an empty caption, because fields are "
        f"missing in every part of it ({names}); add them to captions.csv, or put what may be missing in brackets: "
        f"`my genre[, {{mood}}]`\n{lines}"
    )
