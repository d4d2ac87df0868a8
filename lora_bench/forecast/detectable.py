"""The smallest difference that a design finds, and the designs that find a stated one.

The variance of a difference has a part of the clips, the reference tracks and the training seeds
(`metrics/contrast.py`), and each part falls with the number of its units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from lora_bench.metrics.contrast import Cause
from lora_bench.metrics.t_distribution import detectable_difference

POWER = 0.8
MAX_UNITS = 100_000
MAX_SEEDS = 20
MAX_CLIPS_FACTOR = 4
"""More tracks are asked for where even so many times the planned clips would not do."""


@dataclass(frozen=True)
class Design:
    """Numbers that decide the error of a difference over the genre's own prompts together.

    Attributes:
        clips: per prompt.
        tracks: reference tracks; 0 for a rating, which has no references.
        seeds: training seeds; a single one speaks of this adapter, and has no part in the error.
    """

    clips: int
    tracks: int
    seeds: int


@dataclass(frozen=True)
class Spread:
    """Variances of single units, by cause; seeds are absent where the earlier run had a single one.

    Attributes:
        of_unit: variance that a clip, track or seed would cause alone.
        n_prompts: strata of the clips.
        pooling: degrees of freedom per training seed, less one; above 1 where configurations share the estimate.
    """

    of_unit: Mapping[Cause, float]
    n_prompts: int
    pooling: float = 1.0

    def parts(self, design: Design) -> dict[Cause, float]:
        """Return the variance of a difference by cause."""
        numbers = {"clips": design.clips * self.n_prompts, "tracks": design.tracks, "seeds": design.seeds}
        return {
            cause: value / numbers[cause]
            for cause, value in self.of_unit.items()
            if cause != "seeds" or design.seeds > 1
        }

    def detectable(self, design: Design, alpha: float) -> float:
        """Return the smallest true difference that is found with a probability of 80 %."""
        freedom = {
            "clips": (design.clips - 1) * self.n_prompts,
            "tracks": design.tracks - 1,
            "seeds": self.pooling * (design.seeds - 1),
        }
        parts = self.parts(design)
        variance = sum(parts.values())
        if variance == 0.0:
            return 0.0
        if any(freedom[cause] < 1 for cause in parts):
            return math.inf
        welch = variance**2 / sum(value**2 / freedom[cause] for cause, value in parts.items())
        return detectable_difference(math.sqrt(variance), welch, alpha, POWER)


@dataclass(frozen=True)
class Need:
    """What it takes to detect a difference.

    Attributes:
        alone: by cause, the number that is needed if the others stay as planned; None if no number is enough.
        limits: by cause, the smallest difference that any number of it alone can detect.
        cheapest: the design with the fewest generated clips, at the planned tracks if these suffice.
    """

    difference: float
    alone: Mapping[Cause, int | None]
    limits: Mapping[Cause, float]
    cheapest: Design | None


def find_need(spread: Spread, design: Design, alpha: float, difference: float) -> Need:
    """Return the numbers of clips, tracks and seeds that find a difference with a probability of 80 %."""
    alone: dict[Cause, int | None] = {}
    limits: dict[Cause, float] = {}
    for cause in spread.parts(design):
        measure = partial(_measure_with, spread, design, alpha, cause)
        alone[cause], limits[cause] = _find_fewest(measure, difference), measure(MAX_UNITS)
    return Need(difference, alone, limits, _find_cheapest(spread, design, alpha, difference))


def _measure_with(spread: Spread, design: Design, alpha: float, cause: Cause, n: int) -> float:
    changed = {
        "clips": replace(design, clips=n),
        "tracks": replace(design, tracks=n),
        "seeds": replace(design, seeds=n),
    }
    return spread.detectable(changed[cause], alpha)


def _find_fewest(measure: Callable[[int], float], difference: float) -> int | None:
    """Return the smallest number, from 2 on, at which `measure` is at most `difference`; None if there is none."""
    low, high = 1, 2
    while measure(high) > difference:
        low, high = high, 2 * high
        if high > MAX_UNITS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if measure(middle) <= difference else (middle, high)
    return high


def _find_cheapest(spread: Spread, design: Design, alpha: float, difference: float) -> Design | None:
    """Return the design with the fewest clips over all seeds; with more tracks only if these do not suffice."""
    some = range(2, MAX_SEEDS + 1) if "seeds" in spread.parts(design) else [design.seeds]
    most = MAX_CLIPS_FACTOR * design.clips

    def best_with(tracks: int) -> float:
        return min(spread.detectable(Design(most, tracks, seeds), alpha) for seeds in some)

    tracks = design.tracks
    if best_with(tracks) > difference:
        needed = _find_fewest(best_with, difference)
        if needed is None:
            return None
        tracks = needed
    designs: list[Design] = []
    for seeds in some:
        measure = partial(_measure_with, spread, Design(2, tracks, seeds), alpha, "clips")
        clips = _find_fewest(measure, difference)
        if clips is not None:
            designs.append(Design(clips, tracks, seeds))
    return min(designs, key=lambda item: (item.clips * item.seeds, item.seeds), default=None)
