"""Numbers of trainable parameters as a spec writes them: `400k`, `1.5M`, 400000."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

_PATTERN = r"^[0-9]+(\.[0-9]+)?[kM]$"
_UNITS = {"k": 1_000, "M": 1_000_000}


def _read(value: Any) -> Any:
    """Return the number that a text stands for; what is no text is left to the type."""
    if not isinstance(value, str):
        return value
    number = Decimal(value[:-1]) * _UNITS[value[-1]] if re.fullmatch(_PATTERN, value) else None
    if number is None or number != int(number):
        raise ValueError(
            f"`{value[:40]}` is no number of parameters; write a whole number, such as 400000, 400k or 1.5M"
        )
    return int(number)


Budget = Annotated[
    int,
    Field(ge=1),
    BeforeValidator(_read, json_schema_input_type=int | Annotated[str, StringConstraints(pattern=_PATTERN)]),
]


def spell_count(n: int) -> str:
    """Return a number of parameters as a spec writes it, with a unit where that is exact: `400k`, `1.5M`, `1234`."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if n >= size and n * 1000 % size == 0:
            return f"{Decimal(n) / size:f}{unit}"
    return str(n)


def format_budgeted(n: int, budget: int | None) -> str:
    """Return a number of parameters, with its deviation from the budget where there is one: `98,304 (-1.7 %)`."""
    return f"{n:,}" if budget is None else f"{n:,} ({100.0 * (n - budget) / budget:+.1f} %)"
