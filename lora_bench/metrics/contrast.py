"""The difference of a configuration from another: one crossed model of clips, reference tracks and training seeds.

Both sides have the same prompts and are scored against the same tracks.  The difference is the mean over training
seeds.  Its variance has three parts, each estimated with the others held fixed and then summed:

clips   a clip is left out of every trial at once (the trials of a contrast share its noise); of another system, whose
        clips have noise of their own, out of one side at a time (`subtract_independent`)
tracks  a reference track is left out of every trial at once
seeds   the spread of the difference over training seeds

The sum counts twice what two causes do together, so it errs on the large side.  Degrees of freedom are Welch's.
Verdicts come from simultaneous intervals over a family of contrasts: the largest of their standardised errors is
simulated with the correlations that shared clips, tracks and seeds give them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import special

from lora_bench.metrics.jackknife import Interval, Jackknife, join_freedom, make_interval
from lora_bench.metrics.replicates import Replicates, combine, sum_exactly
from lora_bench.metrics.t_distribution import detectable_difference, t_probability
from lora_bench.metrics.verdicts import ALPHA

if TYPE_CHECKING:
    from numpy.typing import NDArray

Cause = Literal["clips", "tracks", "seeds"]
Place = tuple[str, ...]
N_DRAWS = 20_000


@dataclass(frozen=True)
class Difference:
    """A difference and the parts of its error.

    Attributes:
        plugin: difference of the plug-in statistics.
        delta: difference of the bias-corrected statistics, the centre of the intervals.
        by_seed: `delta` of each training seed.
        errors: variance and degrees of freedom by cause; empty if nothing can be left out.
        deviations: by cause and stratum, the units' parts of the error; contrasts that share units are correlated.
        lacking: why there is no interval; empty if there is one.
    """

    plugin: float
    delta: float
    by_seed: tuple[float, ...]
    errors: Mapping[Cause, Jackknife]
    deviations: Mapping[tuple[Cause, int], NDArray[np.float64]]
    lacking: str = ""

    @cached_property
    def se(self) -> float:
        """Standard error of `delta`."""
        return float(np.sqrt(sum(part.variance for part in self.errors.values())))

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom of the standard error."""
        return join_freedom(list(self.errors.values())) if self.se > 0.0 else np.inf

    def interval(self, alpha: float = ALPHA) -> Interval:
        """Return the interval of confidence `1 - alpha`."""
        return make_interval(self.delta, list(self.errors.values()), alpha)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no difference, which agrees with `interval`."""
        if self.se == 0.0:
            return float(self.delta == 0.0)
        return t_probability(self.delta / self.se, self.freedom)

    def detectable(self, alpha: float = ALPHA) -> float:
        """Return the true difference that would be found with a probability of 80 %."""
        return detectable_difference(self.se, self.freedom, alpha)


def subtract(pairs: Sequence[tuple[Replicates, Replicates]]) -> Difference:
    """Return the mean difference of the first of each pair from the second; one pair per training seed.

    The spread over seeds is added by `add_seed_errors`, which sees all configurations.

    Raises:
        ScoreError: the sets do not have the same clips and tracks.
    """
    share = 1.0 / len(pairs)
    joined = combine(
        [side for pair in pairs for side in pair], [weight for _ in pairs for weight in (share, -share)]
    )
    by_seed = _subtract_by_seed(pairs)
    deviations: dict[tuple[Cause, int], NDArray[np.float64]] = {
        (name, stratum): values
        for name, part in joined.parts.items()
        for stratum, values in part.deviations().items()
    }
    errors: dict[Cause, Jackknife] = dict(joined.jackknife().items())
    return Difference(joined.value, joined.corrected, by_seed, errors, deviations, joined.lacking)


def subtract_independent(pairs: Sequence[tuple[Replicates, Replicates]]) -> Difference:
    """Return the mean difference of the first of each pair from the second, whose clips share no noise.

    The first of all pairs have the same clips, and so have the second.  Strata of clips are those of the second side,
    then those of the first.

    Raises:
        ScoreError: the sides were scored against different tracks.
    """
    share = 1.0 / len(pairs)
    second, first = (
        combine([pair[side] for pair in pairs], [weight] * len(pairs))
        for side, weight in ((1, -share), (0, share))
    )
    by_seed = _subtract_by_seed(pairs)
    value, lacking = sum_exactly((first.value, second.value), (1.0, 1.0)), first.lacking or second.lacking
    if lacking:
        return Difference(value, value, by_seed, {}, {}, lacking)
    tracks = (
        combine(
            [replace(side, parts={"tracks": side.parts["tracks"]}) for side in (first, second)], [1.0, 1.0]
        )
        if "tracks" in first.parts
        else None
    )
    clips = [side.jackknife().get("clips") for side in (second, first)]
    known = [part for part in clips if part is not None]
    errors: dict[Cause, Jackknife] = {}
    if known:
        variance = sum(part.variance for part in known)
        freedom = join_freedom(known) if variance else min(part.freedom for part in known)
        errors["clips"] = Jackknife(sum(part.bias for part in known), variance, freedom)
    deviations: dict[tuple[Cause, int], NDArray[np.float64]] = {}
    for side in (second, first):
        begin = len(deviations)
        for place, values in enumerate(side.parts["clips"].deviations().values()):
            deviations["clips", begin + place] = values
    if tracks is not None:
        errors |= tracks.jackknife()
        deviations |= {
            ("tracks", stratum): values for stratum, values in tracks.parts["tracks"].deviations().items()
        }
    delta = sum_exactly((first.corrected, second.corrected), (1.0, 1.0))
    return Difference(value, delta, by_seed, errors, deviations)


def _subtract_by_seed(pairs: Sequence[tuple[Replicates, Replicates]]) -> tuple[float, ...]:
    return tuple(sum_exactly((one.corrected, other.corrected), (1.0, -1.0)) for one, other in pairs)


def add_seed_errors(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences with the variance over training seeds, where there are several seeds.

    Seeds differ by a common shift and by an interaction with the configuration.  Where all configurations have the
    same number of seeds, both variances are pooled over them (a two-way layout), except for a configuration whose own
    variance is larger than the pooled one beyond chance: it is not judged by the stability of others.

    Args:
        differences: of all configurations that are compared with the same one, on one metric and prompt, their seeds
            in the same order.
    """
    several = [item for item in differences if len(item.by_seed) > 1]
    sizes = {len(item.by_seed) for item in several}
    pooled = (
        _pool_seeds(np.array([item.by_seed for item in several])) if len(sizes) == 1 < len(several) else None
    )
    return [item if len(item.by_seed) < 2 else _add_seeds(item, pooled) for item in differences]


def _pool_seeds(deltas: NDArray[np.float64]) -> Jackknife:
    """Return the variance of one configuration's mean, from the deltas [configurations, seeds] of all."""
    n, n_seeds = deltas.shape
    shifts = deltas.mean(axis=0) - deltas.mean()
    rest = deltas - deltas.mean(axis=1, keepdims=True) - shifts
    df_shift, df_rest = n_seeds - 1, (n - 1) * (n_seeds - 1)
    # E[MS of shifts] = n s_shift^2 + s_rest^2, so that s_shift^2 + s_rest^2 is a weighted sum of the two mean squares
    parts = (
        Jackknife(0.0, float((shifts**2).sum()) / df_shift / n_seeds, df_shift),
        Jackknife(0.0, (n - 1) / n * float((rest**2).sum()) / df_rest / n_seeds, df_rest),
    )
    variance = sum(part.variance for part in parts)
    return Jackknife(0.0, variance, join_freedom(parts) if variance else float(df_shift))


def _add_seeds(item: Difference, pooled: Jackknife | None) -> Difference:
    if item.lacking:
        return item
    deltas = np.asarray(item.by_seed)
    n = len(deltas)
    found = Jackknife(0.0, float(deltas.var(ddof=1)) / n, n - 1)
    if pooled is not None and found.variance > 0.0:
        ratio = found.variance / pooled.variance
        found = pooled if special.fdtrc(n - 1, pooled.freedom, ratio) > ALPHA else found
    shape = deltas - deltas.mean()
    length = float(np.linalg.norm(shape))
    deviations = shape / length * np.sqrt(found.variance) if length else shape
    return replace(
        item,
        errors={**item.errors, "seeds": found},
        deviations={**item.deviations, ("seeds", 0): deviations},
    )


@dataclass(frozen=True)
class Family:
    """Simultaneous inference over several contrasts.

    Attributes:
        alpha: level of the single intervals at which all of them hold together with a confidence of `1 - level`.
        level: 5 %, or the part of it that a look spends.
        largest: [N_DRAWS] simulated largest standardised errors, ascending.
        n: number of contrasts.
    """

    alpha: float
    largest: NDArray[np.float64]
    n: int
    level: float = ALPHA

    def adjust(self, p_value: float) -> float:
        """Return the probability that any contrast of the family reaches `p_value` if none has a difference.

        Where this look spends a part of the 5 % alone, it is scaled to be compared with 5 %.
        """
        reached = special.ndtri(1.0 - max(p_value, 1e-300) / 2.0)
        above = 1.0 - np.interp(
            reached, self.largest, np.linspace(0.0, 1.0, len(self.largest))
        )  # as `np.quantile`
        joint = np.clip(max(above, 1.0 / (len(self.largest) + 1)), p_value, min(self.n * p_value, 1.0))
        return float(min(joint * ALPHA / self.level, 1.0))


def join_family(
    members: Sequence[tuple[Difference, Mapping[Cause, Sequence[Place]]]], level: float = ALPHA
) -> Family:
    """Find the level at which the members' intervals hold simultaneously.

    Args:
        members: differences with an interval; and by cause, the name of every stratum: equal names are the same
            clips, tracks or seeds.
        level: share of families in which any interval may miss.
    """
    rows = [
        {
            (cause, names[cause][stratum], len(values)): values
            for (cause, stratum), values in item.deviations.items()
        }
        for item, names in members
    ]
    columns = {key: None for row in rows for key in row}
    matrix = np.array([np.concatenate([row.get(key, np.zeros(key[2])) for key in columns]) for row in rows])
    lengths = np.linalg.norm(matrix, axis=1)
    matrix = matrix[lengths > 0.0] / lengths[lengths > 0.0, None]
    n = len(matrix)
    if n < 2:
        draws = np.random.default_rng(0).standard_normal(N_DRAWS)
        return Family(level, np.sort(np.abs(draws)), max(n, 1), level)
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    root = vectors[:, values > 1e-12] * np.sqrt(values[values > 1e-12])
    rng = np.random.default_rng(0)
    largest = np.sort(
        np.concatenate(
            [
                np.abs(rng.standard_normal((1000, root.shape[1])) @ root.T).max(axis=1)
                for _ in range(N_DRAWS // 1000)
            ]
        )
    )
    alpha = 2.0 * special.ndtr(-np.quantile(largest, 1.0 - level))
    return Family(float(np.clip(alpha, level / n, level)), largest, n, level)
