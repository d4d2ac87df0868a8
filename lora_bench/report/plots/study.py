"""Plots of a study: main effects with intervals, heat maps of two axes; `front.py` draws quality against cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lora_bench.report.formatting import clean_text, format_difference, format_tick, format_value, shorten
from lora_bench.report.plots.front import draw_front, list_points
from lora_bench.report.view import RunView, arrow
from lora_bench.report.writers.document import Figure
from lora_bench.report.writers.svg import SERIES_COLOURS, Canvas, nice_ticks, scale
from lora_bench.study import MetricStudy, Study, analyse_study
from lora_bench.study.records import Interaction

WIDTH = 760.0
LEFT, RIGHT = 24.0, 736.0
MAX_METRICS = 6
MAX_LEVELS = 40
# Pale to dark with falling lightness (ColorBrewer's single-hue blues): reads in grey, and on either background.
_SHADES = ((239, 243, 255), (189, 215, 231), (107, 174, 214), (49, 130, 189), (8, 81, 156))


def build_study_plots(view: RunView, limit_to: str | None) -> Iterator[Figure]:
    """Yield figures of one metric (None: of all); nothing if the run is no study."""
    study = analyse_study(view.results)
    if study is not None:
        yield from draw_study(study, limit_to, view.adapter_kinds)


def draw_study(
    study: Study, limit_to: str | None = None, kinds: Mapping[str, str] | None = None
) -> Iterator[Figure]:
    """Yield main effects and heat maps where there are axes, quality against cost where there are three points.

    Args:
        study: the analysis.
        limit_to: a metric; None draws all.
        kinds: kind of adapter by configuration, if there are several.
    """
    for place, metric in enumerate(study.metrics[:MAX_METRICS], start=1):
        if limit_to is not None and metric.metric != limit_to:
            continue
        if any(level.effect is not None for main in metric.main_effects for level in main.levels):
            yield draw_effects(metric, f"study-{place}-effects")
        for number, interaction in enumerate(metric.interactions, start=1):
            if _can_be_drawn(interaction):
                yield draw_heat_map(metric, interaction, f"study-{place}-heat-map-{number}")
        for front in metric.fronts:
            if (study.axes or kinds) and len(list_points(metric, front)) >= 3:
                slug = f"study-{place}-cost-{front.cost.replace('_', '-')}"
                yield draw_front(metric, front, slug, kinds or {})


def draw_effects(study: MetricStudy, slug: str) -> Figure:
    """Draw a row per level of every axis: its effect with the interval over training seeds."""
    rows = [
        (main.field, level)
        for main in study.main_effects
        for level in main.levels[:MAX_LEVELS]
        if level.effect is not None
    ]
    edges = [0.0]
    for _, level in rows:
        edges += [edge for edge in (level.effect, level.ci_low, level.ci_high) if edge is not None]
    margin = (max(edges) - min(edges)) * 0.05 or 1.0
    span = (min(edges) - margin, max(edges) + margin)
    fields = list(dict.fromkeys(field for field, _ in rows))
    height = 14.0 + 28.0 * len(fields) + 18.0 * len(rows) + 44.0
    canvas = Canvas(WIDTH, height, f"Main effects on {study.metric}")
    bottom = height - 34.0
    left = 190.0
    for tick in nice_ticks(*span):
        x = scale(tick, span, (left, RIGHT))
        canvas.line((x, 14.0, x, bottom), kind="lb-grid")
        canvas.text(x, bottom + 15, format_tick(tick), anchor="middle", kind="lb-soft")
    zero = scale(0.0, span, (left, RIGHT))
    canvas.line((zero, 14.0, zero, bottom), kind="lb-floor")
    canvas.text((left + RIGHT) / 2, bottom + 30, f"effect on {study.metric}", anchor="middle", kind="lb-soft")
    y = 14.0
    for place, field in enumerate(fields):
        y += 20.0
        canvas.text(LEFT, y, shorten(field, 26), kind="lb-label")
        y += 8.0
        colour = SERIES_COLOURS[1 + place % (len(SERIES_COLOURS) - 1)]
        for level in (level for name, level in rows if name == field):
            canvas.text(left - 12, y + 10, shorten(level.label, 22), anchor="end")
            if level.ci_low is not None and level.ci_high is not None:
                ends = [scale(edge, span, (left, RIGHT)) for edge in (level.ci_low, level.ci_high)]
                canvas.stroke((ends[0], y + 6, ends[1], y + 6), colour)
            effect = level.effect or 0.0
            hint = f"{field} {level.label}: {format_difference(effect, error=level.se)}"
            canvas.dot(scale(effect, span, (left, RIGHT)), y + 6, colour, hint=clean_text(hint))
            y += 18.0
    caption = (
        f"{study.metric}: effect of each level against the mean of all levels of its axis, with 95 % intervals over "
        "training seeds where there are several; dashed is no effect."
    )
    return Figure(slug, f"Plot of the main effects on {study.metric}", caption, canvas.render())


def _can_be_drawn(found: Interaction) -> bool:
    known = [cell.mean for line in found.cells for cell in line if cell.mean is not None]
    return len(known) > 1 and len(found.row_labels) <= MAX_LEVELS and len(found.column_labels) <= MAX_LEVELS


def draw_heat_map(study: MetricStudy, found: Interaction, slug: str) -> Figure:
    """Draw means of two axes, the better the darker; a combination that was not run is empty."""
    known = [cell.mean for line in found.cells for cell in line if cell.mean is not None]
    span = (min(known), max(known))
    n_columns = len(found.column_labels)
    left, top = 150.0, 48.0
    width = min(110.0, (RIGHT - left) / n_columns)
    tall = 30.0
    canvas = Canvas(
        WIDTH,
        top + tall * len(found.row_labels) + 34.0,
        f"{study.metric} by {found.rows} and {found.columns}",
    )
    canvas.text(
        left + width * n_columns / 2, 16.0, shorten(found.columns, 60), anchor="middle", kind="lb-soft"
    )
    canvas.text(LEFT, top - 8, shorten(found.rows, 20), kind="lb-soft")
    for j, label in enumerate(found.column_labels):
        canvas.text(
            left + width * (j + 0.5), top - 8, shorten(label, max(4, int(width / 7))), anchor="middle"
        )
    for i, (label, line) in enumerate(zip(found.row_labels, found.cells, strict=True)):
        y = top + tall * i
        canvas.text(left - 10, y + tall / 2 + 4, shorten(label, 18), anchor="end")
        for j, cell in enumerate(line):
            box = (left + width * j, y, width - 2, tall - 2)
            if cell.mean is None:
                canvas.box(box, "none")
                continue
            share = scale(cell.mean, span, (0.0, 1.0))
            share = share if study.higher_is_better else 1.0 - share
            canvas.box(
                box, _shade(share), hint=f"{', '.join(cell.configurations)}: {format_value(cell.mean)}"
            )
            if width >= 44:
                text = f"{cell.mean:.3g}" + (" *" if found.best == (i, j) else "")
                kind = "lb-on-dark" if share > 0.55 else "lb-on-pale"
                canvas.text(box[0] + box[2] / 2, y + tall / 2 + 3, text, anchor="middle", kind=kind)
    bottom = top + tall * len(found.row_labels) + 22
    canvas.text(LEFT, bottom, "the darker the better; empty was not run; * is the best mean", kind="lb-soft")
    axes = f"{found.rows} (rows) and {found.columns} (columns)"
    caption = f"{study.metric} {arrow(study.metric)} by {axes}, means over seeds."
    return Figure(
        slug, f"Heat map of {study.metric} by {found.rows} and {found.columns}", caption, canvas.render()
    )


def _shade(share: float) -> str:
    """Return a colour between pale (0) and dark (1)."""
    at = min(max(share, 0.0), 1.0) * (len(_SHADES) - 1)
    index = min(int(at), len(_SHADES) - 2)
    mixed = (
        round(a + (b - a) * (at - index)) for a, b in zip(_SHADES[index], _SHADES[index + 1], strict=True)
    )
    return "#" + "".join(f"{part:02x}" for part in mixed)
