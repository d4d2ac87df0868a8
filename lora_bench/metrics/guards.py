"""Signs that a distance was lowered the wrong way: less variety, silence, loops, copies of the training set.

Each guard is a plain measurement on arrays that others made (embeddings, samples, feature frames, codes).
None is a verdict: what is normal for the genre is measured on its own recordings in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def mean_pairwise_distance(clusters: Clusters) -> float:
    """Mean Euclidean distance of vectors from different clusters.

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
    """Mean distance between generated clips over that between reference tracks: below 1 is less variety.

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
    """How much of a set is silent.

    Attributes:
        clip_frac: share of clips whose whole root mean square is below the threshold.
        block_frac: share of all blocks that are.
    """

    clip_frac: float
    block_frac: float
    n_clips: int


def measure_silence(
    clips: Iterable[ArrayLike], block_samples: int, threshold_dbfs: float = SILENCE_DBFS
) -> Silence:
    """Share of silence.

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
    """How nearly a clip repeats itself: the best correlation of its frames with its own later frames.

    Args:
        features: [F, D] feature frames of one clip (for instance log mel).
        min_lag: shortest lag in frames that counts as a repeat; lags go up to half the clip.

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
class Memorisation:
    """Nearness of generated clips to the training set, against that of held-out clips.

    Attributes:
        generated_median: median similarity of a generated clip to its nearest training clip.
        held_out_median: the same of held-out clips, which cannot be copies.
        above_frac: share of generated clips that are nearer than 95 % of the held-out ones; about 0.05 if
            nothing was copied.
        nearest: [N] index of each generated clip's nearest training clip; `similarities` [N] theirs.
    """

    generated_median: float
    held_out_median: float
    above_frac: float
    nearest: NDArray[np.int64]
    similarities: NDArray[np.float64]


def measure_memorisation(generated: ArrayLike, held_out: ArrayLike, train: ArrayLike) -> Memorisation:
    """Cosine similarity, less the training mean, to the nearest training clip: generated against held-out.

    Args:
        generated: [N, D] one feature vector per clip (flattened log mel is more robust than embeddings).
        held_out: [H, D] clips of tracks that were not trained on.
        train: [T, D] clips of the training tracks.

    Raises:
        ScoreError: an empty set, different dimensions, or values that are not finite.
    """
    sides = {"generated": generated, "held-out": held_out, "training": train}
    checked = {name: _check_features(rows, name) for name, rows in sides.items()}
    if len({rows.shape[1] for rows in checked.values()}) > 1:
        raise ScoreError(
            f"memorisation: feature lengths {[rows.shape[1] for rows in checked.values()]} differ; "
            "all clips must have the same length"
        )
    # Clips share a large common part (a mel is mostly the mean mel); what tells them apart is the rest.
    common = checked["training"].mean(axis=0)
    units = {name: _unit_rows(rows - common) for name, rows in checked.items()}
    ours = units["generated"] @ units["training"].T
    theirs = units["held-out"] @ units["training"].T
    nearest, usual = ours.max(axis=1), theirs.max(axis=1)
    return Memorisation(
        generated_median=float(np.median(nearest)),
        held_out_median=float(np.median(usual)),
        above_frac=float((nearest > np.quantile(usual, 0.95)).mean()),
        nearest=ours.argmax(axis=1),
        similarities=nearest,
    )


def _check_features(rows: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(rows, dtype=np.float64)
    if array.ndim != 2 or not len(array) or not np.isfinite(array).all():
        raise ScoreError(f"memorisation: {name} features of shape {array.shape}, expected finite [clips, D]")
    return array


def _unit_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0.0, lengths, 1.0)


def best_code_match(codes: ArrayLike, track: ArrayLike) -> float:
    """Largest share of a clip's codes that equals a training track's codes at any shift.

    Args:
        codes: [F] first-codebook codes of a generated clip.
        track: [F'] first-codebook codes of a training track, F' >= 1.

    Returns:
        1 for an exact copy; the MusicGen paper counts 0.8 and above as a partial match.

    Raises:
        ScoreError: an empty sequence.
    """
    ours, theirs = np.asarray(codes).ravel(), np.asarray(track).ravel()
    if not len(ours) or not len(theirs):
        raise ScoreError(
            f"code match: {len(ours)} and {len(theirs)} codes, expected at least one on each side"
        )
    # Every equal pair of codes votes for its shift, so that pairs that differ cost nothing.
    order = np.argsort(theirs, kind="stable")
    ordered = theirs[order]
    first, last = np.searchsorted(ordered, ours, "left"), np.searchsorted(ordered, ours, "right")
    counts = last - first
    if not counts.sum():
        return 0.0
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    shifts = order[np.repeat(first, counts) + within] - np.repeat(np.arange(len(ours)), counts)
    return float(np.bincount(shifts + len(ours) - 1).max()) / len(ours)
