"""A report as GitHub-flavoured markdown; all text of the blocks is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lora_bench.report.formatting import clean_text, drop_control_characters, use_plain_signs
from lora_bench.report.writers.document import (
    Bar,
    Block,
    Bullets,
    Cell,
    Chip,
    Code,
    CodeBlock,
    Figure,
    Fold,
    Heading,
    Link,
    Listening,
    Matrix,
    Paragraph,
    Span,
    Strong,
    Table,
    Text,
    is_shown,
    write_plain,
)

MAX_COLUMNS = 8
# A single underscore, tilde, dollar or asterisk is harmless, but several in one paragraph are not, so all are escaped.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~$#])")
_IN_TARGET = str.maketrans({mark: f"%{ord(mark):02X}" for mark in " ()<>"})


def write_markdown(blocks: Iterable[Block]) -> str:
    """Return the whole document, with one blank line between blocks."""
    shown = (block for block in blocks if is_shown(block, "markdown"))
    parts = [part for block in shown if (part := _write_block(block))]
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    """Escape text so that it shows as it is anywhere in a line."""
    escaped = _SPECIAL.sub(r"\\\1", clean_text(use_plain_signs(text)).replace("&", "&amp;"))
    return escaped.replace("\\<", "&lt;").replace("\\>", "&gt;")


def _write_block(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {escape_markdown(block.text)}"
        case Paragraph():
            return f"**{_write_plain(block.text)}**" if block.is_warning else _write_text(block.text)
        case Bullets():
            return "\n".join(f"- {_write_text(item)}" for item in block.items)
        case Table():
            return _write_table(block)
        case Figure():
            return f"![{escape_markdown(block.alt)}]({block.slug}.svg)\n\n{escape_markdown(block.caption)}"
        case CodeBlock():
            return _write_code_block(block)
        case Listening() | Matrix():
            return ""  # markdown plays nothing; the page does
        case Fold():
            parts = [f"## {escape_markdown(block.title)}", *(_write_block(one) for one in block.blocks)]
            return "\n\n".join(part for part in parts if part)


def _write_text(text: Text) -> str:
    return "".join(_write_span(span) for span in ((text,) if isinstance(text, str) else text))


def _write_plain(text: Text) -> str:
    """Return text without markup of its own, for use within bold."""
    return escape_markdown(write_plain(text))


def _write_span(span: Span) -> str:
    match span:
        case str():
            # clean_text would drop the blanks at the ends, which separate this span from its neighbours.
            lead = " " if span[:1].isspace() else ""
            tail = " " if len(span) > 1 and span[-1:].isspace() else ""
            return f"{lead}{escape_markdown(span)}{tail}"
        case Strong():
            return f"**{escape_markdown(span.text)}**"
        case Code():
            return _write_code(span.text)
        case Chip() | Bar():
            return escape_markdown(span.text)
        case Link():
            return f"[{escape_markdown(span.text)}]({span.href.translate(_IN_TARGET)})"


def _write_code(text: str) -> str:
    """Return a code span, whose fence is longer than any run of backticks inside."""
    text = clean_text(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _write_code_block(block: CodeBlock) -> str:
    text = drop_control_characters(block.text)
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}{block.language}\n{text}\n{fence}"


def _write_table(table: Table) -> str:
    """Return the table; a wide one is divided into several that repeat the fixed columns."""
    caption = f"*{escape_markdown(table.caption)}*"
    pieces = table.divide(MAX_COLUMNS)
    if len(pieces) == 1:
        return f"{_write_columns(table, pieces[0])}\n\n{caption}"
    parts = [
        f"{_write_columns(table, piece)}\n\n{caption} (part {index} of {len(pieces)})"
        for index, piece in enumerate(pieces, start=1)
    ]
    return "\n\n".join(parts)


def _write_columns(table: Table, chosen: Sequence[int]) -> str:
    columns = [table.columns[index] for index in chosen]
    lines = [
        "| " + " | ".join(_write_text(column.header) for column in columns) + " |",
        "|" + "|".join("---:" if column.is_numeric else ":---" for column in columns) + "|",
    ]
    lines += ["| " + " | ".join(_write_cell(row[index]) for index in chosen) + " |" for row in table.rows]
    return "\n".join(lines)


def _write_cell(cell: Cell) -> str:
    """Return a cell; pipes are escaped even within code, because they divide cells there too."""
    spans = (cell.text,) if isinstance(cell.text, str) else cell.text
    return "".join(
        _write_code(span.text).replace("|", "\\|") if isinstance(span, Code) else _write_span(span)
        for span in spans
    )
