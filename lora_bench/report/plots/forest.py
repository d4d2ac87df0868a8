"""The forest plot: every difference on the primary metric against zero, with the band that counts as none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lora_bench.report.answer import Answer
from lora_bench.report.formatting import format_tick, format_with_interval, shorten
from lora_bench.report.plots.scores import (
    LEFT,
    MAX_SERIES,
    RIGHT,
    WIDTH,
    assign_colours,
    count_legend_rows,
    draw_legend,
)
from lora_bench.report.writers.document import Figure
from lora_bench.report.writers.svg import Canvas, nice_ticks, scale
from lora_bench.results.records import Contrast

MAX_PROMPTS = 12
ROW, GAP = 17.0, 24.0

Place = Callable[[float], float]


def draw_forest(answer: Answer) -> Figure | None:
    """Draw the differences of the best configurations, by prompt; None if there is none.

    The primary family has filled dots and simultaneous intervals; descriptive rows are hollow.  Thin brackets are what
    the design detects.
    """
    view = answer.view
    chosen = [row.configuration.name for row in answer.compared[: MAX_SERIES - 1]]
    prompts: list[str | None] = [None, *view.prompts[:MAX_PROMPTS]]
    if len(view.prompts) == 1:  # whose rows would repeat those of all prompts
        prompts = [None]
    groups: list[tuple[str, list[Contrast]]] = []
    for prompt in prompts:
        found = [item for name in chosen if (item := view.contrast(name, answer.metric, prompt)) is not None]
        if found:
            groups.append((_name_prompt(answer, prompt), found))
    if not groups:
        return None
    assigned = assign_colours(view, chosen)
    colours = {name: assigned[name] for name in chosen}
    items = [item for _, found in groups for item in found]
    margin = next((item.margin for item in items if item.margin is not None), None)
    span = _span(items, margin)
    top = 18.0 + 20.0 * count_legend_rows(chosen)
    height = top + sum(GAP + ROW * len(found) for _, found in groups) + 52.0
    canvas = Canvas(WIDTH, height, f"Differences from zero-shot on {answer.metric}")
    draw_legend(canvas, colours)
    bottom = height - 46.0

    def place(value: float) -> float:
        return scale(value, span, (LEFT, RIGHT))

    if margin is not None:
        canvas.band((place(-margin), top, place(margin) - place(-margin), bottom - top))
    for tick in nice_ticks(*span):
        canvas.line((place(tick), top, place(tick), bottom), kind="lb-grid")
        canvas.text(place(tick), bottom + 15, format_tick(tick), anchor="middle", kind="lb-soft")
    canvas.line((place(0.0), top, place(0.0), bottom), kind="lb-floor")
    better, worse = ("closer to the genre", "farther") if answer.lower_is_better else ("worse", "better")
    canvas.text(LEFT, bottom + 34, f"\u2190 {better}", kind="lb-soft")
    canvas.text(
        (LEFT + RIGHT) / 2, bottom + 34, f"difference on {answer.metric}", anchor="middle", kind="lb-soft"
    )
    canvas.text(RIGHT, bottom + 34, f"{worse} \u2192", anchor="end", kind="lb-soft")
    y = top
    for label, found in groups:
        canvas.text(LEFT, y + 16.0, label, kind="lb-label")
        y += GAP
        for item in found:
            canvas.series = item.configuration
            _draw_row(canvas, item, y + ROW / 2, place, colours[item.configuration])
            canvas.series = ""
            y += ROW
    caption = (
        f"Difference from zero-shot on {answer.metric}. Filled: the primary family, with simultaneous 95 % intervals; "
        "hollow: descriptive. Thin brackets: what this design detects with a probability of 80 %."
    )
    if margin is not None:
        caption += f" Shaded: within {margin:.3g}, which counts as no difference."
    if len(answer.compared) > len(chosen):
        caption += f" Shown are the best {len(chosen)} of {len(answer.compared)} configurations."
    return Figure(
        "differences", f"Plot of differences from zero-shot on {answer.metric}", caption, canvas.render()
    )


def _name_prompt(answer: Answer, prompt: str | None) -> str:
    if prompt is None:
        return answer.view.pooled
    mark = " (off-genre)" if prompt in answer.view.results.planned.off_genre else ""
    return shorten(prompt, 76) + mark


def _span(items: Sequence[Contrast], margin: float | None) -> tuple[float, float]:
    edges = [0.0, margin or 0.0, -(margin or 0.0)]
    for item in items:
        edges += [edge for edge in (item.delta, item.ci_low, item.ci_high) if edge is not None]
    room = (max(edges) - min(edges)) * 0.05 or 1.0
    return min(edges) - room, max(edges) + room


def _draw_row(canvas: Canvas, item: Contrast, y: float, place: Place, colour: str) -> None:
    if item.detectable is not None:
        for end in (-item.detectable, item.detectable):
            x = place(end)
            if LEFT <= x <= RIGHT:
                canvas.line((x, y - 4, x, y + 4), kind="lb-reach")
    if item.ci_low is not None and item.ci_high is not None:
        canvas.stroke((place(item.ci_low), y, place(item.ci_high), y), colour)
    change = format_with_interval(item.delta, item.ci_low, item.ci_high, item.se)
    hint = f"{item.configuration}: {change}" + (f", {item.verdict}" if item.verdict else "")
    canvas.dot(place(item.delta), y, colour, hollow=not item.primary, hint=hint)
