"""Figures as TikZ, which pdfLaTeX sets in the paper's own fonts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from lora_bench.report.paper.latex import escape_latex
from lora_bench.report.writers.document import Figure

SCALE = 0.6
"""Points per unit of the drawing."""
_LINES = {
    "lb-grid": "draw=black!15",
    "lb-floor": "draw=black!60, dashed",
    "lb-reach": "draw=black!45",
}
_ANCHORS = {"start": "base west", "middle": "base", "end": "base east"}
_TEXTS = {"lb-soft": "text=black!65", "lb-on-dark": "text=white"}
_HEX = re.compile("#([0-9a-fA-F]{6})")


def write_figure(figure: Figure) -> str:
    """Return a `tikzpicture` of a figure that `writers/svg.py` has drawn; hints, which a page shows, are left out.

    Raises:
        ValueError: the drawing holds a shape that is not one of the canvas.
    """
    root = ET.fromstring(figure.svg)
    colours = sorted({colour.upper() for colour in _HEX.findall(figure.svg)})
    size = 12.0 * SCALE
    return "\n".join(
        [
            *(rf"\definecolor{{lb{colour}}}{{HTML}}{{{colour}}}" for colour in colours),
            rf"\begin{{tikzpicture}}[x={SCALE}pt, y=-{SCALE}pt, line width=0.5pt, inner sep=0pt, outer sep=0pt,",
            rf"  every node/.style={{font=\sffamily\fontsize{{{size:g}}}{{{1.2 * size:g}}}\selectfont}}]",
            *_draw_shapes(root),
            r"\end{tikzpicture}",
            "",
        ]
    )


def _draw_shapes(root: ET.Element) -> Iterator[str]:
    for shape in root:
        tag = shape.tag.rpartition("}")[2]
        kind, of = shape.get("class", ""), shape.attrib
        match tag:
            case "style":
                continue
            case "text":
                style = ", ".join([f"anchor={_ANCHORS[of['text-anchor']]}", *_pick(_TEXTS, kind)])
                yield rf"\node[{style}] at ({of['x']},{of['y']}) {{{escape_latex(shape.text or '')}}};"
            case "line":
                style = _LINES.get(kind) or f"draw={_name_colour(of['stroke'])}, line width=1pt"
                yield rf"\draw[{style}] ({of['x1']},{of['y1']}) -- ({of['x2']},{of['y2']});"
            case "polyline":
                dash = ", densely dotted" if "stroke-dasharray" in of else ""
                points = " -- ".join(f"({point})" for point in of["points"].split())
                yield rf"\draw[draw={_name_colour(of['stroke'])}, line width=0.9pt{dash}] {points};"
            case "circle":
                fill = "" if of["fill"] == "none" else f", fill={_name_colour(of['fill'])}"
                style = f"draw={_name_colour(of['stroke'])}, line width=1pt{fill}"
                yield rf"\draw[{style}] ({of['cx']},{of['cy']}) circle[radius={4 * SCALE:g}pt];"
            case "rect":
                end = f"({of['x']},{of['y']}) rectangle ++({of['width']},{of['height']})"
                if kind == "lb-band":
                    yield rf"\fill[black!8] {end};"
                elif of["fill"] == "none":
                    yield rf"\draw[draw=black!15] {end};"
                else:
                    yield rf"\fill[fill={_name_colour(of['fill'])}] {end};"
            case _:
                raise ValueError(f"a figure holds <{tag}>, which has no form in TikZ")


def _pick(styles: dict[str, str], kind: str) -> list[str]:
    return [styles[kind]] if kind in styles else []


def _name_colour(fill: str) -> str:
    found = _HEX.fullmatch(fill)
    if found is None:
        raise ValueError(f"a figure has the colour {fill!r}; expected one such as #0072b2")
    return f"lb{found[1].upper()}"
