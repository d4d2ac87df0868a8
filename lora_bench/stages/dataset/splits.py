"""Assign tracks to sides and cut them into slices, by content and seed, not by file names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lora_bench.artifacts import Slice, Split, Track
from lora_bench.errors import DatasetError
from lora_bench.spec.schema import SplitSpec

MIN_TRAIN_TRACKS = 1
MIN_EVAL_TRACKS = 2  # a reference of one track has no spread between tracks
MIN_TRACKS = MIN_TRAIN_TRACKS + MIN_EVAL_TRACKS
MIN_TAIL_S = 1.0


def choose_eval(content_hashes: Sequence[str], spec: SplitSpec) -> frozenset[str]:
    """Return the contents to hold out: the first of an order that is shuffled by the seed.

    Each content's place comes from its own hash, so adding a track moves few others.

    Raises:
        DatasetError: the held-out share leaves nothing to train on.
    """
    n_tracks = len(content_hashes)
    n_eval = max(MIN_EVAL_TRACKS, round(spec.eval_frac * n_tracks))
    if n_tracks - n_eval < MIN_TRAIN_TRACKS:
        raise DatasetError(
            f"dataset.split.eval_frac: {spec.eval_frac:g} of {n_tracks} usable tracks holds out {n_eval} and "
            f"leaves {max(0, n_tracks - n_eval)} to train on; expected at least {MIN_TRAIN_TRACKS} to train "
            f"on and {MIN_EVAL_TRACKS} held out, so lower eval_frac or add recordings"
        )

    def draw(content_hash: str) -> str:
        return hashlib.sha256(f"{spec.seed}:{content_hash}".encode()).hexdigest()

    return frozenset(sorted(content_hashes, key=draw)[:n_eval])


def cut_slices(track: Track, n_samples: int, sample_rate_hz: int, clip_s: float) -> list[Slice]:
    """Cut consecutive slices of `clip_s`; a rest of a second or more is a slice too, padded with zeros.

    A track of exactly `clip_s` is one full slice; a track shorter than that is one padded slice.
    """
    n_clip = round(clip_s * sample_rate_hz)
    n_min_tail = round(MIN_TAIL_S * sample_rate_hz)
    split: Split = track.split
    return [
        Slice(track.id, split, offset, n_clip, min(n_clip, n_samples - offset), track.caption)
        for offset in range(0, n_samples, n_clip)
        if offset == 0 or n_samples - offset >= n_min_tail
    ]
