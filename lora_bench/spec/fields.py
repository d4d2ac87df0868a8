"""What a field is and takes, read off the models: for messages, and to check dotted fields."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from lora_bench.spec.section import Section

_UNIONS = (Union, types.UnionType)


@cache
def named_fields(section: type[Section]) -> dict[str, FieldInfo]:
    """Fields by the name that a spec uses."""
    return {info.alias or name: info for name, info in section.model_fields.items()}


def dotted_fields(section: type[Section], prefix: str = "") -> Iterator[str]:
    """All fields of a section and of those below it, `lora.rank` and so on, sections left out."""
    for name, info in named_fields(section).items():
        below = section_in(info.annotation)
        if below is None:
            yield prefix + name
        else:
            yield from dotted_fields(below, f"{prefix}{name}.")


def section_in(annotation: Any) -> type[Section] | None:
    """The section that a field holds; None if it holds values."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in {*_UNIONS, Annotated}:
        return next((found for arg in get_args(annotation) if (found := section_in(arg))), None)
    return None


def find_annotation(section: type[Section], trail: Sequence[str | int]) -> tuple[Any, Sequence[Any]] | None:
    """Type and constraints of what stands at `trail`; None if the models do not say."""
    found: tuple[Any, Sequence[Any]] = (section, ())
    for part in trail:
        step = _step(found[0], part)
        if step is None:
            return None
        found = step
    return found


def _step(annotation: Any, part: str | int) -> tuple[Any, Sequence[Any]] | None:
    below = section_in(annotation)
    if below is not None:
        info = named_fields(below).get(str(part))
        return (info.annotation, info.metadata) if info else None
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _step(args[0], part)
    if origin is list and isinstance(part, int):
        return (args[0], ())
    if origin is dict and isinstance(part, str):
        return (args[1], ())
    if origin in _UNIONS:
        return next((found for arg in args if (found := _step(arg, part))), None)
    return None


def section_at(section: type[Section], trail: Sequence[str | int]) -> type[Section] | None:
    """The section that stands at `trail`."""
    found = find_annotation(section, trail)
    return section_in(found[0]) if found else None


def describe_type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What is expected, in words: `a whole number from 1 to 1024`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe_type(args[0], (*args[1:], *metadata))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin in _UNIONS:
        return " or ".join(describe_type(arg, metadata) for arg in args)
    if annotation in {int, float}:
        kind = "a whole number" if annotation is int else "a number"
        return f"{kind}{_describe_range(_read_limits(metadata))}"
    if origin is list:
        return f"a list, each item {describe_type(args[0])}" if args[0] is not Any else "a list of values"
    if origin is dict or section_in(annotation) is not None:
        return "a mapping (`key: value` lines)"
    limits = _read_limits(metadata)
    if annotation is str:
        return _describe_text(limits)
    return {bool: "`true` or `false`", Path: "a path", type(None): "`null`"}.get(annotation, "a value")


@dataclass(frozen=True)
class Limits:
    """Constraints of a field, as Pydantic names them."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    pattern: str | None = None
    min_length: int | None = None
    max_length: int | None = None


def _read_limits(metadata: Sequence[Any]) -> Limits:
    """Return the constraints in Pydantic's and annotated-types' markers; a later marker counts."""
    found = Limits()
    for item in metadata:
        marks = [*item.metadata, item] if isinstance(item, FieldInfo) else [item]
        for mark in marks:
            stated = {each.name: getattr(mark, each.name, None) for each in fields(Limits)}
            found = replace(found, **{name: value for name, value in stated.items() if value is not None})
    return found


def _describe_range(limits: Limits) -> str:
    words: list[str] = []
    if limits.gt is not None:
        words.append(f"above {limits.gt:g}")
    elif limits.ge is not None:
        words.append(f"from {limits.ge:g}" if limits.le is not None else f"of at least {limits.ge:g}")
    if limits.lt is not None:
        words.append(f"below {limits.lt:g}" if limits.lt < 2**31 else "below 2^31")
    elif limits.le is not None:
        words.append(f"to {limits.le:g}" if words and words[0].startswith("from") else f"up to {limits.le:g}")
    return f" {' '.join(words)}".rstrip()


def _describe_text(limits: Limits) -> str:
    if limits.pattern:
        return "a name of letters, digits and `. _ + -` (at most 80, the first a letter or digit)"
    if limits.max_length:
        return f"text of {limits.min_length or 0} to {limits.max_length} characters"
    return "text, not empty" if limits.min_length else "text"
