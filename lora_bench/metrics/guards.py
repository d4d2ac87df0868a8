"""Guards: signs of a distance that fell for the wrong reason (less variety, silence, loops, copied training music).

Each guard is a measurement on arrays (embeddings, samples, feature frames, codes).  None is a verdict: the same
measurement on the genre's recordings gives the normal value.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.clusters import Clusters
from lora_bench.metrics.frechet import check_same_dim
from lora_bench.metrics.kernel import squared_distances, thin_clusters

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SILENCE_DBFS = -60.0
MAX_DIVERSITY_VECTORS = 3000
MAX_THREADS = 4
"""Threads of a search; each holds a table of queries by training windows."""


def mean_pairwise_distance(clusters: Clusters) -> float:
    """Compute the mean Euclidean distance of vectors from different clusters.

    Give one vector per clip: see `average_clips`.

    Raises:
        UnscoredError: there is only one cluster.
    """
    if clusters.n_clusters < 2:
        raise UnscoredError("diversity: one clip only, the distance between clips needs at least 2")
    thin = thin_clusters(clusters, MAX_DIVERSITY_VECTORS)
    labels = thin.labels()
    vectors = thin.vectors - thin.vectors.mean(axis=0)
    apart = labels[:, None] < labels[None, :]
    return float(np.sqrt(squared_distances(vectors, vectors)[apart]).mean())


def diversity_ratio(generated: Clusters, reference: Clusters) -> float:
    """Divide the mean distance between generated clips by that between reference tracks: below 1 is less variety.

    Both sides hold one vector per clip.  Windows of equal clips still differ, so that with several windows a generator
    that always makes the same clip would go unnoticed.

    Raises:
        UnscoredError: a side has one clip, or all reference vectors are equal.
        ScoreError: different dimensions.
    """
    check_same_dim(generated.vectors, reference.vectors)
    theirs = mean_pairwise_distance(reference)
    if theirs == 0.0:
        raise UnscoredError("diversity: all reference vectors are equal, so there is nothing to relate to")
    return mean_pairwise_distance(generated) / theirs


@dataclass(frozen=True)
class Silence:
    """Shares of silence in a set.

    Attributes:
        clip_frac: share of clips whose root mean square is below the threshold.
        block_frac: share of all blocks below it.
    """

    clip_frac: float
    block_frac: float
    n_clips: int


def measure_silence(
    clips: Iterable[ArrayLike], block_samples: int, threshold_dbfs: float = SILENCE_DBFS
) -> Silence:
    """Measure the share of silence.

    Args:
        clips: samples of each clip, [S] or [C, S], full scale 1.
        block_samples: length of a block, for instance the sample rate for one second.
        threshold_dbfs: level below which it is silence.

    Raises:
        ScoreError: there is no clip, or one is empty or not finite.
    """
    power = 10.0 ** (threshold_dbfs / 10.0)
    silent, blocks, silent_blocks = [], 0, 0
    for place, clip in enumerate(clips):
        samples = np.atleast_2d(np.asarray(clip, dtype=np.float64))
        if samples.size == 0 or not np.isfinite(samples).all():
            raise ScoreError(f"silence: clip {place} is empty or holds values that are not finite")
        squares = (samples**2).mean(axis=0)
        silent.append(bool(squares.mean() < power))
        starts = np.arange(0, len(squares), block_samples)
        means = np.add.reduceat(squares, starts) / np.diff([*starts, len(squares)])
        blocks += len(means)
        silent_blocks += int((means < power).sum())
    if not silent:
        raise ScoreError("silence: there is no clip to measure")
    return Silence(float(np.mean(silent)), silent_blocks / blocks, len(silent))


def repetition(features: ArrayLike, min_lag: int) -> float:
    """Measure how exactly a clip repeats itself: the best correlation of its frames with its own later frames.

    Args:
        features: [F, D] feature frames of one clip (for example log mel).
        min_lag: shortest lag in frames that counts as a repeat; lags reach up to half the clip.

    Returns:
        From -1 to 1; 1 for an exact loop and for a clip whose frames are all equal.

    Raises:
        ScoreError: fewer than `2 * min_lag` frames, or values that are not finite.
    """
    frames = np.asarray(features, dtype=np.float64)
    if frames.ndim != 2 or len(frames) < 2 * min_lag or min_lag < 1:
        raise ScoreError(
            f"repetition: features of shape {frames.shape}, expected [frames, D] with at least 2 x {min_lag} "
            "frames"
        )
    if not np.isfinite(frames).all():
        raise ScoreError("repetition: the features hold values that are not finite")
    centred = frames - frames.mean(axis=0)
    if float(np.abs(centred).max()) <= 1e-12 * max(float(np.abs(frames).max()), 1e-300):
        return 1.0
    power = (centred**2).sum(axis=1)
    best = -1.0
    for lag in range(min_lag, len(frames) // 2 + 1):
        both = float(np.sqrt(power[:-lag].sum() * power[lag:].sum()))
        if both > 0.0:
            best = max(best, float((centred[:-lag] * centred[lag:]).sum()) / both)
    return min(best, 1.0)


@dataclass(frozen=True)
class Nearest:
    """The most similar training vector of each query.

    Attributes:
        similarities: [Q] cosine similarity, 0 for a zero vector.
        sets: [Q] number of its training set (the track).
        rows: [Q] its row in that set.
    """

    similarities: NDArray[np.float64]
    sets: NDArray[np.int64]
    rows: NDArray[np.int64]


def find_nearest(queries: ArrayLike, training: Iterable[ArrayLike], *, n_threads: int = 1) -> Nearest:
    """Search exactly for the most similar training vector of each query.

    Args:
        queries: [Q, D] vectors without their common part; they need not be of unit length.
        training: sets [T_i, D], read one after the other, so that memory holds only a few.
        n_threads: sets that are compared at once, at most `MAX_THREADS`; the result does not depend on it.

    Raises:
        ScoreError: an empty side, different dimensions, or values that are not finite.
    """
    looked_up = unit_rows(_check_features(queries, "looked-up"))
    best = np.full(len(looked_up), -np.inf, dtype=looked_up.dtype)
    sets, rows = np.zeros(len(best), dtype=np.int64), np.zeros(len(best), dtype=np.int64)
    for number, (found, places) in enumerate(_compare(looked_up, training, min(n_threads, MAX_THREADS))):
        better = found > best
        best[better], sets[better], rows[better] = found[better], number, places[better]
    if np.isneginf(best).any():
        raise ScoreError("memorisation: there is no training vector to compare with")
    return Nearest(np.clip(best.astype(np.float64), -1.0, 1.0), sets, rows)


def _compare(
    looked_up: NDArray[np.floating], training: Iterable[ArrayLike], n_threads: int
) -> Iterator[tuple[NDArray[np.floating], NDArray[np.int64]]]:
    """Yield for each training set, in order, the best similarity of every query and its row."""

    def compare(given: ArrayLike) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        known = _check_features(given, "training")
        if known.shape[1] != looked_up.shape[1]:
            raise ScoreError(
                f"memorisation: features of {looked_up.shape[1]} and {known.shape[1]} numbers; both sides must "
                "come from the same windows"
            )
        similar = looked_up @ unit_rows(known).T
        places = similar.argmax(axis=1)
        return similar[np.arange(len(similar)), places], places

    waiting: deque[Future[tuple[NDArray[np.floating], NDArray[np.int64]]]] = deque()
    with ThreadPoolExecutor(n_threads) as threads:
        for given in training:
            waiting.append(threads.submit(compare, given))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True)
class Memorisation:
    """Similarity of generated clips to the training set, compared with that of held-out clips.

    Attributes:
        generated_median: median similarity of a generated clip to its nearest training window.
        held_out_median: the same for held-out clips, which cannot be copies.
        above_frac: share of generated clips that are more similar than 95 % of the held-out ones; about 0.05 if
            nothing was copied.
    """

    generated_median: float
    held_out_median: float
    above_frac: float


def compare_nearness(generated: ArrayLike, held_out: ArrayLike) -> Memorisation:
    """Compare the similarities [N] of generated clips to the training set with those [H] of held-out clips.

    Raises:
        ScoreError: a side is empty or not finite.
    """
    sides = {"generated": generated, "held-out": held_out}
    ours, theirs = (np.asarray(side, dtype=np.float64) for side in sides.values())
    for name, side in zip(sides, (ours, theirs), strict=True):
        if side.ndim != 1 or not len(side) or not np.isfinite(side).all():
            raise ScoreError(
                f"memorisation: {name} similarities of shape {side.shape}, expected finite [clips]"
            )
    return Memorisation(
        generated_median=float(np.median(ours)),
        held_out_median=float(np.median(theirs)),
        above_frac=float((ours > np.quantile(theirs, 0.95)).mean()),
    )


def _check_features(rows: ArrayLike, name: str) -> NDArray[np.float32]:
    array = np.asarray(rows, dtype=np.float32)
    if array.ndim != 2 or not len(array) or not np.isfinite(array).all():
        raise ScoreError(f"memorisation: {name} features of shape {array.shape}, expected finite [rows, D]")
    return array


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to unit length; zero rows stay zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0.0, lengths, 1.0).astype(rows.dtype)


class CodeIndex:
    """First-codebook codes of the training tracks, indexed to search for stretches of generated codes."""

    def __init__(self, tracks: Sequence[ArrayLike]) -> None:
        """Index the codes of all tracks [F_i], each with at least one code.

        Raises:
            ScoreError: there is no track, or one is empty.
        """
        arrays = [np.asarray(track).ravel() for track in tracks]
        if not arrays or not all(len(track) for track in arrays):
            raise ScoreError(
                f"code match: {[len(track) for track in arrays]} codes of training tracks, expected at least "
                "one in each of at least one track"
            )
        joined = np.concatenate(arrays)
        self._order = np.argsort(joined, kind="stable")
        self._ordered = joined[self._order]
        self._track = np.repeat(np.arange(len(arrays)), [len(track) for track in arrays])
        self._n = len(joined)

    def best_match(self, codes: ArrayLike) -> float:
        """Return the largest share of `codes` [F] that equals the codes of one training track at one shift.

        1 is an exact copy; the MusicGen paper counts 0.8 and above as a partial match.

        Raises:
            ScoreError: there are no codes.
        """
        ours = np.asarray(codes).ravel()
        if not len(ours):
            raise ScoreError("code match: 0 codes, expected at least one")
        # Every equal pair of codes votes for its track and shift; different pairs cost nothing.
        first = np.searchsorted(self._ordered, ours, "left")
        counts = np.searchsorted(self._ordered, ours, "right") - first
        if not counts.sum():
            return 0.0
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        places = self._order[np.repeat(first, counts) + within]
        shifts = places - np.repeat(np.arange(len(ours)), counts)
        # The votes of one stretch share track and shift; the gap separates the votes of different tracks.
        votes = shifts + len(ours) * (2 * self._track[places] + 1)
        return float(np.bincount(votes).max()) / len(ours)
