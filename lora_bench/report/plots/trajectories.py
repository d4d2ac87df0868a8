"""The plot of trajectories: score, held-out loss, copies and retention over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lora_bench.metrics.names import is_higher_better
from lora_bench.report.formatting import format_value
from lora_bench.report.plots.scores import MAX_SERIES, RIGHT, WIDTH, count_legend_rows, draw_legend
from lora_bench.report.view import Configuration, RunView
from lora_bench.report.writers.document import Figure
from lora_bench.report.writers.svg import SERIES_COLOURS, Canvas, nice_ticks, scale
from lora_bench.results.run_records import TrialResult
from lora_bench.study.table import choose_estimate, find_score

PANEL = 118.0
GAP = 34.0
LEFT = 84.0


@dataclass(frozen=True)
class Trajectory:
    """The rows of one training by step, ascending, and the step that the selection side chooses (None: unknown)."""

    name: str
    rows: tuple[tuple[int, Configuration], ...]
    chosen: int | None


@dataclass(frozen=True)
class Point:
    """One value at a step, with its interval if it has one."""

    step: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Panel:
    """One measure over steps: points by trajectory."""

    title: str
    lines: dict[str, list[Point]]


def list_trajectories(view: RunView) -> list[Trajectory]:
    """Return the trainings of which several steps are rows: those named `NAME@25` and so on, and NAME."""
    groups: dict[str, list[tuple[int, Configuration]]] = {}
    for item in view.fine_tuned:
        name, at, _ = item.name.partition("@")
        first = item.trials[0]
        planned = (first.train or {}).get("keep" if at else "steps")
        if isinstance(planned, int) and (at or (first.train or {}).get("keep") is None):
            groups.setdefault(name, []).append((planned, item))
    return [
        Trajectory(name, rows, _choose_step(view, rows))
        for name, found in groups.items()
        if len(rows := tuple(sorted(found, key=lambda row: row[0]))) > 1
    ]


def _choose_step(view: RunView, rows: Sequence[tuple[int, Configuration]]) -> int | None:
    """Return the best step by the scores of the selection side, or by its loss; None without such a side."""
    if view.results.dataset.selection is None:
        return None
    metric = view.primary_metric or ""
    scores = [[find_score(trial, metric, None, "selection") for trial in item.trials] for _, item in rows]
    found = [score for line in scores for score in line if score is not None]
    if len(found) == sum(map(len, scores)):
        field = choose_estimate(found)
        sign = -1.0 if is_higher_better(metric) else 1.0
        means = [_average(sign * getattr(score, field) for score in line if score) for line in scores]
    else:
        means = [_average(_list_losses(item)) for _, item in rows]
    known = [(mean, step) for mean, (step, _) in zip(means, rows, strict=True) if mean is not None]
    return min(known)[1] if len(known) == len(rows) else None


def _list_losses(item: Configuration) -> list[float | None]:
    return [trial.losses.last_eval for trial in item.trials]


def _average(values: Iterable[float | None]) -> float | None:
    """Return the mean over training seeds; None if it is unknown for one of them."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(listed) else None


def draw_trajectories(view: RunView) -> Figure | None:
    """Draw what happens over the steps of trainings, a panel per measure; None if no run keeps several steps."""
    trajectories = list_trajectories(view)
    shown = trajectories[: MAX_SERIES - 1]
    panels = [panel for panel in _list_panels(view, shown) if any(panel.lines.values())]
    if not panels:
        return None
    colours = {item.name: SERIES_COLOURS[1 + place] for place, item in enumerate(shown)}
    top = 18.0 + 20.0 * count_legend_rows(list(colours))
    canvas = Canvas(WIDTH, top + len(panels) * (PANEL + GAP) + 30.0, "Measures over the steps of trainings")
    draw_legend(canvas, colours)
    steps = (0.0, float(max(item.rows[-1][0] for item in shown)))
    chosen = {item.name: item.chosen for item in shown}
    for place, panel in enumerate(panels):
        _draw_panel(canvas, panel, steps, top + place * (PANEL + GAP), colours, chosen)
    bottom = top + len(panels) * (PANEL + GAP)
    for tick in nice_ticks(*steps):
        canvas.text(
            scale(tick, steps, (LEFT, RIGHT)), bottom - 2, f"{tick:g}", anchor="middle", kind="lb-soft"
        )
    canvas.text((LEFT + RIGHT) / 2, bottom + 16, "step", anchor="middle", kind="lb-soft")
    titles = ", ".join(panel.title for panel in panels)
    caption = (
        f"Over the steps of each training, with zero-shot at step 0: {titles}; intervals where there are any."
    )
    if any(step is not None for step in chosen.values()):
        caption += " The upright stroke is at the step that the selection tracks choose."
    else:
        caption += " No step is marked, because no tracks were set aside to select by."
    if len(shown) < len(trajectories):
        caption += f" Shown are the first {len(shown)} of {len(trajectories)} trainings."
    return Figure("trajectories", "Plot of measures over the steps of trainings", caption, canvas.render())


def _list_panels(view: RunView, shown: Sequence[Trajectory]) -> list[Panel]:
    guards = {item.trial: item for item in view.results.guards if item.prompt is None and item.trial}
    kept = [item for item in view.results.control if item.prompt is None and item.retention is not None]
    encoder = kept[0].encoder if kept else ""
    retained = {item.trial: item for item in kept if item.encoder == encoder}
    metric = view.primary_metric
    panels: list[Panel] = []
    if metric is not None:
        panels.append(Panel(metric, {item.name: _list_scores(view, item, metric) for item in shown}))
    losses = {item.name: _trace(view, item, lambda trial: trial.losses.last_eval) for item in shown}
    for item in shown:
        start = _average(trial.losses.first_eval for trial in item.rows[-1][1].trials)
        if start is not None and losses[item.name]:
            losses[item.name].insert(0, Point(0, start))
    panels.append(Panel("held-out loss", losses))
    for field, title in (
        ("closer_than_held_out_frac", "clips closer to the training set than held-out recordings"),
        ("copy_similarity", "similarity to the nearest training window"),
    ):
        lines = {
            item.name: _trace(
                view,
                item,
                lambda trial, field=field: getattr(guards.get(trial.id), field, None),
                with_base=True,
            )
            for item in shown
        }
        if any(lines.values()):
            panels.append(Panel(title, lines))
            break
    lines = {
        item.name: _trace(view, item, lambda trial: getattr(retained.get(trial.id), "retention", None))
        for item in shown
    }
    panels.append(Panel(f"retention by {encoder}", lines))
    return panels


def _list_scores(view: RunView, item: Trajectory, metric: str) -> list[Point]:
    base = view.base_of(item.rows[-1][1])
    rows = ([] if base is None else [(0, base)]) + list(item.rows)
    points: list[Point] = []
    for step, configuration in rows:
        cell = view.cell(configuration, metric, None)
        value = view.value(cell, metric)
        if value is None:
            continue
        # an interval belongs to the corrected value
        has_interval = cell.corrected is None or view.is_corrected(metric)
        points.append(Point(step, value, *((cell.low, cell.high) if has_interval else ())))
    return points


def _trace(
    view: RunView, item: Trajectory, read: Callable[[TrialResult], float | None], *, with_base: bool = False
) -> list[Point]:
    """Return the means over training seeds, where they are known for all of them."""
    base = view.base_of(item.rows[-1][1]) if with_base else None
    rows = ([] if base is None else [(0, base)]) + list(item.rows)
    means = ((step, _average(map(read, configuration.trials))) for step, configuration in rows)
    return [Point(step, mean) for step, mean in means if mean is not None]


def _draw_panel(
    canvas: Canvas,
    panel: Panel,
    steps: tuple[float, float],
    top: float,
    colours: dict[str, str],
    chosen: dict[str, int | None],
) -> None:
    edges = [
        edge
        for points in panel.lines.values()
        for point in points
        for edge in (point.value, point.low, point.high)
        if edge is not None
    ]
    margin = (max(edges) - min(edges)) * 0.08 or abs(max(edges)) * 0.05 or 1.0
    span = (min(edges) - margin, max(edges) + margin)
    rows = (top + PANEL, top + 16.0)
    canvas.text(LEFT, top + 8, panel.title, kind="lb-label")
    for tick in nice_ticks(*span, n=3):
        y = scale(tick, span, rows)
        canvas.line((LEFT, y, RIGHT, y), kind="lb-grid")
        canvas.text(LEFT - 8, y + 4, f"{tick:g}", anchor="end", kind="lb-soft")
    for name, points in panel.lines.items():
        canvas.series = name
        places = [
            (scale(point.step, steps, (LEFT, RIGHT)), scale(point.value, span, rows)) for point in points
        ]
        canvas.path(places, colours[name])
        for point, (x, y) in zip(points, places, strict=True):
            if point.low is not None and point.high is not None:
                ends = [scale(edge, span, rows) for edge in (point.low, point.high)]
                canvas.stroke((x, ends[0], x, ends[1]), colours[name])
            if point.step == chosen[name]:
                canvas.stroke((x, rows[0], x, rows[1]), colours[name])
            hint = f"{name} at step {point.step}: {format_value(point.value)}"
            canvas.dot(x, y, colours[name], hollow=point.step == 0, hint=hint)
    canvas.series = ""
