"""Read a manifest from JSON; cut excerpts of its tracks as reference clips."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from lora_bench.artifacts import AudioClip, Manifest, Split
from lora_bench.errors import DatasetError, StoreError


def manifest_from_json(document: Any) -> Manifest:
    """The manifest that `to_jsonable` turned into `document`.

    Raises:
        StoreError: the document is not a manifest.
    """
    try:
        return TypeAdapter(Manifest).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StoreError(
            f"the manifest of the dataset is damaged: `{place}`: {first['msg']}; prepare the dataset again"
        ) from error


def reference_clips(manifest: Manifest, split: Split, clip_s: float) -> Iterator[AudioClip]:
    """Yield consecutive excerpts of exactly `clip_s` of the tracks of one side; a shorter rest is not used.

    Name `<track id>-<index>`, group the track id; `audio` is [C, round(clip_s * rate)].

    Raises:
        DatasetError: the prepared audio of a track is gone.
    """
    n_clip = round(clip_s * manifest.format.sample_rate_hz)
    for track in manifest.of_split(split):
        try:
            samples = np.load(track.audio, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{track.audio}: the prepared audio of {track.source} cannot be read ({error}); remove its "
                "folder and run again"
            ) from error
        for index in range(samples.shape[1] // n_clip):
            excerpt = np.array(samples[:, index * n_clip : (index + 1) * n_clip], dtype=np.float32)
            yield AudioClip(f"{track.id}-{index}", track.id, excerpt, manifest.format.sample_rate_hz)


def n_reference_clips(manifest: Manifest, split: Split, clip_s: float) -> int:
    """Count the clips that `reference_clips` yields, from the durations alone."""
    rate_hz = manifest.format.sample_rate_hz
    n_clip = round(clip_s * rate_hz)
    return sum(round(track.duration_s * rate_hz) // n_clip for track in manifest.of_split(split))
