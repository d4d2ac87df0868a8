"""Configurations that keep several steps of their training become one for each step."""

from __future__ import annotations

from dataclasses import replace

from lora_bench.spec.configuration import Configuration, SectionForms

KEEP = "train.keep"


def split_trajectory(item: Configuration, forms: SectionForms) -> list[Configuration]:
    """Return a configuration per kept step, `NAME@25` and so on, and NAME for the last step.

    The last step is never stated: its adapter is that of a training that keeps nothing.
    """
    train = item.settings.train
    if not isinstance(train.keep, list):
        return [_keep(item, None, forms)] if train.keep == train.steps else [item]
    early = [step for step in train.keep if step < train.steps]
    return [
        *(
            replace(
                _keep(item, step, forms),
                name=f"{item.name}@{step}",
                changes={**item.changes, KEEP: step},
                aliases=[],
                cells=[],
            )
            for step in early
        ),
        _keep(item, None, forms),
    ]


def _keep(item: Configuration, step: int | None, forms: SectionForms) -> Configuration:
    train = item.settings.train.model_copy(update={"keep": step})
    settings = item.settings.model_copy(update={"train": train})
    return replace(item, settings=settings, identity=forms.identify(settings))
