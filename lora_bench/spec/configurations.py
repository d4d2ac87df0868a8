"""The configurations that a spec names: variants, combinations of the grid, ablations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from lora_bench.errors import Problem
from lora_bench.spec.changes import Changes, apply_changes, copy_mapping, flatten_mapping
from lora_bench.spec.experiment import MAX_GRID, ExperimentSpec, TrialSettings
from lora_bench.spec.grid import clean_name, expand_grid, find_value, name_combination, show_value
from lora_bench.spec.problems import field_name
from lora_bench.spec.targets import spell_targets
from lora_bench.spec.words import suggest

ZERO_SHOT = "zero-shot"


@dataclass
class Configuration:
    """Settings under a name.

    Attributes:
        changes: dotted fields in which it differs from the defaults, as stated.
        field: where the spec states it, for messages.
        aliases: names of equal configurations that were merged into this one.
    """

    name: str
    settings: TrialSettings
    changes: Changes
    field: str
    aliases: list[str] = dataclasses.field(default_factory=list)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What configurations are compared by."""
        return identify_settings(self.settings)


def expand_configurations(spec: ExperimentSpec) -> tuple[list[Configuration], list[Problem]]:
    """All configurations in the order of the spec, equal ones merged, and what is wrong with them."""
    expander = _Expander(spec)
    trials = list(expander.expand_trials())
    ablations = list(expander.expand_ablations({trial.name: trial for trial in trials}))
    return expander.merge_equal([*trials, *ablations]), expander.problems


def identify_settings(settings: TrialSettings) -> dict[str, Any]:
    """What two settings are compared by: alpha filled in, targets spelled out and ordered."""
    plain = settings.model_dump(mode="json")
    lora = plain["lora"]
    lora["alpha"] = settings.lora.resolved_alpha
    lora["targets"] = spell_targets(lora["targets"])
    return plain


class _Expander:
    """Expands one spec; `problems` takes what is wrong."""

    def __init__(self, spec: ExperimentSpec) -> None:
        self.spec = spec
        self.base = spec.base_settings()
        self.plain = self.base.model_dump()
        self.problems: list[Problem] = []

    def complain(self, where: str, message: str) -> None:
        self.problems.append(Problem(self.spec.name, where, message))

    def change(self, plain: dict[str, Any], changes: Changes, where: str) -> TrialSettings | None:
        """Settings after changes; None, and a problem, if they do not fit together."""
        touched = {dotted.partition(".")[0] for dotted in changes}
        sections = {name: copy_mapping(section) for name, section in plain.items() if name in touched}
        ordered = sorted(changes.items(), key=lambda item: item[0].count("."))
        if isinstance(named := changes.get("dataset"), str):
            if named not in self.spec.datasets:
                near = suggest(named, self.spec.datasets)
                self.complain(where, f"`{named}` is no name in `datasets`{near}")
                return None
            sections["dataset"] = self.spec.datasets[named].model_dump()
            ordered = [item for item in ordered if item[0] != "dataset"]
        apply_changes(sections, ordered)
        try:
            return TrialSettings.model_validate({**plain, **sections})
        except ValidationError as error:
            for item in error.errors(include_url=False):
                stated = ", ".join(f"{name} {show_value(value)}" for name, value in changes.items())
                reason = str(item["msg"]).removeprefix("Value error, ")
                self.complain(where, f"with {stated}: `{field_name(item['loc'])}`: {reason}")
            return None

    def expand_trials(self) -> Iterator[Configuration]:
        """Variants, then the grid; the defaults alone where neither is given."""
        trials = self.spec.trials
        if not trials.variants and trials.grid is None:
            lora = self.base.lora
            name = clean_name(f"r{lora.rank}-{show_value(lora.targets)}")
            yield Configuration(name, self.base, {}, "trials")
        for index, variant in enumerate(trials.variants):
            where = f"trials.variants[{index}]"
            settings = self.change(self.plain, variant.changes, where)
            if settings is not None:
                yield Configuration(variant.name, settings, variant.changes, where)
        if trials.grid is None:
            return
        if trials.grid.n_combinations > MAX_GRID:
            self.complain("trials.grid.axes", f"the axes give more than {MAX_GRID:,} trials")
            return
        n_found = 0
        for changes in expand_grid(trials.grid):
            n_found += 1
            settings = self.change(self.plain, changes, "trials.grid")
            if settings is not None:
                name = name_combination(trials.grid, changes, settings)
                yield Configuration(name, settings, changes, "trials.grid")
        if not n_found:
            self.complain("trials.grid.exclude", "every combination is excluded; leave at least one")

    def expand_ablations(self, trials: Mapping[str, Configuration]) -> Iterator[Configuration]:
        """One change each from the baseline, which may be any variant or combination."""
        wanted = self.spec.baseline
        if wanted is None:
            if self.spec.ablations:
                self.complain(
                    "ablations", "ablations change a baseline; name the trial with `baseline: <name>`"
                )
            return
        baseline = trials.get(wanted)
        if baseline is None:
            near = suggest(wanted, trials)
            known = ", ".join(list(trials)[:12])
            self.complain("baseline", f"`{wanted}` is no trial{near}; trials are {known}")
            return
        plain = baseline.settings.model_dump()
        for name, changes in self.spec.ablations.items():
            where = f"ablations.{name}"
            if len(changes) != 1:
                self.complain(where, f"ablation `{name}` changes {len(changes)} fields; it must change one")
                continue
            settings = self.change(plain, changes, where)
            if settings is None:
                continue
            if identify_settings(settings) == baseline.identity:
                (dotted,) = changes
                value = show_value(find_value(settings, changes, dotted))
                self.complain(
                    where, f"ablation `{name}` changes nothing: `{dotted}` of `{wanted}` is {value} already"
                )
            yield Configuration(name, settings, {**baseline.changes, **changes}, where)

    def merge_equal(self, stated: Iterable[Configuration]) -> list[Configuration]:
        """Configurations that differ; a name that stands for two of them is a problem."""
        by_key: dict[str, Configuration] = {}
        by_name: dict[str, Configuration] = {}
        for configuration in stated:
            key = json.dumps(configuration.identity, sort_keys=True)
            first = by_key.setdefault(key, configuration)
            if configuration.name not in (first.name, *first.aliases):
                first.aliases.append(configuration.name)
            namesake = by_name.setdefault(configuration.name, first)
            if namesake is not first:
                self.complain(configuration.field, _describe_collision(namesake, configuration))
            elif configuration.name == ZERO_SHOT:
                message = f"`{ZERO_SHOT}` names the base model's row, which is always there; choose another"
                self.complain(configuration.field, message)
        return list(by_key.values())


def _describe_collision(first: Configuration, second: Configuration) -> str:
    differing = find_differences(first.identity, second.identity)
    fields = ", ".join(f"`{name}`" for name in differing)
    mend = "choose another name"
    if second.field == "trials.grid":
        mend = f"put {', '.join(f'{{{name}}}' for name in differing)} into trials.grid.name"
    return f"two trials are named `{first.name}` but differ in {fields}; {mend}"


def find_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Dotted fields in which two nested mappings differ."""
    one, other = flatten_mapping(first), flatten_mapping(second)
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]
