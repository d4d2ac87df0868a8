"""Assign tracks to sides and cut them into slices, by content and seed, not by file names."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from lora_bench.artifacts import Slice, Split, Track
from lora_bench.errors import DatasetError
from lora_bench.spec.schema import SplitSpec
from lora_bench.spec.sides import MIN_EVAL_TRACKS, MIN_TRAIN_TRACKS, count_sides

MIN_TAIL_S = 1.0
_MIN_TRACKS: Mapping[Split, int] = {"eval": MIN_EVAL_TRACKS, "selection": 1, "train": MIN_TRAIN_TRACKS}


def assign_sides(
    content_hashes: Sequence[str], spec: SplitSpec, groups: Mapping[str, str] | None = None
) -> dict[str, Split]:
    """Return the side of each content: held out first, then selection, in an order that is shuffled by the seed.

    Each content's place comes from its own hash, so adding a track moves few others.  The held-out side is the same
    with and without a selection side, which is taken from the rest.  A group of contents goes to the first side that
    has room for all of it.

    Args:
        content_hashes: of all tracks.
        spec: sizes of the sides, and the seed.
        groups: name of the group of each content, which stays on one side; None has a group per content.

    Raises:
        DatasetError: nothing is left to train on, or the groups are too large for a side.
    """
    counts = count_sides(len(content_hashes), spec)

    def draw(content_hash: str) -> str:
        return hashlib.sha256(f"{spec.seed}:{content_hash}".encode()).hexdigest()

    members: dict[str, list[str]] = {}
    for content_hash in sorted(content_hashes, key=draw):
        members.setdefault(content_hash if groups is None else groups[content_hash], []).append(content_hash)
    sizes: dict[Split, int] = {"eval": counts.eval, "selection": counts.selection}
    assigned: dict[str, Split] = {}
    found = Counter[Split]()
    for group in members.values():
        side: Split = "train"
        for each, size in sizes.items():
            has_room = found[each] + len(group) <= size
            is_needed = found[each] < min(size, _MIN_TRACKS[each]) and len(group) <= 2 * size
            if has_room or is_needed:
                side = each
                break
        found[side] += len(group)
        assigned |= dict.fromkeys(group, side)
    for lacking, n in _MIN_TRACKS.items():
        if found[lacking] >= min(n, getattr(counts, lacking)):
            continue
        largest = max(len(group) for group in members.values())
        raise DatasetError(
            f"dataset.split: {len(content_hashes)} tracks are in {len(members)} groups that stay together, the largest "
            f"of {largest}, which leaves {found[lacking]} tracks for the side `{lacking}`; expected at least {n}; "
            "raise eval_frac or selection_frac, add recordings, or split by a smaller group"
        )
    return assigned


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
