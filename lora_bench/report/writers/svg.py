"""A small drawing surface: SVG text with fixed rounding, so that the same data give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from lora_bench.report.formatting import drop_control_characters

# Okabe and Ito's palette: told apart with every common kind of colour vision, on white and on black.
SERIES_COLOURS = ("#888888", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b8a800")

STYLE = """
.lb-plot{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK KR",sans-serif}
.lb-plot text{fill:#24292f}.lb-plot .lb-soft{fill:#57606a}
.lb-plot .lb-label{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}
.lb-plot .lb-grid{stroke:#8c959f;stroke-opacity:.3}.lb-plot .lb-floor{stroke:#57606a;stroke-dasharray:4 3}
.lb-plot .lb-on-pale{fill:#111}.lb-plot .lb-on-dark{fill:#fff}
@media (prefers-color-scheme:dark){.lb-plot text{fill:#e6edf3}.lb-plot .lb-soft{fill:#9da7b3}
.lb-plot .lb-label{stroke:#0d1117}.lb-plot .lb-on-pale{fill:#111}.lb-plot .lb-on-dark{fill:#fff}
.lb-plot .lb-floor{stroke:#9da7b3}}
""".strip()


def number(value: float) -> str:
    """A coordinate with two decimals, without trailing zeros."""
    return "0" if abs(value) < 0.005 else f"{value:.2f}".rstrip("0").rstrip(".")


class Canvas:
    """Collects shapes in drawing order."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width = width
        self.height = height
        self.title = title
        self._parts: list[str] = []

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> None:
        """A line of text at its baseline."""
        style = f' class="{kind}"' if kind else ""
        self._parts.append(
            f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"{style}>{escape_svg(text)}</text>'
        )

    def line(self, ends: tuple[float, float, float, float], *, kind: str) -> None:
        """A straight line of a class of the style."""
        x1, y1, x2, y2 = (number(end) for end in ends)
        self._parts.append(f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')

    def stroke(self, ends: tuple[float, float, float, float], colour: str) -> None:
        """A straight line in a series' colour."""
        x1, y1, x2, y2 = (number(end) for end in ends)
        self._parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="2"/>'
        )

    def path(self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> None:
        """A line through points."""
        if not points:
            return
        course = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        dash = ' stroke-dasharray="2 3" stroke-opacity=".75"' if dashed else ""
        self._parts.append(
            f'<polyline points="{course}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>'
        )

    def dot(self, x: float, y: float, colour: str, *, hollow: bool = False, hint: str = "") -> None:
        """A point; its hint is shown by browsers when pointed at."""
        fill = "none" if hollow else colour
        hint = f"<title>{escape_svg(hint)}</title>" if hint else ""
        self._parts.append(
            f'<circle cx="{number(x)}" cy="{number(y)}" r="4" fill="{fill}" stroke="{colour}" '
            f'stroke-width="2">{hint}</circle>'
        )

    def box(self, place: tuple[float, float, float, float], fill: str, *, hint: str = "") -> None:
        """A rectangle (x, y, width, height); `none` leaves it empty with a thin edge."""
        x, y, width, height = (number(value) for value in place)
        edge = ' class="lb-grid"' if fill == "none" else ""
        hint = f"<title>{escape_svg(hint)}</title>" if hint else ""
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"{edge}>{hint}</rect>'
        )

    def render(self) -> str:
        """The whole document."""
        width, height = number(self.width), number(self.height)
        body = "\n".join(self._parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="lb-plot" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="{escape_svg(self.title)}">\n'
            f"<style>{STYLE}</style>\n{body}\n</svg>\n"
        )


def escape_svg(text: str) -> str:
    """Text as SVG can hold it."""
    return escape(drop_control_characters(text), quote=True)


def nice_ticks(low: float, high: float, n: int = 5) -> list[float]:
    """About `n` round values that span the range; one value if the range is empty."""
    if not high > low:
        return [low]
    rough = (high - low) / n
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def scale(value: float, source: tuple[float, float], target: tuple[float, float]) -> float:
    """Linear map of `source` onto `target`; an empty source maps to the middle."""
    low, high = source
    if not high > low:
        return (target[0] + target[1]) / 2
    return target[0] + (value - low) / (high - low) * (target[1] - target[0])
