"""Small line and dot charts as SVG text, so that a plot needs no plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#7f7f7f")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 460, 300, 56, 34, 150, 44


@dataclass(frozen=True)
class Chart:
    """One chart: series of (x, y, error of y) over a common range.

    Attributes:
        ticks: positions on the x axis and their labels.
        band: shaded range of y.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[float, float, float]]]
    ticks: Mapping[float, str]
    y_range: tuple[float, float]
    band: tuple[float, float] | None = None


def render_charts(charts: Sequence[Chart]) -> str:
    """Charts side by side as one SVG document."""
    parts = [
        f'<g transform="translate({place * WIDTH},0)">{_render(c)}</g>' for place, c in enumerate(charts)
    ]
    size = f'width="{WIDTH * len(charts)}" height="{HEIGHT}"'
    style = "<style>text{font:12px sans-serif;fill:#333}.t{font-weight:bold}</style>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}<rect {size} fill="#fff"/>'
    return head + "".join(parts) + "</svg>\n"


def _render(chart: Chart) -> str:
    xs = sorted(chart.ticks)
    low, high = chart.y_range
    span = (xs[-1] - xs[0]) or 1.0

    def x_of(value: float) -> float:
        return LEFT + (0.04 + 0.92 * (value - xs[0]) / span) * (WIDTH - LEFT - RIGHT)

    def y_of(value: float) -> float:
        return TOP + (high - min(max(value, low), high)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    out = [f'<text class="t" x="{LEFT}" y="20">{escape(chart.title)}</text>']
    if chart.band:
        top, end = y_of(chart.band[1]), y_of(chart.band[0])
        out.append(
            f'<rect x="{LEFT}" y="{top:.1f}" width="{right - LEFT}" height="{end - top:.1f}" fill="#e8f3e8"/>'
        )
    for step in range(6):
        value = low + (high - low) * step / 5
        y = y_of(value)
        out.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for position, label in chart.ticks.items():
        out.append(
            f'<text x="{x_of(position):.1f}" y="{bottom + 16}" text-anchor="middle">{escape(label)}</text>'
        )
    centre = (LEFT + right) / 2
    out.append(f'<text x="{centre}" y="{HEIGHT - 8}" text-anchor="middle">{escape(chart.x_label)}</text>')
    out.append(f'<text transform="translate(14,{(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">')
    out.append(f"{escape(chart.y_label)}</text>")
    for number, (name, points) in enumerate(chart.series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y, _ in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for x, y, error in points:
            ends = f'y1="{y_of(y - error):.1f}" y2="{y_of(y + error):.1f}"'
            out.append(f'<line x1="{x_of(x):.1f}" x2="{x_of(x):.1f}" {ends} stroke="{colour}"/>')
            out.append(f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{colour}"/>')
        y = TOP + 14 + 16 * number
        out.append(f'<circle cx="{right + 12}" cy="{y - 4}" r="4" fill="{colour}"/>')
        out.append(f'<text x="{right + 20}" y="{y}">{escape(name)}</text>')
    return "".join(out)
