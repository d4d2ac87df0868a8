"""Text and tables in LaTeX, for pdfLaTeX with `booktabs` and `adjustbox`."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from lora_bench.report.formatting import clean_text
from lora_bench.report.writers.document import Cell, Code, Span, Strong, Table, Text

MAX_COLUMNS = 8
_SYMBOLS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": "'",
    "`": r"\textasciigrave{}",
    "\u00a0": "~",
    "\u2212": r"\ensuremath{-}",
    "\u2014": "---",
    "\u2013": "--",
    "\u2026": r"\ldots{}",
    "\u00b1": r"\ensuremath{\pm}",
    "\u00b7": r"\textperiodcentered{}",
    "\u00d7": r"\ensuremath{\times}",
    "\u2190": r"\ensuremath{\leftarrow}",
    "\u2192": r"\ensuremath{\rightarrow}",
    "\u2191": r"\ensuremath{\uparrow}",
    "\u2193": r"\ensuremath{\downarrow}",
    "\u2264": r"\ensuremath{\leq}",
    "\u2265": r"\ensuremath{\geq}",
    "\u0394": r"\ensuremath{\Delta}",
}
_LIGATURES = "-',"  # two of which become another character
_LAST_LATIN = 0x17F  # what the T1 encoding has, nearly all of it


def escape_latex(text: str) -> str:
    """Return text that pdfLaTeX sets as it is; a character outside of Latin scripts becomes `[U+4E2D]`.

    Control characters are dropped, and runs of white space become one space.
    """
    parts = text.split("\u00a0")  # which clean_text would turn into plain spaces
    joined = "\u00a0".join(clean_text(f".{part}.")[1:-1] for part in parts)
    composed = unicodedata.normalize("NFC", joined)
    return "".join(_write_mark(mark, before) for mark, before in zip(composed, f" {composed}", strict=False))


def _write_mark(mark: str, before: str) -> str:
    if mark in _LIGATURES and mark == before:
        return f"{{}}{mark}"
    known = _SYMBOLS.get(mark)
    if known is not None:
        return known
    if ord(mark) <= 0x7E or 0xC0 <= ord(mark) <= _LAST_LATIN:
        return mark
    plain = unicodedata.normalize("NFKD", mark)
    return plain if plain.isascii() and plain.isprintable() else f"[U+{ord(mark):04X}]"


def write_text(text: Text) -> str:
    """Return running text with its markup."""
    return "".join(_write_span(span) for span in ((text,) if isinstance(text, str) else text))


def _write_span(span: Span) -> str:
    if isinstance(span, str):
        return escape_latex(span)
    words = escape_latex(span.text)
    match span:
        case Strong():
            return rf"\textbf{{{words}}}"
        case Code():
            return rf"\texttt{{{words}}}"
        case _:
            return words


def write_table(table: Table, label: str) -> str:
    r"""Return a floating table with its caption above, as wide as the column at most.

    Args:
        table: cells hold text; hints are left out.
        label: what `\ref` names it by, without `tab:`.
    """
    parts = [_write_columns(table, piece) for piece in table.divide(MAX_COLUMNS)]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{escape_latex(table.caption)}.}}",
            rf"\label{{tab:{label}}}",
            "\n\\par\\medskip\n".join(parts),
            r"\end{table}",
            "",
        ]
    )


def _write_columns(table: Table, chosen: Sequence[int]) -> str:
    columns = [table.columns[index] for index in chosen]
    rows = [" & ".join(_write_cell(row[index]) for index in chosen) for row in table.rows]
    return "\n".join(
        [
            r"\begin{adjustbox}{max width=\linewidth}",
            rf"\begin{{tabular}}{{{''.join('r' if column.is_numeric else 'l' for column in columns)}}}",
            r"\toprule",
            rf"{' & '.join(write_text(column.header) for column in columns)} \\",
            r"\midrule",
            *(rf"{row} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
        ]
    )


def _write_cell(cell: Cell) -> str:
    words = write_text(cell.text)
    return f"{{}}{words}" if words.startswith(("[", "*")) else words  # `\\` would read them as its arguments
