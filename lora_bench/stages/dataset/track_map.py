"""A map of the tracks: their timbre in two dimensions, their groups, and near-duplicates.

The timbre of a track is the mean and the standard deviation of its MFCC over time, without the first coefficient,
which is its level.  Principal components of these numbers, each divided by its spread over the tracks, are the map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from lora_bench.artifacts import AudioClip, NearDuplicate
from lora_bench.audio import RESAMPLER
from lora_bench.encoders.mfcc import WINDOW_SAMPLES, compute_mfcc
from lora_bench.errors import DatasetError
from lora_bench.progress import Progress
from lora_bench.slugs import spell_path
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.dataset.grouping import name_groups, search_near_duplicates
from lora_bench.stages.dataset.recordings import SourceFile
from lora_bench.stages.dataset.splits import assign_sides
from lora_bench.store import Store, hash_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIMBRE_VERSION = 1
"""Part of the cache key; raise it when the same recording gets another timbre."""
RATE_HZ = 16_000


@dataclass(frozen=True)
class MapPoint:
    """A track: its path, printable and relative to the folder, its place, and its side or folder."""

    source: str
    x: float
    y: float
    group: str


@dataclass(frozen=True)
class TrackMap:
    """The tracks that a run uses, in two dimensions.

    Attributes:
        points: in the order of their paths.
        explained: share of the variance that each dimension holds.
        near: near-duplicates by source.
        grouped_by: what `MapPoint.group` is.
        note: why tracks are not grouped by side; None if they are, or if no spec asks for it.
    """

    points: tuple[MapPoint, ...]
    explained: tuple[float, float]
    near: tuple[NearDuplicate, ...]
    grouped_by: Literal["side", "folder"]
    note: str | None = None


def read_timbre(file: SourceFile, store: Store) -> NDArray[np.float32]:
    """Return the timbre of a file, [38], from the store if it lies there.

    Raises:
        AudioFileError: the file cannot be decoded.
        StoreError: the disk is full.
    """

    def write(draft: Path) -> None:
        with (draft / "timbre.npy").open("wb") as stream:
            np.save(stream, compute_timbre(*file.sound))

    facts = {
        "version": TIMBRE_VERSION,
        "content": file.content_hash,
        "librosa": metadata.version("librosa"),
        "resampler": RESAMPLER,
    }
    return np.load(store.get_or_make("timbre", hash_json(facts, length=32), write) / "timbre.npy")


def compute_timbre(audio: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Return mean and standard deviation over time of MFCC 2 to 20 of samples [C, S]: [38]."""
    n_needed = -(-WINDOW_SAMPLES * rate_hz // RATE_HZ) + 1
    padded = np.pad(audio, ((0, 0), (0, max(0, n_needed - audio.shape[1]))))
    mfcc = compute_mfcc(AudioClip("", "", padded, rate_hz), RATE_HZ)[1:]
    return np.concatenate([mfcc.mean(axis=1), mfcc.std(axis=1)]).astype(np.float32)


def map_tracks(
    folder: Path,
    hashes: Mapping[str, str],
    timbres: Mapping[str, NDArray[np.float32]],
    spec: DatasetSpec,
    store: Store,
    progress: Progress,
    *,
    with_sides: bool,
) -> TrackMap:
    """Place the tracks of a folder, and name the side or the folder of each.

    Args:
        folder: of the dataset.
        hashes: content hash of each track that is used, by its path relative to `folder`.
        timbres: see `read_timbre`, by path.
        spec: says how the tracks are split.
        store: keeps fingerprints.
        progress: told about recordings.
        with_sides: group by side, as a run splits the tracks; else by folder.

    Raises:
        AudioFileError: a file cannot be decoded.
        StoreError: the disk is full.
    """
    paths = sorted(hashes)
    found = search_near_duplicates(folder, hashes, store, progress)
    near = tuple(NearDuplicate(spell_path(first), spell_path(second), fit) for first, second, fit in found)
    groups, note = {path: PurePosixPath(path).parent.as_posix() for path in paths}, None
    grouped_by: Literal["side", "folder"] = "folder"
    if with_sides:
        together = list(near) if spec.split.near_duplicates != "ignore" else None
        try:
            sides = assign_sides(
                list(hashes.values()), spec.split, name_groups(folder, spec, hashes, together)
            )
            groups, grouped_by = {path: sides[hashes[path]] for path in paths}, "side"
        except DatasetError as error:
            note = str(error)
    places, explained = find_components(np.stack([timbres[path] for path in paths]) if paths else None)
    points = (
        MapPoint(spell_path(path), float(x), float(y), groups[path])
        for path, (x, y) in zip(paths, places, strict=True)
    )
    return TrackMap(tuple(points), explained, near, grouped_by, note)


def find_components(values: NDArray[np.float32] | None) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Return the first two principal components of rows [N, D] as [N, 2], and their shares of the variance.

    Columns are divided by their standard deviations.  The sign of a component is that of its largest weight.
    """
    if values is None or len(values) < 2:
        return np.zeros((0 if values is None else len(values), 2)), (0.0, 0.0)
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    spread = centred.std(axis=0)
    scaled = centred / np.where(spread > 1e-6 * np.maximum(1.0, np.abs(values).max(axis=0)), spread, np.inf)
    _, sizes, weights = np.linalg.svd(scaled, full_matrices=False)
    signs = np.sign(weights[np.arange(len(weights)), np.abs(weights).argmax(axis=1)])
    places = np.zeros((len(values), 2))
    n_kept = min(2, len(sizes))
    places[:, :n_kept] = scaled @ (weights * signs[:, None])[:n_kept].T
    power = np.square(sizes)
    shares = [*(power[:2] / power.sum()), 0.0] if power.sum() > 0 else [0.0, 0.0]
    return places, (float(shares[0]), float(shares[1]))
