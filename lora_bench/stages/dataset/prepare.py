"""From the spec's dataset section to a manifest."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from lora_bench.artifacts import AudioFormat, Excluded, Manifest, NearDuplicate, Split, Track
from lora_bench.audio import RESAMPLER, Listing, list_folder
from lora_bench.errors import DatasetError
from lora_bench.genres import render_genre
from lora_bench.progress import Progress
from lora_bench.slugs import spell_path
from lora_bench.spec.data_sources import find_kind, name_source
from lora_bench.spec.schema import DatasetSpec
from lora_bench.spec.sides import MIN_TRACKS
from lora_bench.stages.dataset.grouping import name_groups, search_near_duplicates
from lora_bench.stages.dataset.metadata import Metadata, list_unmatched, read_metadata
from lora_bench.stages.dataset.recordings import Recording, SourceFile, identify_edits, prepare_recording
from lora_bench.stages.dataset.sources import locate_folder
from lora_bench.stages.dataset.splits import assign_sides, cut_slices
from lora_bench.stages.dataset.track_captions import Caption, caption_tracks
from lora_bench.store import Store, hash_json

MANIFEST_VERSION = 1
ID_LENGTH = 16
N_LISTED = 10
# Decoding releases the GIL; every worker holds one whole track, so their number bounds the memory.
MAX_WORKERS = 4


def prepare_dataset(
    spec: DatasetSpec, audio_format: AudioFormat, store: Store, progress: Progress
) -> Manifest:
    """Decode, resample, caption, split and slice a dataset; what was decoded once is taken from the store.

    Raises:
        DatasetError: no such folder, too few usable tracks, or files without a caption.
        StoreError: the disk is full.
    """
    name, folder = _locate(spec, audio_format, store, progress)
    metadata = read_metadata(folder, spec.captions)
    listing = list_folder(folder)
    _refuse_results(listing, store)
    recordings: dict[str, Recording] = {}
    excluded: list[Excluded] = []
    n_files = len(listing.files) + len(listing.dropped)
    progress.start("dataset", n_files)
    with closing(_prepare_all(listing, spec, audio_format, store)) as prepared:
        dropped = (Excluded(source, reason) for source, reason in listing.dropped.items())
        for found in itertools.chain(dropped, prepared):
            item = _refuse_repeat(found, recordings)
            if isinstance(item, Recording):
                recordings[item.content_hash] = item
            else:
                excluded.append(item)
                progress.log(f"left out: {item.source} {item.reason}")
            progress.advance(note=item.source)
    _check_enough(spec.path or folder, n_files, len(recordings), excluded)
    captions = _caption(listing, recordings, spec, metadata, store, progress)
    near, groups = _group(listing, recordings, spec, store, progress)
    sides = assign_sides(list(recordings), spec.split, groups)
    manifest = _make_manifest(name, recordings, captions, excluded, spec, audio_format, store, sides)
    return manifest if near is None else replace(manifest, near_duplicates=tuple(near))


def _group(
    listing: Listing, recordings: Mapping[str, Recording], spec: DatasetSpec, store: Store, progress: Progress
) -> tuple[list[NearDuplicate] | None, dict[str, str] | None]:
    """Return near-duplicates, if they are searched for, and the groups that stay on one side, if there are any."""
    paths = {listing.name(path): path.relative_to(listing.folder).as_posix() for path in listing.files}
    hashes = {paths[recording.source]: recording.content_hash for recording in recordings.values()}
    near: list[NearDuplicate] | None = None
    if spec.split.near_duplicates != "ignore":
        found = search_near_duplicates(listing.folder, hashes, store, progress)
        near = [NearDuplicate(spell_path(first), spell_path(second), fit) for first, second, fit in found]
        for pair in near:
            progress.log(
                f"near-duplicates: {pair.first} and {pair.second} (correlation {pair.correlation:.2f})"
            )
    return near, name_groups(listing.folder, spec, hashes, near)


def _caption(
    listing: Listing,
    recordings: Mapping[str, Recording],
    spec: DatasetSpec,
    metadata: Metadata,
    store: Store,
    progress: Progress,
) -> dict[str, Caption]:
    """Captions of the recordings by `Recording.source`; lines of metadata without a file are logged."""
    paths = {listing.name(path): path.relative_to(listing.folder).as_posix() for path in listing.files}
    others = [*paths.values(), *listing.dropped]
    wanted = {paths[recording.source]: recording for recording in recordings.values()}
    hashes = {path: recording.content_hash for path, recording in wanted.items()}
    captions = caption_tracks(listing.folder, hashes, spec.captions, metadata, others, store, progress)
    for text in list_unmatched(metadata, others):
        progress.log(text)
    return {wanted[path].source: caption for path, caption in captions.items()}


def _locate(
    spec: DatasetSpec, audio_format: AudioFormat, store: Store, progress: Progress
) -> tuple[str, Path]:
    if spec.builtin is not None:
        return spec.builtin, render_genre(spec.builtin, audio_format.sample_rate_hz, store, progress)
    if spec.path is None:  # the schema asks for one of the two
        raise DatasetError("dataset: neither `path` nor `builtin` is given; expected exactly one")
    is_named = find_kind(spec.path) in {"hub", "plugin"}
    path = spec.path if is_named else spec.path.absolute()
    folder = locate_folder(path, store, progress, spec.source_settings)
    return spell_path(name_source(spec.path)), folder


def _refuse_results(listing: Listing, store: Store) -> None:
    """Refuse a folder that leads to the results, itself or by a link."""
    results = store.root.resolve()
    if any(results.is_relative_to(real) for real in listing.real_folders):
        raise DatasetError(
            f"dataset.path: {listing.folder} contains the results ({store.root}), so generated clips would "
            "become recordings; expected a folder of recordings alone, so move them or choose another runs folder"
        )


def _prepare_all(
    listing: Listing, spec: DatasetSpec, audio_format: AudioFormat, store: Store
) -> Generator[Recording | Excluded, None, None]:
    def prepare(path: Path) -> Recording | Excluded:
        return prepare_recording(
            SourceFile(path), listing.name(path), audio_format, spec.min_track_s, store, spec.prepare
        )

    pool = ThreadPoolExecutor(max_workers=min(MAX_WORKERS, os.cpu_count() or 1))
    try:
        yield from pool.map(prepare, listing.files)
    finally:  # on an interrupt, too: what is queued is dropped, what is being decoded is finished
        pool.shutdown(wait=True, cancel_futures=True)


def _refuse_repeat(item: Recording | Excluded, recordings: dict[str, Recording]) -> Recording | Excluded:
    if isinstance(item, Recording) and item.content_hash in recordings:
        return Excluded(item.source, f"has the same content as {recordings[item.content_hash].source}")
    return item


def _check_enough(source: Path, n_files: int, n_usable: int, excluded: Sequence[Excluded]) -> None:
    if n_usable >= MIN_TRACKS:
        return
    listed = "".join(f"\n  {item.source} {item.reason}" for item in excluded[:N_LISTED])
    if len(excluded) > N_LISTED:
        listed += f"\n  and {len(excluded) - N_LISTED} more"
    raise DatasetError(
        f"{source}: {n_usable} usable tracks of {n_files} audio files ({len(excluded)} left out); expected "
        f"at least {MIN_TRACKS}, because whole tracks are split into at least 1 to train on and 2 held out, "
        f"so add recordings{listed}"
    )


def _make_manifest(
    name: str,
    recordings: dict[str, Recording],
    captions: dict[str, Caption],
    excluded: Sequence[Excluded],
    spec: DatasetSpec,
    audio_format: AudioFormat,
    store: Store,
    sides: Mapping[str, Split],
) -> Manifest:
    rate_hz = audio_format.sample_rate_hz
    # in the order of contents, so that renaming files changes neither the manifest's key nor training
    ordered = sorted(recordings.values(), key=lambda recording: recording.content_hash)
    tracks = tuple(
        Track(
            id=recording.content_hash[:ID_LENGTH],
            source=recording.source,
            audio=recording.audio,
            caption=captions[recording.source].text,
            split=sides[recording.content_hash],
            duration_s=recording.n_samples / rate_hz,
            caption_origins=captions[recording.source].origins,
            preparation=recording.preparation,
            variants=captions[recording.source].variants or None,
        )
        for recording in ordered
    )
    slices = tuple(
        part
        for track, recording in zip(tracks, ordered, strict=True)
        for part in cut_slices(track, recording.n_samples, rate_hz, spec.clip_s)
    )
    key = hash_json(
        {
            "version": MANIFEST_VERSION,
            "format": audio_format,
            "clip_s": spec.clip_s,
            "resampler": RESAMPLER,
            **identify_edits(spec.prepare),
            "tracks": [
                (recording.content_hash, recording.n_samples, track.split, track.caption)
                for track, recording in zip(tracks, ordered, strict=True)
            ],
            **(
                {"variants": variants}
                if (variants := [track.variants for track in tracks if track.variants])
                else {}
            ),
        }
    )
    return Manifest(
        key=key,
        name=name,
        folder=store.root / "audio",
        format=audio_format,
        clip_s=spec.clip_s,
        tracks=tracks,
        excluded=tuple(excluded),
        slices=slices,
        resampler=RESAMPLER,
    )
