"""How many tracks a dataset has on each side: to train on, to select by and to score by."""

from __future__ import annotations

from dataclasses import dataclass

from lora_bench.errors import DatasetError
from lora_bench.spec.schema import SplitSpec

BUILTIN_TRACKS = {"chiptune": 40}
MIN_TRAIN_TRACKS = 1
MIN_EVAL_TRACKS = 2  # a reference of one track has no spread between tracks
MIN_TRACKS = MIN_TRAIN_TRACKS + MIN_EVAL_TRACKS


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
