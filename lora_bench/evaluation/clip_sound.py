"""Silence, repetition and copies in the sound of a set of clips: measured once, and kept by what they depend on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import AudioClip, Manifest
from lora_bench.errors import UnscoredError
from lora_bench.stages.embed import hash_clips
from lora_bench.stages.guard import (
    VERSION,
    CopySearch,
    describe_clips,
    describe_method,
    load_training_sound,
    search_copies,
)
from lora_bench.store import Store, hash_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIND = "clip_sound"
FILE = "sound.npz"


@dataclass(frozen=True)
class ClipSound:
    """Figures of N clips.

    Attributes:
        names: of the clips.
        is_silent: [N] bool, the whole clip is below the threshold.
        silent_frac: [N] share of its seconds that are.
        repetition: [N] see `metrics.guards.repetition`.
        copies: the most similar passages of the training set; None if there are none to compare with.
        no_copies: why `copies` is None.
    """

    names: tuple[str, ...]
    is_silent: NDArray[np.bool_]
    silent_frac: NDArray[np.float64]
    repetition: NDArray[np.float64]
    copies: CopySearch | None
    no_copies: str | None = None


def measure_sound(
    clips: Iterable[AudioClip], training: Manifest, store: Store, key: str | None = None
) -> ClipSound:
    """Measure clips, or take their figures from the cache.

    Args:
        clips: read one at a time, and not at all if their figures are there.
        training: the dataset whose training side is searched.
        store: cache.
        key: a hash that stands for audio and names of `clips`; None hashes the clips, which are in memory meanwhile.

    Raises:
        UnscoredError: a clip is shorter than two seconds, or there is none.
        ScoreError: a clip is not finite; names it.
        DatasetError: the prepared audio of a training track is gone.
    """
    if key is None:
        clips = list(clips)
        key = hash_clips(clips)
    full_key = hash_json([VERSION, key, training.key, describe_method()], length=32)
    place = store.get_or_make(
        KIND, full_key, lambda draft: _save(_measure(clips, training, store), draft / FILE)
    )
    return _load(place / FILE)


def _measure(clips: Iterable[AudioClip], training: Manifest, store: Store) -> ClipSound:
    traits = describe_clips(clips)
    copies, no_copies = None, None
    try:
        [copies] = search_copies([traits], load_training_sound(training, store))
    except UnscoredError as reason:
        no_copies = str(reason)
    return ClipSound(traits.names, traits.is_silent, traits.silent_frac, traits.repetition, copies, no_copies)


def _save(sound: ClipSound, path: Path) -> None:
    about = {"names": sound.names, "no_copies": sound.no_copies}
    arrays = {"is_silent": sound.is_silent, "silent_frac": sound.silent_frac, "repetition": sound.repetition}
    if sound.copies is not None:
        about["sources"] = sound.copies.sources
        arrays |= {"similarities": sound.copies.similarities, "times_s": sound.copies.times_s}
    words = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    np.savez(path, about=words, **arrays)


def _load(path: Path) -> ClipSound:
    with np.load(path, allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes().decode())
        copies = None
        if about["no_copies"] is None:
            copies = CopySearch(arrays["similarities"], tuple(about["sources"]), arrays["times_s"])
        return ClipSound(
            tuple(about["names"]),
            arrays["is_silent"],
            arrays["silent_frac"],
            arrays["repetition"],
            copies,
            about["no_copies"],
        )
