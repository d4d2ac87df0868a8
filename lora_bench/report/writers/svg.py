"""A small drawing surface for SVG with fixed rounding: the same data give the same bytes."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from markupsafe import Markup

from lora_bench.report.formatting import drop_control_characters

# Okabe and Ito's palette: distinct for every common kind of colour vision, on white and on black.
SERIES_COLOURS = ("#888888", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b8a800")

STYLE = """
.lb-plot{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK KR",sans-serif}
.lb-plot text{fill:#24292f}.lb-plot .lb-soft{fill:#57606a}
.lb-plot .lb-label{paint-order:stroke;stroke:var(--card,#fff);stroke-width:4px;stroke-linejoin:round}
.lb-plot .lb-grid{stroke:#8c959f;stroke-opacity:.3}.lb-plot .lb-floor{stroke:#57606a;stroke-dasharray:4 3}
.lb-plot .lb-on-pale{fill:#111}.lb-plot .lb-on-dark{fill:#fff}.lb-plot .lb-band{fill:#8c959f;fill-opacity:.16}
.lb-plot .lb-reach{stroke:#8c959f;stroke-width:1}
@media (prefers-color-scheme:dark){.lb-plot text{fill:#e6edf3}.lb-plot .lb-soft{fill:#9da7b3}
.lb-plot .lb-label{stroke:var(--card,#0d1117)}.lb-plot .lb-on-pale{fill:#111}.lb-plot .lb-on-dark{fill:#fff}
.lb-plot .lb-floor{stroke:#9da7b3}}
""".strip()


def number(value: float) -> str:
    """Return a coordinate with two decimals, without trailing zeros."""
    return "0" if abs(value) < 0.005 else f"{value:.2f}".rstrip("0").rstrip(".")


class Canvas:
    """A drawing whose shapes lie over each other in the order of the calls."""

    def __init__(self, width: float, height: float, title: str) -> None:
        size = {"width": number(width), "height": number(height)}
        name = {"role": "img", "aria-label": drop_control_characters(title)}
        head = {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "lb-plot",
            "viewBox": f"0 0 {' '.join(size.values())}",
        }
        self._root = ET.Element("svg", head | size | name)
        self._root.text = "\n"
        self.series = ""
        """Name of the series that shapes belong to: a page's legend shows and hides them."""
        self._add("style", {}).text = STYLE

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> None:
        """Add a line of text at its baseline."""
        place = {"x": number(x), "y": number(y), "text-anchor": anchor}
        self._add("text", place | _class_of(kind)).text = drop_control_characters(text)

    def line(self, ends: tuple[float, float, float, float], *, kind: str) -> None:
        """Add a straight line of a class of the style."""
        self._add("line", _class_of(kind) | _name_ends(ends))

    def stroke(self, ends: tuple[float, float, float, float], colour: str) -> None:
        """Add a straight line in a series' colour."""
        self._add("line", _name_ends(ends) | {"stroke": colour, "stroke-width": "2"})

    def path(self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> None:
        """Add a line through points."""
        if not points:
            return
        shape = {"points": " ".join(f"{number(x)},{number(y)}" for x, y in points), "fill": "none"}
        dash = {"stroke-dasharray": "2 3", "stroke-opacity": ".75"} if dashed else {}
        self._add("polyline", shape | {"stroke": colour, "stroke-width": "1.8"} | dash)

    def dot(
        self,
        x: float,
        y: float,
        colour: str,
        *,
        hollow: bool = False,
        hint: str = "",
        href: str | None = None,
    ) -> None:
        """Add a point; browsers show its hint when pointed at, and follow `href`, a place on the page."""
        place = {"cx": number(x), "cy": number(y), "r": "4", "fill": "none" if hollow else colour}
        shape = place | {"stroke": colour, "stroke-width": "2"}
        if href is None:
            _add_hint(self._add("circle", shape), hint)
            return
        self._root.set("role", "group")  # an image must not hold links
        link = self._add("a", {"href": href})
        _add_hint(link, hint)
        if hollow:  # so that its middle can be pointed at
            shape |= {"pointer-events": "all"}
        ET.SubElement(link, "circle", shape)

    def box(self, place: tuple[float, float, float, float], fill: str, *, hint: str = "") -> None:
        """Add a rectangle (x, y, width, height); the fill `none` leaves it empty with a thin edge."""
        shape = dict(zip(("x", "y", "width", "height"), map(number, place), strict=True)) | {"fill": fill}
        _add_hint(self._add("rect", shape | _class_of("lb-grid" if fill == "none" else "")), hint)

    def band(self, place: tuple[float, float, float, float]) -> None:
        """Add a pale rectangle (x, y, width, height) behind other shapes."""
        shape = dict(zip(("x", "y", "width", "height"), map(number, place), strict=True))
        self._add("rect", shape | _class_of("lb-band"))

    def render(self) -> Markup:
        """Return the whole document; the writer has escaped its texts."""
        return Markup(ET.tostring(self._root, encoding="unicode") + "\n")

    def _add(self, tag: str, attributes: dict[str, str]) -> ET.Element:
        named = {"data-series": drop_control_characters(self.series)} if self.series else {}
        element = ET.SubElement(self._root, tag, attributes | named)
        element.tail = "\n"
        return element


def _class_of(kind: str) -> dict[str, str]:
    return {"class": kind} if kind else {}


def _name_ends(ends: tuple[float, float, float, float]) -> dict[str, str]:
    return dict(zip(("x1", "y1", "x2", "y2"), map(number, ends), strict=True))


def _add_hint(shape: ET.Element, hint: str) -> None:
    if hint:
        ET.SubElement(shape, "title").text = drop_control_characters(hint)


def nice_ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Return about `n` round values within the range; one value if the range is empty."""
    if not high > low:
        return [low]
    rough = (high - low) / n
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def scale(value: float, source: tuple[float, float], target: tuple[float, float]) -> float:
    """Map a value linearly from `source` to `target`; an empty source maps to the middle."""
    low, high = source
    if not high > low:
        return (target[0] + target[1]) / 2
    return target[0] + (value - low) / (high - low) * (target[1] - target[0])
