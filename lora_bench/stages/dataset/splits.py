"""Assign tracks to sides and cut them into slices, by content and seed, not by file names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from lora_bench.artifacts import Slice, Split, Track
from lora_bench.errors import DatasetError
from lora_bench.spec.schema import SplitSpec

MIN_TRAIN_TRACKS = 1
MIN_EVAL_TRACKS = 2  # a reference of one track has no spread between tracks
MIN_TRACKS = MIN_TRAIN_TRACKS + MIN_EVAL_TRACKS
MIN_TAIL_S = 1.0


@dataclass(frozen=True)
class SideCounts:
    """Numbers of tracks to train on, to select by and to score by."""

    train: int
    selection: int
    eval: int


def count_sides(n_tracks: int, spec: SplitSpec) -> SideCounts:
    """Return the size of each side; without `selection_frac` nothing is on the selection side.

    Raises:
        DatasetError: nothing is left to train on.
    """
    n_eval = max(MIN_EVAL_TRACKS, round(spec.eval_frac * n_tracks))
    n_selection = max(1, round(spec.selection_frac * n_tracks)) if spec.selection_frac else 0
    n_train = n_tracks - n_eval - n_selection
    if n_train >= MIN_TRAIN_TRACKS:
        return SideCounts(n_train, n_selection, n_eval)
    if n_selection:
        raise DatasetError(
            f"dataset.split: of {n_tracks} usable tracks, eval_frac {spec.eval_frac:g} holds out {n_eval} to score by "
            f"and selection_frac {spec.selection_frac:g} takes {n_selection} to select by, which leaves "
            f"{max(0, n_train)} to train on; expected at least {MIN_TRAIN_TRACKS} to train on, 1 to select by and "
            f"{MIN_EVAL_TRACKS} to score by, so add recordings, lower the fractions, or set selection_frac to 0 to "
            "select by the tracks that score"
        )
    raise DatasetError(
        f"dataset.split.eval_frac: {spec.eval_frac:g} of {n_tracks} usable tracks holds out {n_eval} and "
        f"leaves {max(0, n_train)} to train on; expected at least {MIN_TRAIN_TRACKS} to train "
        f"on and {MIN_EVAL_TRACKS} held out, so lower eval_frac or add recordings"
    )


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
