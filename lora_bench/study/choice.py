"""Choice of configurations: Pareto fronts of quality and cost, and the best one by a stated rule."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from lora_bench.metrics.names import is_higher_better
from lora_bench.results.run_records import TrialKind, TrialResult
from lora_bench.study.fitting import SeedError
from lora_bench.study.records import COSTS, Best, Cost, ParetoFront, Point
from lora_bench.study.table import Row, Side

RULE = (
    "the fewest trainable parameters among the fine-tuned configurations that are scored on every planned "
    "training seed and whose mean is worse than the best mean by at most one standard error, over training "
    "seeds, of a difference between two configurations"
)
RULE_ONE_SEED = (
    "the best value among the fine-tuned configurations; with a single training seed the variation between "
    "trainings is unknown, so a smaller configuration that is as good cannot be identified"
)


def make_points(rows: Sequence[Row], error: SeedError, trials: Iterable[TrialResult]) -> tuple[Point, ...]:
    """Return quality and costs of every scored configuration, zero-shot first."""
    planned = Counter((trial.kind, trial.configuration) for trial in trials)
    groups: dict[tuple[TrialKind, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.trial.kind, row.configuration), []).append(row)
    points = [_make_point(group, error, planned[key]) for key, group in groups.items()]
    return tuple(sorted(points, key=lambda point: point.kind != "zero-shot"))


def _make_point(rows: Sequence[Row], error: SeedError, n_planned: int) -> Point:
    trials = [row.trial for row in rows]
    is_zero_shot = trials[0].is_zero_shot
    return Point(
        configuration=rows[0].configuration,
        kind="zero-shot" if is_zero_shot else "fine-tuned",
        quality=math.fsum(row.value for row in rows) / len(rows),
        se=None if is_zero_shot or error.sd is None else error.sd / math.sqrt(len(rows)),
        n_done=len(rows),
        n_planned=n_planned,
        trainable_params=_average(trial.adapter_params for trial in trials),
        train_s=0.0 if is_zero_shot else _average(trial.wall_s.get("train") for trial in trials),
        total_s=_average(trial.total_s for trial in trials),
        peak_memory_gib=None if is_zero_shot else _average(trial.peak_memory_gib for trial in trials),
    )


def _average(values: Iterable[float | None]) -> float | None:
    """Return the mean over trials; None if it is unknown for one of them."""
    known = list(values)
    if not known or any(value is None for value in known):
        return None
    return math.fsum(float(value) for value in known if value is not None) / len(known)


def find_fronts(points: Sequence[Point], *, higher_is_better: bool) -> tuple[ParetoFront, ...]:
    """Return one front per cost that at least two configurations have."""
    fronts: list[ParetoFront] = []
    for cost, label in COSTS.items():
        known = [point for point in points if point.cost(cost) is not None]
        if len(known) < 2:
            continue
        optimal = find_optimal(known, cost, higher_is_better=higher_is_better)
        names = {point.configuration for point in optimal}
        dominated = tuple(point.configuration for point in known if point.configuration not in names)
        fronts.append(ParetoFront(cost, label, tuple(p.configuration for p in optimal), dominated))
    return tuple(fronts)


def find_optimal(points: Sequence[Point], cost: Cost, *, higher_is_better: bool) -> list[Point]:
    """Return the points that no other beats: cheaper and at least as good, or as cheap and better; cheapest first."""
    sign = -1.0 if higher_is_better else 1.0
    ordered = sorted(points, key=lambda point: (point.cost(cost) or 0.0, sign * point.quality))
    optimal: list[Point] = []
    for point in ordered:
        last = optimal[-1] if optimal else None
        is_twin = last is not None and (last.cost(cost), last.quality) == (point.cost(cost), point.quality)
        if last is None or is_twin or sign * point.quality < sign * last.quality:
            optimal.append(point)
    return optimal


def choose_best(
    points: Sequence[Point], error: SeedError, *, higher_is_better: bool, side: Side = "test"
) -> Best | None:
    """Return the configuration that the rule chooses; None if no fine-tuned one is scored on all its seeds.

    Args:
        points: configurations with their quality on one side of the tracks.
        error: variation between seeds there.
        higher_is_better: of the quality.
        side: which side that is.
    """
    candidates = [p for p in points if p.kind == "fine-tuned" and p.n_done == p.n_planned]
    if not candidates:
        return None
    sign = -1.0 if higher_is_better else 1.0
    leader = min(candidates, key=lambda point: sign * point.quality)
    if error.sd is None:
        facts = side, leader.quality, len(candidates)
        return Best(leader.configuration, leader.configuration, None, RULE_ONE_SEED, *facts)
    near: list[Point] = []
    for point in candidates:
        tolerance = error.sd * math.sqrt(1.0 / point.n_done + 1.0 / leader.n_done)
        if point is leader or sign * (point.quality - leader.quality) <= tolerance:
            near.append(point)
    chosen = min(near, key=lambda p: (_size(p), sign * p.quality))
    tolerance = error.sd * math.sqrt(1.0 / chosen.n_done + 1.0 / leader.n_done)
    facts = side, chosen.quality, len(candidates)
    return Best(chosen.configuration, leader.configuration, tolerance, RULE, *facts)


def describe_side(metric: str, side: Side) -> str:
    """Return by what the best one on a metric was chosen."""
    if side == "selection":
        return "the selection tracks"
    return f"the {'clips' if is_higher_better(metric) else 'tracks'} that score it"


def describe_bias(metric: str, side: Side, n_candidates: int) -> str:
    """Return what the choice does to the score of the chosen one; empty if it does nothing."""
    if side == "selection" or n_candidates < 2:
        return ""
    return f"the score is optimistic, because {describe_side(metric, side)} also chose it"


def _size(point: Point) -> float:
    return math.inf if point.trainable_params is None else point.trainable_params
