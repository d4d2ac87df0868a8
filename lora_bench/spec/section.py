"""The base of every section of a spec, and the types that sections share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,79}$")]
RowName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+@-]{0,99}$")]
"""A name, perhaps with a step, as of trials that keep several."""
Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _check_words(value: str) -> str:
    """Refuse a command line that is no words.

    Raises:
        ValueError: it is empty, or a quotation is not closed.
    """
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"`{value}` cannot be split into words ({error}); check its quotes") from None
    if not words:
        raise ValueError("is empty; expected a program and its arguments")
    return value


def _check_path(value: object) -> object:
    """Refuse texts that no file has as its name; an empty one would mean the current folder."""
    if isinstance(value, str) and (not value or "\0" in value):
        raise PydanticCustomError("no_path", "expected a path")
    return value


StatedPath = Annotated[Path, Field(strict=False), BeforeValidator(_check_path)]
"""A path; a relative one is relative to the file that states it."""

WORDS = AfterValidator(_check_words)
"""Marks a text that is a program and its arguments, split as a shell does."""


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values are immutable and not coerced."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def is_none(value: object) -> bool:
    """Return whether a field is absent, so that finished runs from before the field are still found."""
    return value is None
