"""The part of a dataset's training tracks that an adapter is trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from lora_bench.spec.section import Section

SIZE_FIELDS = ("dataset.size.tracks", "dataset.size.minutes")
ALL = "all"


class DataSizeSpec(Section):
    """The size of the training side; the selection tracks and the references stay the same."""

    tracks: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    """Number of training tracks, or `all`. Smaller sizes are contained in larger ones."""
    minutes: Annotated[float, Field(gt=0.0)] | Literal["all"] | None = None
    """Minutes of training tracks, or `all`: whole tracks in the same order, until there are as many minutes or more."""

    @model_validator(mode="after")
    def _one_measure(self) -> DataSizeSpec:
        if (self.tracks is None) == (self.minutes is None):
            given = "neither" if self.tracks is None else "both"
            raise ValueError(f"give one of `tracks` (such as 8) and `minutes` (such as 30), got {given}")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return ALL in (self.tracks, self.minutes)


def order_sizes(values: Sequence[JsonValue]) -> list[int]:
    """Return the places of an axis' values, ascending, with `all` last."""
    return sorted(
        range(len(values)),
        key=lambda place: value if isinstance(value := values[place], int | float) else math.inf,
    )


def describe_few_tracks(wanted: int, n_train: int) -> str:
    """Return what to say of a number of tracks that the training side does not have."""
    return (
        f"dataset.size.tracks is {wanted}, but the training side has {n_train} tracks; expected up to {n_train}, or "
        "`all`; add recordings or lower it"
    )
