"""Learning rates by kind of adapter: `lr: {lora: 1e-4, vera: 1e-2}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from lora_bench.spec.kinds import SETTINGS, Kind
from lora_bench.spec.words import suggest

Rate = Annotated[float, Field(gt=0.0)]


def _check_kinds(value: Any) -> Any:
    """Refuse keys that are no kind, by name; what is no mapping is left to the type."""
    if isinstance(value, Mapping):
        for kind in value:
            if kind not in SETTINGS:
                near = suggest(str(kind), SETTINGS)
                raise ValueError(f"`{kind}` is no kind of adapter{near}; kinds are {', '.join(SETTINGS)}")
    return value


RatesByKind = Annotated[dict[Kind, Rate], Field(min_length=1), BeforeValidator(_check_kinds)]


def choose_rate(rates: float | Mapping[Kind, float], kind: Kind) -> float:
    """Return the learning rate of a kind.

    Raises:
        ValueError: a mapping has none for it.
    """
    if not isinstance(rates, Mapping):
        return rates
    if kind not in rates:
        raise ValueError(
            f"`train.lr` has rates for {', '.join(rates)}, but none for kind `{kind}`; add `{kind}: <rate>`"
        )
    return rates[kind]
