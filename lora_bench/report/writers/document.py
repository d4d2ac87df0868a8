"""What a report consists of, apart from how it is written: blocks of text, tables, figures.

The sections make blocks; `markdown.py` and `html.py` write them.  Text is always plain: whoever writes it
escapes it, so that a prompt can hold anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["plain", "better", "worse", "missing"]


@dataclass(frozen=True)
class Strong:
    """Emphasised text."""

    text: str


@dataclass(frozen=True)
class Code:
    """Text to be read or typed exactly."""

    text: str


@dataclass(frozen=True)
class Link:
    """A relative link to a file beside the report or to a heading."""

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
    """Running text; a warning is set apart; `only_in` limits it to one way of writing."""

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
        text: what stands there.
        order: number to sort by; None sorts by the text, missing values last.
        hint: longer text that a reader may want (the full prompt, the reason of a gap).
    """

    text: Text
    order: float | None = None
    hint: str | None = None
    tone: Tone = "plain"


@dataclass(frozen=True)
class Column:
    """A column's header; numbers are aligned to the right."""

    header: Text
    is_numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: one line that says what the table shows; read out by screen readers.
        n_fixed: leading columns that are repeated where a wide table is divided.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    n_fixed: int = 1


@dataclass(frozen=True)
class Figure:
    """A plot: `svg` is a whole SVG document, written to `<slug>.svg` beside the markdown."""

    slug: str
    alt: str
    caption: str
    svg: str


@dataclass(frozen=True)
class CodeBlock:
    """Text in its own block, to be copied."""

    text: str
    language: str


@dataclass(frozen=True)
class Clip:
    """One clip to listen to: `sound` and `picture` are data URIs; without sound, `href` is a link if there is one."""

    label: str
    href: str | None
    sound: str | None
    picture: str | None


@dataclass(frozen=True)
class Listening:
    """Clips that belong side by side: the same prompt and the same noise.

    Attributes:
        title: prompt and clip index.
        clips: zero-shot first, then fine-tuned, then a reference excerpt.
    """

    title: str
    hint: str
    clips: tuple[Clip, ...]


Block = Heading | Paragraph | Bullets | Table | Figure | CodeBlock | Listening
