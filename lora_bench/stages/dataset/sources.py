"""Where the recordings of a dataset come from; every source becomes a folder, which is read like the user's own.

A folder of recordings is used as it is.  Lists are linked, and archives, tables and shards unpacked, in the cache.
Datasets on the hub are fetched into the hub's cache, and those of plug-ins written into ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lora_bench.audio import list_folder
from lora_bench.audio.folder_walk import walk_folder
from lora_bench.errors import DatasetError
from lora_bench.progress import Progress
from lora_bench.slugs import spell_path
from lora_bench.spec.data_sources import EXPECTED, HUB, find_kind
from lora_bench.spec.sides import MIN_TRACKS
from lora_bench.stages.dataset import archives
from lora_bench.stages.dataset.audio_tables import TABLE_SUFFIXES, count_rows, unpack_table
from lora_bench.stages.dataset.source_plugin import PluginTracks
from lora_bench.stages.dataset.track_lists import link_list, read_list
from lora_bench.stages.dataset.unpacked_folder import UnpackedFolder
from lora_bench.store import Store, hash_file, hash_json

SOURCES_VERSION = 1
"""Part of the cache key; raise it when the same source becomes another folder."""


def check_source(path: Path, settings: Mapping[str, Any] = {}) -> None:
    """Check that a source is there, so that a missing one is told before a model is loaded.

    Args:
        path: of a dataset.
        settings: of a plug-in.

    Raises:
        DatasetError: it is not, or it is no source.
        SpecError: the settings are not those of the plug-in.
    """
    kind = find_kind(path)
    if kind == "plugin":
        PluginTracks(path, settings)
        return
    if kind == "hub" or (kind == "folder" and path.is_dir()) or (kind != "folder" and path.is_file()):
        return
    found = "is a file" if path.exists() else "does not exist"
    raise DatasetError(
        f"dataset.path: {spell_path(path)} {found}; expected a folder of at least {MIN_TRACKS} recordings of the "
        "genre (wav, flac, ogg, opus, mp3 or m4a, at any depth); put them there or change dataset.path"
        + (f" (or {EXPECTED})" if path.exists() else "")
    )


def locate_folder(path: Path, store: Store, progress: Progress, settings: Mapping[str, Any] = {}) -> Path:
    """Return the folder of a source's recordings; made in the cache once if the source is not such a folder.

    Args:
        path: of a dataset.
        store: where it is made.
        progress: told about that.
        settings: of a plug-in.

    Raises:
        DatasetError: the source is missing, damaged, or holds what may not be unpacked.
        SpecError: the settings are not those of the plug-in.
        StoreError: the disk is full.
    """
    kind = find_kind(path)
    if kind == "plugin":
        tracks = PluginTracks(path, settings)
        return _keep(store, progress, path, tracks.provenance, path.as_posix(), tracks.write)
    check_source(path)
    if kind == "hub":
        from lora_bench.stages.dataset.hub_datasets import fetch_dataset

        path = fetch_dataset(path.as_posix().removeprefix(HUB))
    packed = list_packed(path) if path.is_dir() else [path]
    if not packed:
        return path

    def fill(target: UnpackedFolder) -> None:
        if kind == "list":
            target.write_fields(link_list(path, target))
        else:
            _unpack(path, packed, target)

    facts = {"files": [_hash(file) for file in packed]}
    return _keep(store, progress, path, facts, f"unpack {spell_path(path.name)}", fill)


def _keep(
    store: Store,
    progress: Progress,
    path: Path,
    facts: Mapping[str, object],
    stage: str,
    fill: Callable[[UnpackedFolder], object],
) -> Path:
    """Return the folder in the cache that a source becomes; `fill` writes it where it is not there.

    Args:
        store: where it is kept.
        progress: told `stage` before it is written.
        path: of the source; links and tables may name files relative to it, so it counts.
        facts: what else the folder depends on.
        stage: for `progress`.
        fill: writes the files.
    """

    def write(draft: Path) -> None:
        progress.start(stage)
        fill(UnpackedFolder(path, draft))

    key = hash_json({"version": SOURCES_VERSION, "path": path, **facts}, length=32)
    return store.get_or_make("sources", key, write)


def _hash(file: Path) -> str:
    from lora_bench.models.model_files import hash_once

    return hash_once(file) if file.stat().st_size > 2**20 else hash_file(file)


def _unpack(source: Path, packed: list[Path], target: UnpackedFolder) -> None:
    """Write the recordings of archives and tables; those of a folder go below the name of each."""
    lines: list[Mapping[str, object]] = []
    for file in packed:
        prefix = "" if file == source else f"{file.relative_to(source).with_suffix('').as_posix()}/"
        if file.suffix.lower() in TABLE_SUFFIXES:
            lines += unpack_table(file, target, prefix)
        else:
            archives.unpack(file, target, prefix)
    target.write_fields(lines)


def list_packed(folder: Path) -> list[Path]:
    """Return the tables or shards (.tar) of a folder that holds no recording itself; empty for other folders.

    Raises:
        DatasetError: the folder cannot be read.
    """
    if any(path.suffix.lower() not in TABLE_SUFFIXES | {".tar"} for path in list_folder(folder).files):
        return []
    files = sorted(path for path, _ in walk_folder(folder).files if not path.name.startswith("cache-"))
    tables = [path for path in files if path.suffix.lower() in TABLE_SUFFIXES]
    return tables or [path for path in files if path.suffix.lower() == ".tar"]


def count_recordings(path: Path) -> int | None:
    """Count the recordings of a source without unpacking or fetching it, usable or not; None if that cannot be told.

    Raises:
        DatasetError: a folder or a list cannot be read, or the source is missing.
    """
    kind = find_kind(path)
    if kind in {"hub", "plugin"}:
        return None
    check_source(path)
    if kind == "list":
        return len(read_list(path))
    packed = list_packed(path) if path.is_dir() else [path]
    if not packed:
        return len(list_folder(path).files)
    counts = [
        count_rows(file) if file.suffix.lower() in TABLE_SUFFIXES else archives.count_recordings(file)
        for file in packed
    ]
    return None if None in counts else sum(count or 0 for count in counts)


def list_source_files(path: Path) -> list[tuple[str, os.stat_result]]:
    """Return the files that a source is made of, without a folder's, to notice that one changed; none on the hub."""
    kind = find_kind(path)
    if kind in {"hub", "plugin"} or not path.is_file():
        return []
    files = [path]
    if kind == "list":
        with suppress(DatasetError):  # said when it is read
            files += [file.path for file in read_list(path)]
    return [(file.as_posix(), file.stat()) for file in files]
