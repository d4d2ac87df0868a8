"""The blocks of a report (text, tables, figures), independent of the format they are written in.

The sections make blocks; `markdown.py` and `html.py` write them.  Text is always plain: the writers escape it,
so that a prompt can hold anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

Tone = Literal["plain", "better", "worse", "missing"]


@dataclass(frozen=True)
class Strong:
    """Emphasised text."""

    text: str


@dataclass(frozen=True)
class Code:
    """Text to read or type exactly."""

    text: str


@dataclass(frozen=True)
class Link:
    """A relative link to a file next to the report or to a heading."""

    text: str
    href: str


Span = str | Strong | Code | Link
Text = str | tuple[Span, ...]


@dataclass(frozen=True)
class Heading:
    """A heading; `anchor` is unique in the report."""

    level: int
    text: str
    anchor: str


@dataclass(frozen=True)
class Paragraph:
    """Running text; a warning stands out; `only_in` limits it to one format."""

    text: Text
    is_warning: bool = False
    only_in: Literal["markdown", "page"] | None = None


@dataclass(frozen=True)
class Bullets:
    """An unordered list."""

    items: tuple[Text, ...]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: content of the cell.
        order: number to sort by; None sorts by the text, missing values last.
        hint: longer text (the full prompt, the reason why a value is missing).
    """

    text: Text
    order: float | None = None
    hint: str | None = None
    tone: Tone = "plain"


@dataclass(frozen=True)
class Column:
    """The header of a column; numbers are aligned to the right."""

    header: Text
    is_numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: one line that says what the table shows; screen readers read it out.
        n_fixed: leading columns that each part of a divided wide table repeats.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    n_fixed: int = 1


@dataclass(frozen=True)
class Figure:
    """A plot: `svg` is a whole SVG document, written to `<slug>.svg` next to the markdown."""

    slug: str
    alt: str
    caption: str
    svg: Markup


@dataclass(frozen=True)
class CodeBlock:
    """A block of text to copy."""

    text: str
    language: str


@dataclass(frozen=True)
class Clip:
    """A clip to listen to: `sound` and `picture` are data URIs; without sound, `href` links to the file."""

    label: str
    href: str | None
    sound: str | None
    picture: str | None


@dataclass(frozen=True)
class Listening:
    """Clips of the same prompt and the same noise, shown side by side.

    Attributes:
        title: prompt and clip index.
        hint: the full prompt.
        clips: zero-shot first, then fine-tuned, then a reference excerpt.
    """

    title: str
    hint: str
    clips: tuple[Clip, ...]


Block = Heading | Paragraph | Bullets | Table | Figure | CodeBlock | Listening
