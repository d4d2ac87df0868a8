"""Cells and columns that several sections of a report share."""

from __future__ import annotations

from collections.abc import Callable

from lora_bench.metrics.verdicts import Verdict
from lora_bench.report.formatting import MISSING, clean_text, format_interval, format_value, shorten
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Cell, Column, Strong, Tone

DESCRIPTIVE = "descriptive"
THIS_ADAPTER = "this adapter"
"""What stands for training seeds where an adapter existed already."""
_TONES: dict[str, Tone] = {Verdict.BETTER: "better", Verdict.WORSE: "worse"}


def text_columns(*headers: str) -> tuple[Column, ...]:
    """Return columns of text."""
    return tuple(Column(header, is_numeric=False) for header in headers)


def number_columns(*headers: str) -> tuple[Column, ...]:
    """Return columns of numbers."""
    return tuple(Column(header) for header in headers)


def number_cell(value: float | None, write: Callable[[float], str] = format_value) -> Cell:
    """Return a number as `write` shows it; a dash if it is unknown."""
    return Cell(MISSING, tone="missing") if value is None else Cell(write(value), order=value)


def interval_cell(low: float | None, high: float | None, *, signed: bool = True) -> Cell:
    """Return both ends of an interval."""
    return Cell(format_interval(low, high, signed=signed), order=low)


def tone_of(verdict: str | None) -> Tone:
    """Return the tone of a cell with this verdict."""
    return _TONES.get(verdict or "", "plain")


def verdict_cell(verdict: str | None) -> Cell:
    """Return a verdict; a dash if there is none."""
    return Cell(verdict or MISSING, tone=tone_of(verdict))


def prompt_label(view: RunView, prompt: str | None) -> str:
    """Return how tables name a prompt: short, with a mark where the full text stands elsewhere."""
    if prompt is None:
        return view.pooled
    mark = view.long_prompts.get(prompt)
    return shorten(prompt) if mark is None else f"[{mark}] {shorten(prompt)}"


def prompt_cell(view: RunView, prompt: str | None) -> Cell:
    """Return the first cell of a row, with the full text as its hint."""
    label = prompt_label(view, prompt)
    if prompt is None:
        return Cell((Strong(label),))
    return Cell(label, hint=clean_text(prompt) if prompt in view.long_prompts else None)
