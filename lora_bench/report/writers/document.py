"""The blocks of a report (text, tables, figures), independent of the format they are written in.

The sections make blocks; `markdown.py` and `html.py` write them.  Text is always plain: the writers escape it,
so that a prompt can hold anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

Tone = Literal["plain", "better", "worse", "missing"]
Format = Literal["markdown", "page"]


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


@dataclass(frozen=True)
class Chip:
    """A verdict: a word with a tone."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Bar:
    """An interval drawn against zero.

    Attributes:
        text: the interval in words, which formats without drawings show.
        ends: low end, value, high end.
        span: what the drawing reaches from and to; the same for all bars of a column.
        margin: half the width of the band around zero that counts as no difference; None without one.
    """

    text: str
    ends: tuple[float, float, float]
    span: tuple[float, float]
    margin: float | None
    tone: Tone = "plain"

    def place(self, value: float) -> str:
        """Return a value's place on a drawing 200 wide, within its edges."""
        low, high = self.span
        share = (value - low) / (high - low) if high > low else 0.5
        return f"{200.0 * min(max(share, 0.0), 1.0):.1f}"


Span = str | Strong | Code | Link | Chip | Bar
Text = str | tuple[Span, ...]


def write_plain(text: Text) -> str:
    """Return text without its markup."""
    return "".join(
        span if isinstance(span, str) else span.text for span in ((text,) if isinstance(text, str) else text)
    )


@dataclass(frozen=True)
class Heading:
    """A heading; `anchor` is unique in the report."""

    level: int
    text: str
    anchor: str


@dataclass(frozen=True)
class Paragraph:
    """Running text; a warning stands out, `meta` stands back; `only_in` limits it to one format."""

    text: Text
    is_warning: bool = False
    kind: Literal["plain", "meta"] = "plain"
    only_in: Format | None = None


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
        only_in: the one format that shows it; None for all.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    n_fixed: int = 1
    only_in: Format | None = None

    def divide(self, max_columns: int) -> list[list[int]]:
        """Return the columns of each part, about `max_columns` at most; one part if two more than that suffice."""
        n_columns = len(self.columns)
        if n_columns <= max_columns + 2:
            return [list(range(n_columns))]
        step = max(1, max_columns - self.n_fixed)
        starts = range(self.n_fixed, n_columns, step)
        return [[*range(self.n_fixed), *range(start, min(start + step, n_columns))] for start in starts]


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
    gain: float = 1.0
    """Factor that brings clips to a common loudness; at most 1."""
    anchor: str | None = None
    """Unique in the report, for links; None without one."""


@dataclass(frozen=True)
class Fold:
    """A part that is closed until a reader opens it; `anchor` is unique in the report."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]


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


@dataclass(frozen=True)
class Matrix:
    """Clips by prompt and voice, played by one transport.

    Attributes:
        voices: names of the columns: zero-shot, configurations, references.
        rows: listenings of one prompt each, by clip index; their clips follow `voices`, None where there is none.
    """

    voices: tuple[str, ...]
    rows: tuple[MatrixRow, ...]


@dataclass(frozen=True)
class MatrixRow:
    """One prompt and clip index."""

    title: str
    hint: str
    index: int
    clips: tuple[Clip | None, ...]


Block = Heading | Paragraph | Bullets | Table | Figure | CodeBlock | Listening | Matrix | Fold


def mark_code(text: str) -> Text:
    """Return a message with what stands between backticks as code; as it is if a backtick has no partner."""
    parts = text.split("`")
    if len(parts) % 2 == 0 or len(parts) == 1:
        return text
    return tuple(Code(part) if place % 2 else part for place, part in enumerate(parts) if part)


def is_shown(block: Block, where: Format) -> bool:
    """Return whether a format shows a block."""
    return not isinstance(block, Paragraph | Table) or block.only_in in (None, where)
