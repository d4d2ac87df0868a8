"""Nested parts of the training side: how much data an adapter is trained on."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from lora_bench.artifacts import Manifest, Track
from lora_bench.errors import DatasetError
from lora_bench.spec.data_size import describe_few_tracks
from lora_bench.spec.schema import DatasetSpec
from lora_bench.store import hash_json


def take_training(manifest: Manifest, spec: DatasetSpec) -> Manifest:
    """Return the manifest with as much of its training side as `size` states; the other sides are the same.

    The tracks are in an order of their contents that is shuffled by the split's seed, and the first ones are taken, so
    a smaller part is contained in a larger one.

    Raises:
        DatasetError: the training side is not that large.
    """
    if spec.size is None:
        return manifest

    def draw(track: Track) -> str:
        return hashlib.sha256(f"size:{spec.split.seed}:{track.id}".encode()).hexdigest()

    ordered = sorted(manifest.of_split("train"), key=draw)
    if isinstance(spec.size.tracks, int):
        if spec.size.tracks > len(ordered):
            raise DatasetError(describe_few_tracks(spec.size.tracks, len(ordered)))
        kept = ordered[: spec.size.tracks]
    else:
        kept = _take_minutes(ordered, float(spec.size.minutes or 0.0))
    ids = {track.id for track in kept}
    return replace(
        manifest,
        key=hash_json([manifest.key, "size", sorted(ids)]),
        tracks=tuple(track for track in manifest.tracks if track.split != "train" or track.id in ids),
        slices=tuple(cut for cut in manifest.slices if cut.split != "train" or cut.track_id in ids),
    )


def _take_minutes(ordered: list[Track], minutes: float) -> list[Track]:
    kept: list[Track] = []
    for track in ordered:
        kept.append(track)
        if sum(one.duration_s for one in kept) >= minutes * 60.0:
            return kept
    total = sum(track.duration_s for track in ordered) / 60.0
    raise DatasetError(
        f"dataset.size.minutes is {minutes:g}, but the training side has {total:.1f} minutes; expected as many "
        "at most, or `all`; add recordings or lower it"
    )
