"""The section `tune`: values among which each configuration finds its own, before the comparison."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lora_bench.spec.changes import Changes, flatten_mapping
from lora_bench.spec.section import Section, Seed

MAX_VALUES = 64
TUNED_SECTIONS = ("train.", "lora.")
OWN_FIELDS = ("seed", "by")
"""Fields of `tune` that are no axes."""


def _is_loss(value: str) -> bool:
    return value == "loss"  # finished runs from before there was a choice are still found


class TuneSpec(Section):
    """Values of fields, such as `train.lr: [1e-4, 3e-4]`, of which each configuration trains every combination once.

    The best one on the selection tracks is frozen for the configuration, and then trained with all
    `repeats.train_seeds` and scored.
    """

    axes: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    """Values of each field of `train` or `lora`, given by its dotted name; written without `axes`."""
    seed: Seed | None = None
    """Training seed of the attempts; null is the first number that is not among `repeats.train_seeds`, so that no
    training that was chosen is scored. One of them saves its training."""
    by: Annotated[Literal["loss", "metric"], Field(exclude_if=_is_loss)] = "loss"
    """What is best: the lowest held-out loss, or the best mean of the primary metric over the genre's own prompts. Each
    attempt then makes `generation.n_clips` clips of them, which are compared with the selection tracks."""

    @model_validator(mode="before")
    @classmethod
    def _gather_axes(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "axes" in data:
            return data
        axes = flatten_mapping({key: value for key, value in data.items() if key not in OWN_FIELDS})
        return {key: data[key] for key in OWN_FIELDS if key in data} | {"axes": axes}

    @field_validator("axes")
    @classmethod
    def _can_be_tuned(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        n_values = 1
        for name, values in value.items():
            n_values *= len(values)
            if not name.startswith(TUNED_SECTIONS):
                raise ValueError(
                    f"`{name}` cannot be tuned, because losses of different models, data or clips do not compare; tune "
                    "fields of train and lora"
                )
            if len({repr(each) for each in values}) < len(values):
                raise ValueError(f"`{name}` repeats a value; each may appear once")
        if not 2 <= n_values <= MAX_VALUES:
            raise ValueError(f"{n_values} combinations; expected 2 to {MAX_VALUES} to choose from")
        return value

    def list_values(self) -> Iterator[Changes]:
        """Yield every combination of values, the last field fastest."""
        for chosen in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, chosen, strict=True))

    def describe(
        self, n_configurations: int, n_later: int, train_seeds: Sequence[int], metric: str
    ) -> tuple[str, str]:
        """Return what either step trains, in a sentence each; `metric` is the primary one."""
        judged = "the held-out loss on" if self.by == "loss" else f"{metric} of clips against"
        which = "1 configuration" if n_configurations == 1 else f"{n_configurations} configurations"
        seeds = "1 training seed" if len(train_seeds) == 1 else f"{len(train_seeds)} training seeds"
        n_values = sum(1 for _ in self.list_values())
        return (
            (
                f"step 1 of 2: {' and '.join(self.axes)} of {which}, {n_values} attempts each with training seed "
                f"{self.choose_seed(train_seeds)}, judged by {judged} the selection tracks"
            ),
            f"step 2 of 2: {n_later} trials with the values that were chosen, {seeds} per configuration",
        )

    def choose_seed(self, train_seeds: Sequence[int]) -> int:
        """Return the training seed of the attempts."""
        if self.seed is not None:
            return self.seed
        return next(number for number in itertools.count() if number not in train_seeds)
