"""Templates of captions: text with `{field}` and `{field:format}`, from which missing fields drop out with their part.

A template is divided into parts at commas, semicolons, bars, line ends, and full stops and dashes before a space.  A
part with a missing field is left out.  `[...]` is left out alone: in `{bpm:.0f} bpm[ in {key}]`, a missing key
leaves `120 bpm`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

_SEPARATOR = re.compile(r"\s*[,;|\n]\s*|\.(?=\s|$)\s*|\s+[-\u2013\u2014]\s+|\s+/\s+")
_STRONG = frozenset(".;\n")  # outlive the part behind them
_NAME = re.compile(r"\w[\w-]*")
_NUMERIC = frozenset("bcdeEfFgGnoxX%")


@dataclass(frozen=True)
class _Field:
    name: str
    spec: str

    @property
    def text(self) -> str:
        return f"{{{self.name}:{self.spec}}}" if self.spec else f"{{{self.name}}}"


@dataclass(frozen=True)
class _Group:
    """What stands in brackets."""

    items: tuple[str | _Field, ...]


@dataclass(frozen=True)
class _Part:
    """Text between two separators, and the separator in front of it."""

    separator: str
    items: tuple[str | _Field | _Group, ...]


class FieldFormatError(ValueError):
    """A value does not fit the format of its field."""

    def __init__(self, name: str, text: str, value: object) -> None:
        self.name = name
        super().__init__(f"`{name}` is `{value}`, which `{text}` cannot write as a number")


@dataclass(frozen=True)
class CaptionTemplate:
    """A parsed template."""

    parts: tuple[_Part, ...]
    end: str
    """Separator after the last part, such as a full stop."""

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in their order."""
        return tuple(dict.fromkeys(field.name for part in self.parts for field in _list_fields(part.items)))

    def render(self, values: Mapping[str, str | float]) -> str:
        """Return the text; empty if nothing of it is left.

        Args:
            values: fields that are known; a number, or text that is one where the format asks for a number.

        Raises:
            FieldFormatError: a value does not fit its field's format.
        """
        text = skipped = ""
        for part in self.parts:
            written = _write(part.items, values)
            if not written:
                skipped = skipped or part.separator
                continue
            separator = skipped if skipped[:1] in _STRONG else part.separator
            text += (separator if text else "") + written
            skipped = ""
        return " ".join(f"{text}{self.end if text else ''}".split())


def parse_template(text: str) -> CaptionTemplate:
    """Parse a template.

    Raises:
        ValueError: braces or brackets do not match, a field has no name or a format that does not exist, or there is
            no field.
    """
    parts: list[_Part] = []
    separator, items = "", list[str | _Field | _Group]()
    group: list[str | _Field] | None = None
    for token in _tokenize(text):
        if token == "[":
            if group is not None:
                raise ValueError("`[` stands within brackets; close the outer ones first")
            group = []
        elif token == "]":
            if group is None:
                raise ValueError("`]` has no `[` before it; brackets surround what is left out with a field")
            items.append(_Group(tuple(group)))
            group = None
        elif group is not None:
            group.append(token)
        elif isinstance(token, str) and _SEPARATOR.fullmatch(token):
            parts.append(_Part(separator, tuple(items)))
            separator, items = token, []
        else:
            items.append(token)
    if group is not None:
        raise ValueError("`[` is not closed; add `]`")
    if items:
        parts.append(_Part(separator, tuple(items)))
        separator = ""
    template = CaptionTemplate(tuple(parts), separator.rstrip())
    if not template.fields:
        raise ValueError(
            "has no field such as {genre} or {bpm:.0f}; write captions.text for one text for all tracks"
        )
    return template


def _tokenize(text: str) -> Iterator[str | _Field]:
    try:
        pieces = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{error}; write {{{{ and }}}} for braces that are no field") from error
    for literal, name, spec, conversion in pieces:
        yield from (piece for piece in re.split(rf"([\[\]]|{_SEPARATOR.pattern})", literal) if piece)
        if name is None:
            continue
        if conversion or not _NAME.fullmatch(name):
            raise ValueError(
                f"`{{{name}{'!' + conversion if conversion else ''}}}` is not a field; expected a name alone, such as "
                "{genre}, or a name and a number format, such as {bpm:.0f}"
            )
        yield _Field(name.lower(), _check_format(name, spec or ""))


def _check_format(name: str, spec: str) -> str:
    try:
        if spec:
            format(1.0 if spec[-1] in _NUMERIC else "x", spec)
    except ValueError as error:
        raise ValueError(
            f"`{{{name}:{spec}}}`: `{spec}` is not a format ({error}); for a whole number, write {{{name}:.0f}}"
        ) from error
    return spec


def _list_fields(items: Sequence[str | _Field | _Group]) -> Iterator[_Field]:
    for item in items:
        if isinstance(item, _Group):
            yield from _list_fields(item.items)
        elif isinstance(item, _Field):
            yield item


def _write(items: Sequence[str | _Field | _Group], values: Mapping[str, str | float]) -> str:
    """Return a part or group; empty if one of its own fields is missing."""
    text = ""
    for item in items:
        if isinstance(item, _Group):
            text += _write(item.items, values)
        elif isinstance(item, str):
            text += item
        elif item.name not in values or not (written := _format(item, values[item.name])):
            return ""
        else:
            text += written
    return text if text.strip() else ""


def _format(field: _Field, value: str | float) -> str:
    if not field.spec or field.spec[-1] not in _NUMERIC:
        shown = f"{value:g}" if isinstance(value, float) and not field.spec else str(value)
        return format(" ".join(shown.split()), field.spec)
    try:
        return format(float(value), field.spec)
    except ValueError as error:
        raise FieldFormatError(field.name, field.text, value) from error
