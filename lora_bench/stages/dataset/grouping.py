"""Tracks that stay on one side of the split: those of one album, artist, folder or column, and near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from lora_bench.artifacts import NearDuplicate
from lora_bench.errors import DatasetError
from lora_bench.progress import Progress
from lora_bench.slugs import spell_path
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.dataset.composing import Fields
from lora_bench.stages.dataset.field_names import name_field
from lora_bench.stages.dataset.metadata import match_lines, read_metadata
from lora_bench.stages.dataset.near_duplicates import find_near_duplicates, group_pairs, read_fingerprint
from lora_bench.store import Store


def search_near_duplicates(
    folder: Path, hashes: Mapping[str, str], store: Store, progress: Progress
) -> list[tuple[str, str, float]]:
    """Return pairs of paths of recordings of the same music, and the correlation of their spectra.

    Args:
        folder: of the dataset.
        hashes: content hash of each file, by its path relative to `folder`.
        store: keeps fingerprints.
        progress: told about recordings.

    Raises:
        AudioFileError: a file cannot be decoded.
        StoreError: the disk is full.
    """
    paths = sorted(hashes, key=lambda path: hashes[path])
    progress.start("fingerprints", len(paths))
    fingerprints = []
    for path in paths:
        fingerprints.append(read_fingerprint(folder / path, hashes[path], store))
        progress.advance(note=path)
    progress.start("near-duplicates")
    return [
        (paths[pair.first], paths[pair.second], pair.correlation)
        for pair in find_near_duplicates(fingerprints)
    ]


def name_groups(
    folder: Path, spec: DatasetSpec, hashes: Mapping[str, str], near: list[NearDuplicate] | None
) -> dict[str, str] | None:
    """Return the group of each content that stays on one side; None if each is on its own.

    A track without an album (or artist and so on) is on its own, and so is a track that lies in no folder.

    Raises:
        DatasetError: no track has what the spec splits by.
    """
    split = spec.split
    is_together = split.near_duplicates == "together" and near
    if split.by == "track" and not is_together:
        return None
    values = {} if split.by == "track" else _read_values(folder, spec, list(hashes))
    firsts: dict[str, str] = {}
    pairs = [(hashes[path], hashes[firsts.setdefault(value, path)]) for path, value in sorted(values.items())]
    if is_together and near:
        by_source = {spell_path(path): content_hash for path, content_hash in hashes.items()}
        pairs += [(by_source[pair.first], by_source[pair.second]) for pair in near]
    return dict(group_pairs(list(hashes.values()), pairs))


def _read_values(folder: Path, spec: DatasetSpec, paths: list[str]) -> dict[str, str]:
    """Return what the split is by, for every track that has it."""
    split = spec.split
    if split.by == "folder":
        values = {path: PurePosixPath(path).parent.as_posix() for path in paths}
        return {path: value for path, value in values.items() if value != "."}
    name = name_field(split.column if split.by == "column" and split.column is not None else split.by)
    captions = spec.captions.model_copy(update={"template": f"{{{name}}}", "text": None, "command": None})
    fields = Fields(folder, captions, match_lines(read_metadata(folder, captions), paths, []))
    found = {track.path: track.fields[name] for track in fields.gather(paths, ()) if name in track.fields}
    if not found:
        place = (
            "a column of this name in captions.csv"
            if split.by == "column"
            else "tags, or a column in captions.csv"
        )
        raise DatasetError(
            f"dataset.split.by: no track of {spell_path(folder)} has `{name}`; expected {place}; add it, or split by "
            "track or folder"
        )
    return {path: str(value.value).casefold() for path, value in found.items()}
