"""Text control after fine-tuning: how distinct the prompts still are, and where their clips moved.

All figures use one vector per clip, base and fine-tuned clips in pairs (same prompt, same noise).

*Separation* of a prompt: squared distance between its mean and the other prompts' means, less the part that sampling
alone gives, over the variance within a prompt.  0: the prompt cannot be distinguished from the others.
*Pull* of a prompt (its shift toward the genre): how far its clips moved from the base's mean towards the mean of the
genre's recordings.  0: no move in that direction; 1: arrived.  Off-genre prompts should move less than the genre's own.
*Retention* of a prompt: 1 less the length of its move in any direction, as a share of that way.  1: nothing moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import Embeddings
from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.clusters import Clusters, average_clips, cluster_embeddings
from lora_bench.metrics.frechet import check_same_dim
from lora_bench.metrics.jackknife import Jackknife, leave_out_means, make_interval, summarize_replicates

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_PAIRS = 3


@dataclass(frozen=True)
class Estimated:
    """A bias-corrected figure with its 95 % interval (None if nothing can be left out)."""

    value: float
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True)
class ControlSets:
    """Paired clips of several prompts, and the genre's recordings; one vector per clip.

    Attributes:
        base: by prompt [n, D].
        tuned: by prompt [n, D], the same clips in the same order.
        reference: clusters are the tracks.
    """

    base: tuple[NDArray[np.float64], ...]
    tuned: tuple[NDArray[np.float64], ...]
    reference: Clusters


def pair_prompts(
    base: Sequence[Embeddings], tuned: Sequence[Embeddings], reference: Embeddings
) -> ControlSets:
    """Average the windows of every clip, and keep the clips of both generators.

    Args:
        base: one set per prompt.
        tuned: one set per prompt, in the same order.
        reference: the genre's recordings.

    Raises:
        UnscoredError: a prompt has fewer than three pairs.
        ScoreError: different dimensions, or values that are not finite.
    """
    if not base or len(base) != len(tuned):
        raise ScoreError(
            f"{len(base)} and {len(tuned)} prompts to compare; expected one set of each per prompt"
        )
    theirs = cluster_embeddings(average_clips(reference), "reference")
    ours: list[NDArray[np.float64]] = []
    others: list[NDArray[np.float64]] = []
    for one, other in zip(base, tuned, strict=True):
        rows = {name: place for place, name in enumerate(other.clip_names)}
        common = [place for place, name in enumerate(one.clip_names) if name in rows]
        if len(common) < MIN_PAIRS:
            raise UnscoredError(
                f"{len(common)} clip(s) are in both sets; text control needs at least {MIN_PAIRS} of each prompt"
            )
        ours.append(np.asarray(average_clips(one).values, dtype=np.float64)[common])
        partners = [rows[one.clip_names[place]] for place in common]
        others.append(np.asarray(average_clips(other).values, dtype=np.float64)[partners])
        for vectors in (ours[-1], others[-1]):
            check_same_dim(vectors, theirs.vectors)
    return ControlSets(tuple(ours), tuple(others), theirs)


def measure_separation(
    sets: Sequence[NDArray[np.float64]],
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Measure the separation of every prompt [P], and the same without each clip: per prompt [n, P].

    Args:
        sets: by prompt [n, D] with n >= 3; at least two prompts.

    Raises:
        UnscoredError: one prompt only, or all clips of every prompt are equal.
    """
    if len(sets) < 2:
        raise UnscoredError("one prompt only; prompt separation needs at least two")
    origin = np.concatenate(sets).mean(axis=0)
    centred = [vectors - origin for vectors in sets]
    means = np.stack([vectors.mean(axis=0) for vectors in centred])
    squares = np.array([(vectors**2).sum() for vectors in centred])
    counts = np.array([len(vectors) for vectors in centred], dtype=np.float64)
    products = np.asarray(means @ means.T, dtype=np.float64)
    within = (squares - counts * np.diag(products)) / (counts - 1.0)
    if within.mean() <= 1e-12 * max(float(squares.sum() / counts.sum()), 1e-300):
        raise UnscoredError("all clips of every prompt are equal, so there is no spread to relate to")
    full = _separate(products[None], within[None], counts[None])[0]
    replicates: list[NDArray[np.float64]] = []
    for place, vectors in enumerate(centred):
        n = len(vectors)
        left = leave_out_means(vectors)
        own = (left**2).sum(axis=1)
        some_products = np.repeat(products[None], n, axis=0)
        some_products[:, place, :] = some_products[:, :, place] = left @ means.T
        some_products[:, place, place] = own
        some_within = np.repeat(within[None], n, axis=0)
        some_within[:, place] = (squares[place] - (vectors**2).sum(axis=1) - (n - 1.0) * own) / (n - 2.0)
        some_counts = np.repeat(counts[None], n, axis=0)
        some_counts[:, place] = n - 1.0
        replicates.append(_separate(some_products, some_within, some_counts))
    return full, replicates


def _separate(
    products: NDArray[np.float64], within: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return [B, P] from scalar products of means [B, P, P], variances within [B, P] and counts of clips [B, P]."""
    squares = np.diagonal(products, axis1=1, axis2=2)
    noise = within / counts
    apart = squares[:, :, None] + squares[:, None, :] - 2.0 * products
    apart = apart - noise[:, :, None] - noise[:, None, :]
    n_prompts = products.shape[1]
    apart *= 1.0 - np.eye(n_prompts)
    return apart.sum(axis=2) / (n_prompts - 1.0) / within.mean(axis=1)[:, None]


def tell_prompts(sets: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the share [P] of each prompt's clips that are nearest to their own prompt's mean (without themselves)."""
    means = np.stack([vectors.mean(axis=0) for vectors in sets])
    shares: list[float] = []
    for place, vectors in enumerate(sets):
        distances = ((vectors[:, None, :] - means[None]) ** 2).sum(axis=2)
        n = len(vectors)
        distances[:, place] *= (n / (n - 1.0)) ** 2  # distance to the mean of the others
        shares.append(float((distances.argmin(axis=1) == place).mean()))
    return np.array(shares)


def compare_separation(sets: ControlSets) -> tuple[NDArray[np.float64], NDArray[np.float64], list[Estimated]]:
    """Compare separations: of the base [P], of the fine-tuned [P], and the differences per prompt and on average.

    Raises:
        UnscoredError: as `measure_separation`.
    """
    (base, base_left), (tuned, tuned_left) = measure_separation(sets.base), measure_separation(sets.tuned)
    left = [_with_mean(b - a) for a, b in zip(base_left, tuned_left, strict=True)]
    full = _with_mean((tuned - base)[None])[0]
    # The statistic is unbiased but for the ratio: the jackknife's estimate of its bias is noise.
    return base, tuned, [_estimate(full, [left], place, corrected=False) for place in range(len(full))]


def measure_pull(sets: ControlSets, contrast: NDArray[np.float64] | None = None) -> list[Estimated]:
    """Measure the pull of every prompt, their mean, and a contrast of prompts if given; bias-corrected.

    Args:
        sets: paired clips and the genre's recordings.
        contrast: [P] weights of the prompts, for example off-genre less in-genre.

    Raises:
        UnscoredError: a base mean equals the reference's mean.
    """
    return _measure_moves(_pull, sets, contrast)


def measure_retention(sets: ControlSets, weights: NDArray[np.float64] | None = None) -> list[Estimated]:
    """Measure the retention of every prompt, over all, and over prompts with weights [P] if given.

    Retention is 1 less the length of the move of a prompt's mean, in any direction, as a share of the way to the
    genre's recordings; squares are corrected for bias and averaged, then the root is taken.

    Raises:
        UnscoredError: a base mean equals the reference's mean.
    """

    def retain(square: float | None) -> float | None:
        return None if square is None else 1.0 - float(np.sqrt(max(square, 0.0)))

    return [
        Estimated(1.0 - float(np.sqrt(max(item.value, 0.0))), None, retain(item.ci_high), retain(item.ci_low))
        for item in _measure_moves(_drift, sets, weights)
    ]


def _measure_moves(
    measure: Callable[..., NDArray[np.float64]], sets: ControlSets, contrast: NDArray[np.float64] | None
) -> list[Estimated]:
    target = sets.reference.vectors.mean(axis=0)
    full = np.array([measure(b.mean(axis=0), t.mean(axis=0), target) for b, t in _pairs(sets)])
    if not np.isfinite(full).all():
        raise UnscoredError(
            "a prompt's mean is that of the recordings, so there is no direction towards them"
        )
    generated: list[NDArray[np.float64]] = []
    for place, (base, tuned) in enumerate(_pairs(sets)):
        n = len(base)
        values = np.repeat(full[None], n, axis=0)
        values[:, place] = measure(leave_out_means(base), leave_out_means(tuned), target)
        generated.append(_finish(values, contrast))
    targets = _leave_out_tracks(sets.reference)
    of_reference = np.stack(
        [measure(b.mean(axis=0), t.mean(axis=0), targets) for b, t in _pairs(sets)], axis=1
    )
    sides = [generated, [_finish(of_reference, contrast)]]
    whole = _finish(full[None], contrast)[0]
    sizes = [None, sets.reference.sizes.astype(np.float64)]
    return [_estimate(whole, sides, place, corrected=True, sizes=sizes) for place in range(len(whole))]


def _pairs(sets: ControlSets) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    return list(zip(sets.base, sets.tuned, strict=True))


def _pull(
    base: NDArray[np.float64], tuned: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of the way from the base's mean to the target; any of the means may be [..., D]."""
    way = target - base
    with np.errstate(invalid="ignore", divide="ignore"):
        return ((tuned - base) * way).sum(axis=-1) / (way**2).sum(axis=-1)


def _drift(
    base: NDArray[np.float64], tuned: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the squared length of the move over that of the way to the target; any of the means may be [..., D]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return ((tuned - base) ** 2).sum(axis=-1) / ((target - base) ** 2).sum(axis=-1)


def _leave_out_tracks(reference: Clusters) -> NDArray[np.float64]:
    """Return the means without each track, [G, D]; for a single track the mean itself."""
    sums = np.add.reduceat(reference.vectors, reference.starts[:-1])
    if len(sums) < 2:
        return reference.vectors.mean(axis=0)[None]
    return leave_out_means(sums, reference.sizes)


def _with_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([values, values.mean(axis=1, keepdims=True)], axis=1)


def _finish(values: NDArray[np.float64], contrast: NDArray[np.float64] | None) -> NDArray[np.float64]:
    whole = _with_mean(values)
    return whole if contrast is None else np.concatenate([whole, (values @ contrast)[:, None]], axis=1)


def _estimate(
    full: NDArray[np.float64],
    sides: Sequence[Sequence[NDArray[np.float64]]],
    place: int,
    *,
    corrected: bool,
    sizes: Sequence[NDArray[np.float64] | None] | None = None,
) -> Estimated:
    """Estimate one figure's interval from leave-one-out values; each side is a list of strata [n, figures]."""
    value = float(full[place])
    found: list[Jackknife] = []
    for number, strata in enumerate(sides):
        values = np.concatenate([part[:, place] for part in strata])
        labels = np.repeat(np.arange(len(strata)), [len(part) for part in strata])
        given = None if sizes is None else sizes[number]
        side = summarize_replicates(value, values, np.ones(len(values)) if given is None else given, labels)
        if side is not None:
            found.append(side)
    if len(found) < len(sides):
        return Estimated(value)
    centre = value - sum(side.bias for side in found) if corrected else value
    interval = make_interval(centre, found)
    return Estimated(centre, interval.se, interval.low, interval.high)
