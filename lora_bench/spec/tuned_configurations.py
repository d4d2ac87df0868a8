"""Configurations with the values of `tune`: every attempt before the choice, and the chosen one after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_bench.errors import Problem
from lora_bench.metrics import parse_metric
from lora_bench.metrics.names import PROMPT_RATINGS
from lora_bench.slugs import clean_name
from lora_bench.spec.changes import Changes
from lora_bench.spec.configuration import EFFECT_FREE, Configuration, FitBudget, SectionTexts
from lora_bench.spec.configurations import Expander
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.spec.grid import find_value, label_field
from lora_bench.spec.tune import TuneSpec


@dataclass(frozen=True)
class Attempt:
    """A configuration with one combination of values.

    Attributes:
        name: of the attempt.
        of: name of the configuration that looks for its values.
        values: by dotted field, as the trial has them.
        made: that configuration with these values.
    """

    name: str
    of: str
    values: Changes
    made: Configuration


def list_attempts(
    spec: ExperimentSpec, tune: TuneSpec, items: Sequence[Configuration], fit_budget: FitBudget | None
) -> tuple[list[Attempt], list[Problem]]:
    """List the attempts of every configuration that is trained, and what is wrong with them."""
    expander = Expander(spec, fit_budget)
    trained = [item for item in items if item.is_trained]
    if not trained:
        message = (
            "tune has nothing to tune, because nothing is trained; remove it, or add a trial that is trained"
        )
        expander.complain("tune", message)
    if tune.by == "metric" and not (metric := parse_metric(spec.primary_metric)).has_references:
        others = PROMPT_RATINGS | ({metric.name: "texts"} if metric.distance == "text" else {})
        other = others.get(metric.name)
        what = "rates single clips" if other is None else f"compares clips with {other}"
        message = (
            f"tune.by is metric, but `{metric.name}` {what} and does not compare them with the selection tracks; name "
            "another verdict.metric, or tune by loss"
        )
        expander.complain("tune.by", message)
    for item in trained:
        if item.settings.train.keep is not None:
            message = (
                f"train.keep makes `{item.name}` a step of a training that others share, and `tune` would train each "
                "with values of its own; remove one of them"
            )
            expander.complain(item.field, message)
        for name in filter(item.changes.__contains__, tune.axes):
            message = (
                f"`{name}` of `{item.name}` is stated here, and `tune` looks for it; leave out one of them, or give "
                "its values in defaults"
            )
            expander.complain(item.field, message)
        if not item.settings.dataset.split.selection_frac:
            message = (
                "tune chooses by the selection tracks, but dataset.split.selection_frac is 0; leave it out for 0.1, or "
                "give another fraction"
            )
            expander.complain("dataset.split.selection_frac", message)
    if expander.problems:
        return [], list(dict.fromkeys(expander.problems))
    texts = SectionTexts(EFFECT_FREE)
    attempts: list[Attempt] = []
    for item in trained:
        found: dict[str, Attempt] = {}
        for stated in tune.list_values():
            made = _apply(expander, item, stated)
            if made is None:
                continue
            # of rates by kind, that of this kind: two of them may be one
            values = {name: find_value(made.settings, stated, name) for name in tune.axes}
            label = "-".join(label_field(name, value) for name, value in values.items())
            name = clean_name(f"tune-{item.name}-{label}")
            # a value that the kind does not have makes no other attempt
            found.setdefault(texts.write(made.identity), Attempt(name, item.name, values, made))
        attempts += found.values()
    return attempts, list(dict.fromkeys(expander.problems))


def freeze_values(
    spec: ExperimentSpec,
    items: Sequence[Configuration],
    chosen: Mapping[str, Mapping[str, Any]],
    fit_budget: FitBudget | None,
) -> list[Configuration]:
    """Return configurations with the values that were chosen for them, without those that have none.

    Adapters that exist already and other systems are not trained, and stay as they are.
    """
    expander = Expander(spec, fit_budget)
    frozen: list[Configuration] = []
    for item in items:
        values = chosen.get(item.name)
        made = None if values is None else _apply(expander, item, dict(values))
        if made is not None or not item.is_trained:
            frozen.append(made or item)
    return frozen


def _apply(expander: Expander, item: Configuration, values: Changes) -> Configuration | None:
    """The configuration with other values under its own name; None, and a problem, if they do not fit."""
    stated = expander.change(item.stated, values, "tune")
    made = expander.make(item.name, stated, item.changes, "tune")
    if made is None:
        return None
    # data and clips as they were settled, perhaps for several equal configurations together
    kept = {"dataset": item.settings.dataset, "generation": item.settings.generation}
    settings = made.settings.model_copy(update=kept)
    return replace(item, settings=settings, stated=made.stated, identity=expander.forms.identify(settings))
