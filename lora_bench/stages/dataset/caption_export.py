"""The captions and fields of a folder as a file that people edit and a spec reads back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.audio import Listing, list_folder, read_header
from lora_bench.errors import AudioFileError
from lora_bench.progress import Progress
from lora_bench.slugs import spell_path
from lora_bench.spec.caption_template import parse_template
from lora_bench.spec.captions import CaptionSpec
from lora_bench.stages.dataset.captions import add_trigger, search_captions
from lora_bench.stages.dataset.composing import Described, Fields, check_fields, compose
from lora_bench.stages.dataset.field_names import name_field
from lora_bench.stages.dataset.metadata import list_unmatched, match_lines, read_metadata
from lora_bench.store import Store, hash_file, write_text

DEFAULT_TEMPLATE = "{genre}, {mood}, {bpm:.0f} bpm, {key}, {instruments}"
LISTED_FIELDS = ("title", "artist", "album", "genre", "mood", "instruments", "bpm", "key")


@dataclass(frozen=True)
class Written:
    """A track with its caption; `fields` are what is known, `origins` where each is from, by field."""

    file: str
    caption: str
    fields: Mapping[str, str | float]
    origins: Mapping[str, str]


@dataclass(frozen=True)
class Captions:
    """The captions of a folder.

    Attributes:
        tracks: in the order of the files.
        left_out: files that cannot be read, with the reason.
        notes: lines of tables without a file, tables that are not used, tags that cannot be read.
    """

    tracks: tuple[Written, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


def describe_folder(folder: Path, spec: CaptionSpec, store: Store, progress: Progress) -> Captions:
    """Return the caption of every track of a folder, with the fields that the template names and the usual ones.

    Without a template, a track keeps the caption that is written for it; others get one by `DEFAULT_TEMPLATE`.

    Raises:
        DatasetError: a source of captions cannot be used.
    """
    listing = list_folder(folder)
    paths, left_out = _list_tracks(listing)
    template = parse_template(spec.resolved_template or DEFAULT_TEMPLATE)
    written: Mapping[str, str] = {}
    origins: Mapping[str, str] = {}
    others = [*(path.relative_to(folder).as_posix() for path in listing.files), *listing.dropped]
    with_fields = spec.model_copy(
        update={"template": spec.resolved_template or DEFAULT_TEMPLATE, "text": None}
    )
    metadata = read_metadata(folder, with_fields)
    if spec.resolved_template is None:
        found = search_captions(folder, paths, spec, metadata, others)
        written, origins = found.captions, found.origins
    progress.start("captions", len(paths))
    hashes = {path: hash_file(folder / path) for path in paths}
    fields = Fields(folder, with_fields, match_lines(metadata, [*paths, *others], []), store, hashes)
    wanted = [name_field(name) for name in template.fields]
    measured = [path for path in paths if path not in written]
    described = fields.gather(measured, wanted, lambda path: progress.advance(note=path))
    described += fields.gather([path for path in paths if path in written], (), lambda _: progress.advance())
    check_fields(template, described, spec.measure)
    by_path = {track.path: track for track in described}
    tracks: list[Written] = []
    for path in paths:
        track = by_path[path]
        text, sources = (
            (written[path], {"caption": origins[path]}) if path in written else compose(template, track)
        )
        trigger = None if path in written or "trigger" in template.fields else spec.trigger
        tracks.append(_list_fields(track, add_trigger(text, trigger) if text else "", sources, wanted))
    return Captions(tuple(tracks), left_out, (*list_unmatched(metadata, others), *fields.notes))


def _list_tracks(listing: Listing) -> tuple[list[str], dict[str, str]]:
    """Return the files that can be read by their path, and the reasons for the others."""
    paths: list[str] = []
    left_out = dict(listing.dropped)
    for path in listing.files:
        try:
            read_header(path)
        except AudioFileError as error:
            left_out[listing.name(path)] = error.reason
        else:
            paths.append(path.relative_to(listing.folder).as_posix())
    return paths, left_out


def _list_fields(
    track: Described, caption: str, sources: Mapping[str, str], wanted: Sequence[str]
) -> Written:
    names = [
        name
        for name in dict.fromkeys((*LISTED_FIELDS, *wanted))
        if name in track.fields and name != "caption"
    ]
    origins = {**sources, **{name: track.fields[name].origin for name in names}}
    return Written(track.path, caption, {name: track.fields[name].value for name in names}, origins)


def write_captions(path: Path, tracks: Sequence[Written]) -> None:
    """Write tracks as jsonl if the file's suffix says so, else as csv with a byte order mark, which Excel needs.

    Raises:
        StoreError: the disk is full.
    """
    names = list(dict.fromkeys(name for track in tracks for name in track.fields))
    if path.suffix.lower() == ".jsonl":
        lines = (
            {
                "file_name": spell_path(track.file),
                "caption": track.caption,
                **track.fields,
                "from": track.origins,
            }
            for track in tracks
        )
        write_text(path, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
        return
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", lineterminator="\n")
    writer.writerow(["file", "caption", *names, "from"])
    for track in tracks:
        cells = [_write_cell(track.fields.get(name)) for name in names]
        origins = "; ".join(f"{name}: {origin}" for name, origin in track.origins.items())
        writer.writerow([spell_path(track.file), track.caption, *cells, origins])
    write_text(path, f"\ufeff{table.getvalue()}")


def _write_cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:g}"
