"""Text of specs in LaTeX: nothing in it acts, and nothing is lost silently."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_bench.report.paper.latex import escape_latex, write_table
from lora_bench.report.writers.document import Cell, Code, Column, Strong, Table

WRITTEN = re.compile(r"\\(?:[a-zA-Z]+\{\}|ensuremath\{(?:-|\\[a-z]+)\}|[{}$&#%_])")


@given(st.text())
def test_no_character_of_a_text_acts(text: str) -> None:
    rest = WRITTEN.sub("", escape_latex(text)).replace("{}", "")
    assert not re.search(r"[\\{}$&#%_^]", rest)
    assert rest.isprintable()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("100 % of_$5 & #1", r"100 \% of\_\$5 \& \#1"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("\u22129\u00a0%", r"\ensuremath{-}9~\%"),
        ("caf\u00e9, cafe\u0301", "caf\u00e9, caf\u00e9"),
        ("a -- b --- c \u2014", "a -{}- b -{}-{}- c \u2014".replace("\u2014", "---")),
        ("\u4e2d", "[U+4E2D]"),
        ("two\nlines\tand\x00 more", "two lines and more"),
        ("\ufb01ve", "five"),
    ],
)
def test_characters_are_set_as_they_are(text: str, written: str) -> None:
    assert escape_latex(text) == written


def make_table(n_columns: int) -> Table:
    columns = (Column("name", is_numeric=False), *(Column(f"c{i}") for i in range(n_columns - 1)))
    row = (Cell((Strong("a_b"), " ", Code("[x]"))), *(Cell(f"{i}.5") for i in range(n_columns - 1)))
    return Table("A caption", columns, (row,))


def test_a_table_has_its_columns_and_caption() -> None:
    text = write_table(make_table(3), "one")
    assert r"\begin{tabular}{lrr}" in text
    assert r"\textbf{a\_b} \texttt{[x]} & 0.5 & 1.5 \\" in text
    assert r"\caption{A caption.}" in text
    assert r"\label{tab:one}" in text


def test_a_wide_table_is_divided_and_holds_every_column_once() -> None:
    text = write_table(make_table(20), "wide")
    parts = re.findall(r"\\toprule\n(.*?) \\\\", text)
    assert len(parts) == 3
    heads = [part.split(" & ") for part in parts]
    assert all(head[0] == "name" for head in heads)
    assert [name for head in heads for name in head[1:]] == [f"c{i}" for i in range(19)]


def test_a_cell_in_brackets_is_no_argument_of_the_line_before() -> None:
    table = Table("t", (Column("a"),), ((Cell("[P1] x"),), (Cell("*"),)))
    assert r"{}[P1] x \\" in write_table(table, "t")
    assert r"{}* \\" in write_table(table, "t")
