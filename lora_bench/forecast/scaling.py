"""From records of earlier trials to one that is like them: those most like it, and a line through their figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from lora_bench.forecast.history import Facts, Record
from lora_bench.planning.trial_plan import TrialPlan

ListFacts = Callable[[TrialPlan], Facts]


def choose_alike(
    records: Sequence[Record], trial: TrialPlan, list_facts: ListFacts
) -> tuple[list[Record], bool]:
    """Records that agree with a trial in as many facts as any, the first facts first; and whether in all of them."""
    wanted = list_facts(trial)
    found, is_same = list(records), bool(records)
    for position, value in enumerate(wanted):
        alike = [record for record in found if list_facts(record.trial)[position] == value]
        is_same = is_same and bool(alike)
        found = alike or found
    return found, is_same


def predict_figure(
    records: Sequence[Record],
    trial: TrialPlan,
    list_facts: ListFacts,
    count: Callable[[TrialPlan], float],
    read: Callable[[Record], float | None],
) -> tuple[float | None, bool]:
    """A figure of a trial by those of records, and whether one of them was the same work.

    Args:
        records: of the trial's model.
        trial: what is asked for.
        list_facts: what decides the figure, apart from the amount of work.
        count: amount of work.
        read: the figure of a record; None if it has none.
    """
    known = [record for record in records if read(record) is not None]
    alike, is_same = choose_alike(known, trial, list_facts)
    points = [(count(record.trial), value) for record in alike if (value := read(record)) is not None]
    work = count(trial)
    exact = [point for point in points if point[0] == work]
    return scale_figure(exact or points, work), is_same and bool(exact)


def scale_figure(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """A figure at `x` by figures elsewhere; None without any.

    Args:
        points: amount of work and figure of each record.
        x: amount of work that is asked for.

    Returns:
        From one amount, in proportion; from several, on the line through the least and the most, which tells what
        each trial takes from what its work takes.
    """
    by_x: dict[float, list[float]] = {}
    for amount, figure in points:
        by_x.setdefault(amount, []).append(figure)
    known = {amount: statistics.median(figures) for amount, figures in by_x.items() if amount > 0}
    if not known:
        return None
    low, high = min(known), max(known)
    slope = (known[high] - known[low]) / (high - low) if high > low else 0.0
    start = known[high] - slope * high
    if slope <= 0 or start < 0:
        nearest = min(known, key=lambda amount: abs(amount - x))
        return known[nearest] / nearest * x
    return start + slope * x
