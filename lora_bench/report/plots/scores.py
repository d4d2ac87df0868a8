"""Plots of a report: scores with intervals per prompt, and loss curves."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from markupsafe import Markup

from lora_bench.metrics.names import is_higher_better
from lora_bench.report.formatting import format_tick, format_value, shorten, text_width
from lora_bench.report.view import CellValue, Configuration, RunView, name_floor
from lora_bench.report.writers.document import Figure
from lora_bench.report.writers.svg import SERIES_COLOURS, Canvas, nice_ticks, scale
from lora_bench.results.run_files import CurvePoint

MAX_SERIES = 8
MAX_GROUPS = 12
MAX_POINTS = 400
WIDTH = 760.0
LEFT, RIGHT = 24.0, 736.0
MAX_LINE_CHARS = 105  # in the plots' small letters from edge to edge

Drawn = tuple[str, list[tuple[Configuration, CellValue]]]


def choose_configurations(view: RunView, metric: str) -> list[Configuration]:
    """Return zero-shot and the best others, as many as can be distinguished, in the plan's order."""
    if len(view.configurations) <= MAX_SERIES:
        return view.configurations
    sign = -1.0 if is_higher_better(metric) else 1.0
    ranked = sorted(
        (sign * value, index)
        for index, item in enumerate(view.configurations)
        if not item.is_zero_shot and (value := view.cell(item, metric, None).value) is not None
    )
    kept = {index for _, index in ranked[: MAX_SERIES - 1]}
    return [item for i, item in enumerate(view.configurations) if item.is_zero_shot or i in kept]


def assign_colours(view: RunView, names: Container[str]) -> dict[str, str]:
    """Give configurations their colours in the order of the spec: the same in all plots of the same configurations."""
    palette = itertools.cycle(SERIES_COLOURS[1:])
    chosen = (item for item in view.configurations if item.name in names)
    return {item.name: SERIES_COLOURS[0] if item.is_zero_shot else next(palette) for item in chosen}


def draw_scores(view: RunView, metric: str, slug: str) -> Figure | None:
    """Draw values with their intervals, grouped by prompt; None if there is no value.

    Drawn is the confidence interval where there is one, else the standard error, else the point alone.
    """
    chosen = [
        item
        for item in choose_configurations(view, metric)
        if any(view.cell(item, metric, prompt).value is not None for prompt in (*view.prompts, None))
    ]
    prompts: list[str | None] = [*view.prompts[: MAX_GROUPS - 1], None]
    groups: list[Drawn] = []
    for prompt in prompts:
        cells = [
            (item, cell) for item in chosen if (cell := view.cell(item, metric, prompt)).value is not None
        ]
        if cells:
            groups.append((view.pooled if prompt is None else shorten(prompt, 84), cells))
    if not groups:
        return None
    is_corrected = view.is_corrected(metric)
    if not is_corrected:  # an interval belongs to the corrected value
        groups = [
            (label, [(item, _drop_correction(cell)) for item, cell in cells]) for label, cells in groups
        ]
    floors = [
        (name_floor(floor), floor.best_value if is_corrected else floor.value)
        for floor in view.floors(metric)
    ]
    colours = assign_colours(view, {item.name for item in chosen})
    svg = _draw_groups(metric, groups, floors, colours)
    what = "values corrected for bias" if is_corrected and not is_higher_better(metric) else "values"
    caption = f"{metric}: {what}, with intervals where there are any; grey and hollow is zero-shot."
    if len(view.configurations) > MAX_SERIES:
        n_shown = sum(not item.is_zero_shot for item in chosen)
        caption += f" Shown are the best {n_shown} of {len(view.rivals)} over all prompts."
    if len(view.prompts) > MAX_GROUPS - 1:
        caption += f" Shown are the first {MAX_GROUPS - 1} of {len(view.prompts)} prompts."
    return Figure(slug, f"Plot of {metric} per prompt and configuration", caption, svg)


def _draw_groups(
    metric: str, groups: list[Drawn], floors: list[tuple[str, float]], colours: dict[str, str]
) -> Markup:
    values = [value for _, value in floors]
    for _, cells in groups:
        for _, cell in cells:
            values += [edge for edge in (_centre(cell), cell.low, cell.high) if edge is not None]
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    span = (low - margin, high + margin)
    legend_rows = count_legend_rows(list(colours))
    top = 14.0 + 20.0 * legend_rows
    words = ", ".join(f"{name} {format_value(value)}" for name, value in floors)
    floor_lines = textwrap.wrap(f"dashed: reference levels ({words})", MAX_LINE_CHARS) if floors else []
    height = top + sum(26.0 + 16.0 * len(cells) for _, cells in groups) + 38.0 + 16.0 * len(floor_lines)
    canvas = Canvas(WIDTH, height, f"{metric} per prompt and configuration")
    draw_legend(canvas, colours)
    bottom = height - 34.0
    for tick in nice_ticks(*span):
        x = scale(tick, span, (LEFT, RIGHT))
        canvas.line((x, top, x, bottom), kind="lb-grid")
        canvas.text(x, bottom + 15, format_tick(tick), anchor="middle", kind="lb-soft")
    canvas.text((LEFT + RIGHT) / 2, bottom + 31, metric, anchor="middle", kind="lb-soft")
    for _, value in floors:
        x = scale(value, span, (LEFT, RIGHT))
        canvas.line((x, top, x, bottom - 16 * len(floor_lines)), kind="lb-floor")
    y = top
    for label, cells in groups:
        y += 20.0
        canvas.text(LEFT, y, label, kind="lb-label")
        y += 6.0
        for item, cell in cells:
            y += 8.0
            canvas.series = item.name
            _draw_value(canvas, item, cell, span, y, colours[item.name])
            canvas.series = ""
            y += 8.0
    for number, line in enumerate(reversed(floor_lines)):
        canvas.text(RIGHT, bottom - 4 - 16 * number, line, anchor="end", kind="lb-soft")
    return canvas.render()


def _centre(cell: CellValue) -> float:
    """Return the centre of the interval: the corrected value where there is one."""
    if cell.corrected is not None:
        return cell.corrected
    return cell.value if cell.value is not None else 0.0


def _drop_correction(cell: CellValue) -> CellValue:
    return cell if cell.corrected is None else replace(cell, corrected=None, low=None, high=None)


def _draw_value(
    canvas: Canvas, item: Configuration, cell: CellValue, span: tuple[float, float], y: float, colour: str
) -> None:
    if cell.value is None:
        return
    if cell.low is not None and cell.high is not None:
        x1, x2 = (scale(edge, span, (LEFT, RIGHT)) for edge in (cell.low, cell.high))
        canvas.stroke((x1, y, x2, y), colour)
    centre = _centre(cell)
    x = scale(centre, span, (LEFT, RIGHT))
    canvas.dot(x, y, colour, hollow=item.is_zero_shot, hint=f"{item.name}: {format_value(centre)}")


def _legend_places(names: list[str]) -> list[tuple[float, int]]:
    """Return the place (x and row) of every name, in lines that fit the width."""
    places: list[tuple[float, int]] = []
    x, row = LEFT, 0
    for name in names:
        shown = shorten(name, 40)
        width = 22.0 + 7.0 * text_width(shown) + 4.0 * sum(map(str.isupper, shown)) + 14.0
        if x + width > RIGHT and x > LEFT:
            x, row = LEFT, row + 1
        places.append((x, row))
        x += width
    return places


def count_legend_rows(names: list[str]) -> int:
    """Return the number of lines of the legend."""
    return _legend_places(names)[-1][1] + 1 if names else 0


def draw_legend(
    canvas: Canvas, colours: Mapping[str, str], *, top: float = 16.0, hollow: str | None = None
) -> None:
    """Draw names with their colours; a page shows and hides the series whose name is chosen.

    Args:
        canvas: drawn on.
        colours: by name.
        top: baseline of the first line.
        hollow: the name whose dot is hollow; None for the first colour of the palette.
    """
    for (name, colour), (x, row) in zip(colours.items(), _legend_places(list(colours)), strict=True):
        y = top + 20.0 * row
        canvas.series = name
        canvas.dot(
            x + 5, y - 4, colour, hollow=colour == SERIES_COLOURS[0] if hollow is None else name == hollow
        )
        canvas.text(x + 16, y, shorten(name, 40), kind="lb-key")
    canvas.series = ""


def draw_losses(view: RunView) -> Figure | None:
    """Draw training and held-out loss over steps, one colour per trial; None if nothing was trained."""
    trained = [(trial, curve) for trial in view.trials if (curve := view.curve(trial))]
    shown = trained[: MAX_SERIES - 1]
    if not shown:
        return None
    points = [point for _, curve in shown for point in curve]
    losses = [loss for point in points for loss in (point.train_loss, point.eval_loss) if loss is not None]
    if not losses:
        return None
    names = {view.name_trial(trial.id): SERIES_COLOURS[i + 1] for i, (trial, _) in enumerate(shown)}
    steps = (0.0, max(float(point.step) for point in points))
    span = (min(losses), max(losses))
    top = 18.0 + 20.0 * count_legend_rows(list(names))
    canvas = Canvas(WIDTH, top + 300.0, "Training and held-out loss over steps")
    draw_legend(canvas, names)
    bottom = top + 260.0
    _draw_axes(canvas, steps, span, (top, bottom))
    for (_, curve), colour in zip(shown, names.values(), strict=True):
        for side in ("train", "eval"):
            course = [
                (scale(float(step), steps, (64.0, RIGHT)), scale(loss, span, (bottom, top)))
                for step, loss in _thin_out(curve, side)
            ]
            canvas.path(course, colour, dashed=side == "train")
    caption = (
        "Loss in nats per code, mean over codebooks: dotted on the training side, solid on held-out tracks."
    )
    if len(shown) < len(trained):
        caption += f" Shown are the first {len(shown)} of {len(trained)} trained trials."
    return Figure("losses", "Plot of training and held-out loss over steps", caption, canvas.render())


def _draw_axes(
    canvas: Canvas, steps: tuple[float, float], span: tuple[float, float], rows: tuple[float, float]
) -> None:
    top, bottom = rows
    for tick in nice_ticks(*span):
        y = scale(tick, span, (bottom, top))
        canvas.line((64.0, y, RIGHT, y), kind="lb-grid")
        canvas.text(58.0, y + 4, format_tick(tick), anchor="end", kind="lb-soft")
    for tick in nice_ticks(*steps):
        x = scale(tick, steps, (64.0, RIGHT))
        canvas.text(x, bottom + 16, format_tick(tick), anchor="middle", kind="lb-soft")
    canvas.text((64.0 + RIGHT) / 2, bottom + 34, "step", anchor="middle", kind="lb-soft")


def _thin_out(curve: Sequence[CurvePoint], side: Literal["train", "eval"]) -> list[tuple[int, float]]:
    """Return at most about `MAX_POINTS` points of one loss; first and last are kept."""
    losses = ((point.step, point.train_loss if side == "train" else point.eval_loss) for point in curve)
    points = [(step, loss) for step, loss in losses if loss is not None]
    stride = max(1, len(points) // MAX_POINTS)
    kept = points[::stride]
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept
