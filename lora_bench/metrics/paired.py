"""The difference of two generators that made the same clips from the same noise: clip i against clip i.

A jackknife that leaves out one pair (or one reference track) at a time gives the interval.  Swapping the labels within
pairs gives the p-value: if fine-tuning changed nothing, each clip of a pair could come from either generator.  The
whole statistic is recomputed for every swap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.metrics.clusters import Clusters, pool_small_strata
from lora_bench.metrics.estimate import can_leave_one_out, count_replicates, match_texts
from lora_bench.metrics.frechet import fit_gaussian
from lora_bench.metrics.frechet_replicates import FrechetReplicator, Replicator
from lora_bench.metrics.jackknife import (
    Jackknife,
    leave_one_out,
    leave_one_out_weights,
    make_interval,
    summarize_replicates,
)
from lora_bench.metrics.kernel import prepare_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PairedDifference:
    """Statistic of the second generator less that of the first.

    Attributes:
        plugin: difference of the plug-in statistics, which the test uses.
        delta: difference of the bias-corrected statistics, the interval's centre.
        se: standard error of `delta`; None, with the interval, if nothing can be left out.
        p_value: two-sided, of the label swaps; at least 1 / (swaps + 1).
        n_swaps: label assignments tried, including the observed one.
    """

    plugin: float
    delta: float
    se: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float
    n_swaps: int


@dataclass(frozen=True)
class PairedSets:
    """Both generators' clusters in one list (the base's, then the tuned's), ready for weights.

    Attributes:
        stacked: statistic of any selection of the 2 G clusters.
        references: statistic of the reference's clusters against the base and against the tuned; None if the
            reference is fixed (a text).
        can_leave_out: False if too little remains without a pair.
    """

    stacked: Replicator
    references: tuple[Replicator, Replicator] | None
    can_leave_out: bool


def pair_frechet(base: Clusters, tuned: Clusters, reference: Clusters) -> PairedSets:
    """Prepare the Frechet distance; `base` and `tuned` have the same clusters in the same order."""
    n_max = count_replicates(base)
    base, tuned = base.merge_to(n_max), tuned.merge_to(n_max)
    reference = reference.merge_to(count_replicates(reference))
    fixed = fit_gaussian(reference.vectors)
    references = (
        FrechetReplicator(reference, fit_gaussian(base.vectors)),
        FrechetReplicator(reference, fit_gaussian(tuned.vectors)),
    )
    possible = all(can_leave_one_out(item) for item in (base, tuned, reference))
    stacked = FrechetReplicator(stack_pairs(base, tuned), fixed)
    return PairedSets(stacked, references, possible)


def pair_kernel(base: Clusters, tuned: Clusters, reference: Clusters) -> PairedSets:
    """Prepare the kernel distance.

    Raises:
        UnscoredError: fewer than two clips on a side.
    """
    n = base.n_clusters
    base, tuned = pool_small_strata(base, 3), pool_small_strata(tuned, 3)
    blocks = prepare_blocks(stack_pairs(base, tuned), reference)
    references = (
        blocks.take_generated(slice(0, n)).of_reference(),
        blocks.take_generated(slice(n, 2 * n)).of_reference(),
    )
    return PairedSets(blocks.of_generated(), references, min(n, reference.n_clusters) > 2)


def pair_texts(base: Clusters, tuned: Clusters, texts: NDArray[np.float64]) -> PairedSets:
    """Prepare the text score."""
    return PairedSets(match_texts(stack_pairs(base, tuned), texts), None, base.n_clusters > 1)


def stack_pairs(base: Clusters, tuned: Clusters) -> Clusters:
    """Join both sets; the two clusters of a pair have the same stratum."""
    return Clusters(
        vectors=np.concatenate([base.vectors, tuned.vectors]),
        starts=np.concatenate([base.starts, tuned.starts[1:] + base.starts[-1]]),
        strata=np.concatenate([base.strata, tuned.strata]),
        n_clips=base.n_clips + tuned.n_clips,
        by=base.by,
    )


def estimate_difference(sets: PairedSets, n_permutations: int, seed: int) -> PairedDifference:
    """Estimate the difference with its interval and p-value.

    Args:
        sets: from `pair_frechet`, `pair_kernel` or `pair_texts`.
        n_permutations: number of random label swaps; if there are no more than that, all are tried.
        seed: of the random swaps.
    """
    p_value, n_swaps, plugin = swap_labels(sets.stacked, n_permutations, seed)
    sides = _jackknife_pairs(sets) if sets.can_leave_out else []
    if not sides:
        return PairedDifference(plugin, plugin, None, None, None, p_value, n_swaps)
    # The plain jackknife, also where D is large: what it leaves of the bias is nearly the same on both sides, and a
    # simulated correction adds noise that no interval holds (benchmarks/results/heavy_tails.md).
    delta = plugin - sum(side.bias for side in sides)
    interval = make_interval(delta, sides)
    return PairedDifference(plugin, delta, interval.se, interval.low, interval.high, p_value, n_swaps)


def _jackknife_pairs(sets: PairedSets) -> list[Jackknife]:
    """Return the error of the difference from each side; empty if nothing can be left out on a side."""
    half = len(sets.stacked.sizes) // 2
    sizes, strata = sets.stacked.sizes, sets.stacked.strata
    values: list[NDArray[np.float64]] = []
    for place in (slice(0, half), slice(half, 2 * half)):
        own = np.concatenate([np.ones((1, half)), leave_one_out_weights(sizes[place], strata[place])])
        weights = np.zeros((len(own), 2 * half))
        weights[:, place] = own
        values.append(sets.stacked.distances(weights))
    difference = values[1] - values[0]
    sides = [summarize_replicates(float(difference[0]), difference[1:], sizes[:half], strata[:half])]
    if sets.references is not None:
        base, tuned = sets.references
        (base_full, base_values), (tuned_full, tuned_values) = leave_one_out(base), leave_one_out(tuned)
        sides.append(
            summarize_replicates(tuned_full - base_full, tuned_values - base_values, base.sizes, base.strata)
        )
    found = [side for side in sides if side is not None]
    return found if len(found) == len(sides) else []


def swap_labels(stacked: Replicator, n_permutations: int, seed: int) -> tuple[float, int, float]:
    """Run a permutation test of no difference: p-value, number of label assignments, observed difference.

    A fair coin decides whether a pair's labels are swapped; with few pairs all assignments are tried.
    """
    n_pairs = len(stacked.sizes) // 2
    if 2 ** min(n_pairs, 62) <= n_permutations + 1:
        swapped = (np.arange(2**n_pairs)[:, None] >> np.arange(n_pairs)[None, :]) & 1
    else:
        swapped = np.random.default_rng(seed).integers(0, 2, size=(n_permutations + 1, n_pairs))
        swapped[0] = 0
    swapped = swapped.astype(np.float64)
    tuned = stacked.distances(np.concatenate([swapped, 1.0 - swapped], axis=1))
    base = stacked.distances(np.concatenate([1.0 - swapped, swapped], axis=1))
    differences = tuned - base
    observed = float(differences[0])
    # Rounding must not make a tie (the same sets with exchanged names) look smaller than the observed difference.
    tie = 1e-9 * max(float(np.abs(tuned).max()), float(np.abs(base).max()))
    extreme = int((np.abs(differences) >= abs(observed) - tie).sum())
    return extreme / len(differences), len(differences), observed
