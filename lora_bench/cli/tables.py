"""Plain tables for terminals and pipes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Format aligned columns, two spaces apart; those in `right` are right-aligned."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = (
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def format_number(value: float | None) -> str:
    """Format a number with four decimals, as in published tables; `-` for None."""
    return "-" if value is None else f"{value:.4f}"


def print_json(document: Any) -> None:
    """Print a document as JSON."""
    print_json_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def print_json_text(text: str) -> None:
    """Print JSON, with escapes for non-ASCII letters if the output's encoding is not Unicode."""
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        text = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)
    print(text)
