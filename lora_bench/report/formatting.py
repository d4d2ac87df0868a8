"""Numbers, lengths and prompts as readers see them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

MAX_LABEL_WIDTH = 56
MISSING = "\u2014"
MINUS = "\u2212"
"""Of numbers on the page and in plots; `use_plain_signs` turns it into a hyphen for markdown and terminals."""

_MINUS_OF_NUMBER = re.compile(rf"{MINUS}(?=\d)")
# Not allowed in XML and of no use in a report; tab and line breaks become spaces.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def clean_text(text: str) -> str:
    """Return one line without control characters; runs of white space become one space."""
    return " ".join(_CONTROL.sub("", text).split())


def drop_control_characters(text: str) -> str:
    """Return text with its lines kept, but without characters that XML forbids."""
    return _CONTROL.sub("", text)


def text_width(text: str) -> int:
    """Return the columns that the text takes: East Asian wide characters count twice, combining ones not at all."""
    return sum(
        0 if unicodedata.combining(mark) else 2 if unicodedata.east_asian_width(mark) in "WF" else 1
        for mark in text
    )


def shorten(text: str, max_width: int = MAX_LABEL_WIDTH) -> str:
    """Return the text, cut at a word where possible, with an ellipsis if it is wider than `max_width`."""
    text = clean_text(text)
    if text_width(text) <= max_width:
        return text
    kept = ""
    width = 0
    for mark in text:
        width += text_width(mark)
        if width > max_width - 1:
            break
        kept += mark
    at_word = kept.rsplit(" ", 1)[0]
    if text_width(at_word) >= max_width * 0.6:
        kept = at_word
    return kept.rstrip(" ,.;:") + "\u2026"


def format_value(value: float, *, digits: int = 4) -> str:
    """Return a number with `digits` significant digits, as far as these are decimals."""
    return format_fixed(value, _count_decimals(value, digits))


def format_with_error(value: float, error: float | None) -> str:
    """Return `49.5 ± 5.6`, rounded to what the error allows; the value alone without error."""
    if error is None:
        return format_value(value)
    decimals = _allow_decimals(error)
    return f"{format_fixed(value, decimals)}\u00a0±\u00a0{format_fixed(error, decimals)}"


def round_to_error(value: float, error: float | None) -> str:
    """Return a number rounded to what its error allows."""
    return format_with_error(value, error).partition("\u00a0")[0]


def format_interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Return `0.46 to 0.54`, rounded to what its width allows; a dash without an interval."""
    if low is None or high is None:
        return MISSING
    decimals = _allow_decimals((high - low) / 2.0 or low)
    return "\u00a0to\u00a0".join(format_fixed(end, decimals, signed=signed) for end in (low, high))


def add_interval(text: str, low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Return `text (0.46 to 0.54)`; the text alone without an interval."""
    interval = format_interval(low, high, signed=signed)
    return text if interval == MISSING else f"{text} ({interval})"


def format_difference(value: float, *, error: float | None = None) -> str:
    """Return a value with its sign, rounded as its interval is, which reaches about two standard errors."""
    decimals = _allow_decimals(2.0 * error) if error else _count_decimals(value, 4)
    return format_fixed(value, decimals, signed=True)


def format_with_interval(value: float, low: float | None, high: float | None, error: float | None) -> str:
    """Return `−1.9 (−3.0 to −0.7)`, all rounded to what the interval's width allows; without one, by the error."""
    half = None if low is None or high is None else (high - low) / 2.0
    return add_interval(format_difference(value, error=half / 2.0 if half else error), low, high, signed=True)


def format_change(share: float) -> str:
    """Return a share as a signed percentage: `−27 %`; one decimal below 10 %."""
    percent = 100.0 * share
    decimals = 0 if abs(percent) >= 9.95 else 1
    return f"{format_fixed(percent, decimals, signed=True)}\u00a0%"


def format_percent(share: float) -> str:
    """Return a share as a whole percentage: `79 %`."""
    return f"{100.0 * share:.0f}\u00a0%"


def format_correlation(value: float) -> str:
    """Return a correlation with its sign and two decimals."""
    return format_fixed(value, 2, signed=True)


def _allow_decimals(error: float) -> int:
    """Return the decimals at which an error has two significant digits."""
    size = abs(error)
    return 4 if size < 1e-12 else min(12, max(0, 1 - math.floor(math.log10(size))))


def _count_decimals(value: float, digits: int) -> int:
    size = abs(value)
    return digits - 1 if size < 1e-12 else min(12, max(0, digits - 1 - math.floor(math.log10(size))))


def format_fixed(value: float, decimals: int, *, signed: bool = False) -> str:
    """Return a number with this many decimals, and a plus sign if asked for; in powers of ten beyond 8 decimals."""
    sign = "+" if signed else ""
    text = f"{value:{sign}.{decimals}f}" if decimals <= 8 else f"{value:{sign}.2e}"
    return f"{MINUS}{text[1:]}" if text.startswith("-") else text


def format_tick(value: float) -> str:
    """Return a round number of an axis."""
    return f"{value:g}".replace("-", MINUS)


def use_plain_signs(text: str) -> str:
    """Return text with hyphens for the minus signs of numbers, and plain blanks."""
    return _MINUS_OF_NUMBER.sub("-", text).replace("\u00a0", " ")


def format_probability(value: float | None) -> str:
    """Return a p-value; a small one as a bound."""
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def format_count(value: float | None) -> str:
    """Return a whole number with separated thousands."""
    return MISSING if value is None else f"{int(value):,}"


def format_duration(duration_s: float | None) -> str:
    """Return seconds, minutes or hours, depending on the length."""
    if duration_s is None:
        return MISSING
    if duration_s < 1:
        return f"{duration_s:.2f} s"
    if duration_s < 120:
        return f"{duration_s:.1f} s"
    if duration_s < 7200:
        return f"{duration_s / 60:.1f} min"
    return f"{duration_s / 3600:.1f} h"


def join_words(words: Sequence[str]) -> str:
    """Return `a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def count_noun(n: int, noun: str) -> str:
    """Return `1 prompt`, `3 prompts`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def write_setting(value: JsonValue | Mapping[str, JsonValue]) -> str:
    """Return a setting in words: null is off or unset, lists and mappings on one line."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e-12 or 1e-6 <= abs(value) < 1e7 else format_value(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {write_setting(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(write_setting(item) for item in value)
    return clean_text(str(value))
