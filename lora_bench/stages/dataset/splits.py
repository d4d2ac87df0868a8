"""Assign tracks to sides and cut them into slices, by content and seed, not by file names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lora_bench.artifacts import Slice, Split, Track
from lora_bench.spec.schema import SplitSpec
from lora_bench.spec.sides import count_sides

MIN_TAIL_S = 1.0


def assign_sides(content_hashes: Sequence[str], spec: SplitSpec) -> dict[str, Split]:
    """Return the side of each content: held out first, then selection, in an order that is shuffled by the seed.

    Each content's place comes from its own hash, so adding a track moves few others.  The held-out side is the same
    with and without a selection side, which is taken from the rest.

    Raises:
        DatasetError: nothing is left to train on.
    """
    counts = count_sides(len(content_hashes), spec)

    def draw(content_hash: str) -> str:
        return hashlib.sha256(f"{spec.seed}:{content_hash}".encode()).hexdigest()

    sides: tuple[tuple[Split, int], ...] = (
        ("eval", counts.eval),
        ("selection", counts.selection),
        ("train", counts.train),
    )
    in_order: list[Split] = [side for side, n in sides for _ in range(n)]
    return dict(zip(sorted(content_hashes, key=draw), in_order, strict=True))


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
