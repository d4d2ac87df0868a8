"""Plots of quality against one cost: the Pareto front, and each kind of adapter in a colour of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lora_bench.report.formatting import clean_text, format_tick, format_value, shorten
from lora_bench.report.writers.document import Figure
from lora_bench.report.writers.svg import SERIES_COLOURS, Canvas, nice_ticks, scale
from lora_bench.study import MetricStudy, ParetoFront
from lora_bench.study.records import COSTS, Point

WIDTH = 760.0
RIGHT = 736.0
MARGIN_LEFT = 84.0
MAX_LABELS = 8
MAX_KIND_LABELS = 24
MAX_POINTS = 400
LABEL_HEIGHT = 13.0


def list_points(study: MetricStudy, front: ParetoFront) -> list[tuple[Point, float]]:
    """Return configurations with this cost, and the cost."""
    found = ((point, point.cost(front.cost)) for point in study.points)
    return [(point, cost) for point, cost in found if cost is not None]


def draw_front(study: MetricStudy, front: ParetoFront, slug: str, kinds: Mapping[str, str]) -> Figure:
    """Draw quality against one cost; the front's configurations are filled, joined and named.

    With `kinds` (by configuration), each kind has its colour and every configuration the name of its kind.
    """
    points = list_points(study, front)[:MAX_POINTS]
    costs = [cost for _, cost in points]
    positive = [cost for cost in costs if cost > 0]
    is_log = len(positive) > 1 and max(positive) > 20 * min(positive)
    least = min(positive) / 2 if is_log else 0.0  # zero-shot costs nothing: it stands at the edge

    def at(cost: float) -> float:
        return math.log10(max(cost, least)) if is_log else cost

    across = (at(min(costs)), at(max(costs)))
    room = (across[1] - across[0]) * 0.04 or 1.0
    across = (across[0] - room, across[1] + room)
    edges = [point.quality + sign * (point.se or 0.0) for point, _ in points for sign in (-1, 1)]
    margin = (max(edges) - min(edges)) * 0.08 or 1.0
    span = (min(edges) - margin, max(edges) + margin)
    top, bottom = 16.0, 276.0
    canvas = Canvas(WIDTH, 322.0, f"{study.metric} against {front.label}")
    for tick in nice_ticks(*span):
        y = scale(tick, span, (bottom, top))
        canvas.line((MARGIN_LEFT, y, RIGHT, y), kind="lb-grid")
        canvas.text(MARGIN_LEFT - 6, y + 4, format_tick(tick), anchor="end", kind="lb-soft")
    for cost, label in _cost_ticks(across, is_log):
        canvas.text(
            scale(cost, across, (MARGIN_LEFT, RIGHT)), bottom + 16, label, anchor="middle", kind="lb-soft"
        )
    canvas.text((MARGIN_LEFT + RIGHT) / 2, bottom + 36, front.label, anchor="middle", kind="lb-soft")
    optimal = {name: place for place, name in enumerate(front.optimal)}
    spots = {
        point.configuration: (
            scale(at(cost), across, (MARGIN_LEFT, RIGHT)),
            scale(point.quality, span, (bottom, top)),
        )
        for point, cost in points
    }
    canvas.path([spots[name] for name in front.optimal if name in spots], SERIES_COLOURS[1], dashed=True)
    for point, cost in points:
        x, y = spots[point.configuration]
        colour = _choose_colour(point.configuration, kinds, is_optimal=point.configuration in optimal)
        if point.se is not None:
            ends = [scale(point.quality + sign * point.se, span, (bottom, top)) for sign in (-1, 1)]
            canvas.stroke((x, ends[0], x, ends[1]), colour)
        hint = f"{point.configuration}: {format_value(point.quality)} for {cost:g}"
        canvas.dot(x, y, colour, hollow=point.configuration not in optimal, hint=clean_text(hint))
    if kinds:
        _label_kinds(canvas, spots, kinds, (top, bottom))
    for name in [] if kinds else front.optimal[:MAX_LABELS]:
        if name in spots:
            x, y = spots[name]
            is_right = x > (MARGIN_LEFT + RIGHT) / 2
            canvas.text(x + (-9 if is_right else 9), y - 7, shorten(name, 30), anchor="end" if is_right else "start",
                        kind="lb-label")  # fmt: skip
    quality = "higher" if study.higher_is_better else "lower"
    notes = [
        "Each kind of adapter has a colour." if kinds else "",
        "The cost is on a logarithmic scale." if is_log else "",
    ]
    caption = (
        f"{study.metric} against {COSTS[front.cost]}, {quality} is better; filled and joined are the configurations "
        f"that no other beats in both.{''.join(f' {note}' for note in notes if note)}"
    )
    return Figure(slug, f"Plot of {study.metric} against {front.label}", caption, canvas.render())


def _choose_colour(name: str, kinds: Mapping[str, str], *, is_optimal: bool) -> str:
    if not kinds:
        return SERIES_COLOURS[1 if is_optimal else 0]
    if name not in kinds:
        return SERIES_COLOURS[0]
    place = list(dict.fromkeys(kinds.values())).index(kinds[name])
    return SERIES_COLOURS[1 + place % (len(SERIES_COLOURS) - 1)]


def _label_kinds(
    canvas: Canvas,
    spots: Mapping[str, tuple[float, float]],
    kinds: Mapping[str, str],
    reach: tuple[float, float],
) -> None:
    """Write kinds next to their points, on the side with more room, moved apart where they would overlap."""
    top, bottom = reach
    placed: list[tuple[float, float, float]] = []  # begin, end and height
    for name, (x, y) in sorted(spots.items(), key=lambda spot: spot[1][1])[:MAX_KIND_LABELS]:
        text = kinds.get(name, name)
        is_right = x > (MARGIN_LEFT + RIGHT) / 2
        width = 7.0 * len(text)
        begin = x - 9 - width if is_right else x + 9

        def is_free(at: float, begin: float = begin, end: float = begin + width) -> bool:
            return all(
                end < other_begin or begin > other_end or abs(at - other) >= LABEL_HEIGHT
                for other_begin, other_end, other in placed
            )

        offsets = (sign * step for step in range(0, int(bottom - top), 2) for sign in (1, -1))
        heights = (y + 4 + offset for offset in offsets if top <= y + 4 + offset <= bottom)
        height = next(filter(is_free, heights), y + 4)
        placed.append((begin, begin + width, height))
        canvas.text(
            x + (-9 if is_right else 9), height, text, anchor="end" if is_right else "start", kind="lb-label"
        )


def _cost_ticks(across: tuple[float, float], is_log: bool) -> list[tuple[float, str]]:
    if not is_log:
        return [(tick, f"{tick:,g}") for tick in nice_ticks(*across)]
    powers = range(math.ceil(across[0]), math.floor(across[1]) + 1)
    return [(float(power), f"{10.0**power:,g}" if power < 6 else f"1e{power}") for power in powers]
