"""Tracks that stay on one side of the split: those of one album, artist, folder or column, and near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from lora_bench.artifacts import NearDuplicate
from lora_bench.errors import DatasetError
from lora_bench.progress import Progress
from lora_bench.slugs import spell_path
from lora_bench.spec.schema import DatasetSpec, SplitSpec
from lora_bench.stages.dataset.composing import Fields
from lora_bench.stages.dataset.field_names import name_field
from lora_bench.stages.dataset.metadata import match_lines, read_metadata
from lora_bench.stages.dataset.near_duplicates import find_near_duplicates, group_pairs, read_fingerprint
from lora_bench.store import Store

N_AT_ONCE = 64
"""Tracks whose tags are read together."""


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
    values = {} if split.by == "track" else dict(_read_values(folder, spec, list(hashes)))
    if split.by != "track" and not values:
        raise _describe_none(folder, split)
    firsts: dict[str, str] = {}
    pairs = [(hashes[path], hashes[firsts.setdefault(value, path)]) for path, value in sorted(values.items())]
    if is_together and near:
        by_source = {spell_path(path): content_hash for path, content_hash in hashes.items()}
        pairs += [(by_source[pair.first], by_source[pair.second]) for pair in near]
    return dict(group_pairs(list(hashes.values()), pairs))


def check_groups(folder: Path, spec: DatasetSpec, paths: Sequence[str]) -> None:
    """Check that some track of a folder has what the spec splits by; files are read until one has it.

    Raises:
        DatasetError: none has it.
    """
    if spec.split.by != "track" and next(_read_values(folder, spec, paths), None) is None:
        raise _describe_none(folder, spec.split)


def _read_values(folder: Path, spec: DatasetSpec, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what the split is by, and the path, of every track that has it."""
    split = spec.split
    if split.by == "folder":
        values = ((path, PurePosixPath(path).parent.as_posix()) for path in paths)
        yield from ((path, value) for path, value in values if value != ".")
        return
    name = name_field(split.column if split.by == "column" and split.column is not None else split.by)
    captions = spec.captions.model_copy(update={"template": f"{{{name}}}", "text": None, "command": None})
    fields = Fields(folder, captions, match_lines(read_metadata(folder, captions), list(paths), []))
    for first in range(0, len(paths), N_AT_ONCE):
        for track in fields.gather(paths[first : first + N_AT_ONCE], ()):
            if name in track.fields:
                yield track.path, str(track.fields[name].value).casefold()


def _describe_none(folder: Path, split: SplitSpec) -> DatasetError:
    place = spell_path(folder)
    if split.by == "folder":
        return DatasetError(
            f"dataset.split.by: every track of {place} lies in the dataset's own folder; expected tracks in folders; "
            "put those that belong together into one, or split by track"
        )
    name, where = split.by, "tags, or a column in captions.csv"
    if split.by == "column":
        name, where = name_field(split.column or ""), "a column of this name in captions.csv"
    return DatasetError(
        f"dataset.split.by: no track of {place} has `{name}`; expected {where}; add it, or split by track or folder"
    )
