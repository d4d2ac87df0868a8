"""The configurations that a spec names: variants, combinations of the grid, ablations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from pydantic import JsonValue, ValidationError

from lora_bench.errors import Problem
from lora_bench.slugs import clean_name
from lora_bench.spec.changes import Changes, apply_changes, flatten_mapping
from lora_bench.spec.configuration import (
    EFFECT_FREE,
    Configuration,
    FitBudget,
    PlainSection,
    SectionForms,
    SectionTexts,
)
from lora_bench.spec.existing_adapters import is_training_setting
from lora_bench.spec.experiment import ExperimentSpec, TrialSettings
from lora_bench.spec.external import ExternalSpec
from lora_bench.spec.grid import expand_grid, find_value, name_combination, show_value
from lora_bench.spec.problems import field_name
from lora_bench.spec.rates import choose_rate
from lora_bench.spec.schema import DatasetSpec, LoraSpec, ModelSpec, TrainSpec
from lora_bench.spec.search import DEFAULT_SELECTION_FRAC
from lora_bench.spec.section import Section
from lora_bench.spec.trajectories import KEEP, split_trajectory
from lora_bench.spec.words import suggest

ZERO_SHOT = "zero-shot"
VARIANT_AXIS = "variant"
N_CLIPS = "generation.n_clips"


def expand_configurations(
    spec: ExperimentSpec, fit_budget: FitBudget | None = None
) -> tuple[list[Configuration], list[Problem]]:
    """All configurations in the order of the spec, equal ones merged, and what is wrong with them.

    Args:
        spec: the experiment.
        fit_budget: finds the sizes of adapters with a budget; without it, their sizes stay open.
    """
    expander = Expander(spec, fit_budget)
    stated, expander.problems = list_stated(spec, fit_budget)
    return expander.merge_equal(stated), expander.problems


def list_stated(
    spec: ExperimentSpec, fit_budget: FitBudget | None = None
) -> tuple[list[Configuration], list[Problem]]:
    """All configurations as stated, equal ones apart, and what is wrong with them."""
    expander = Expander(spec, fit_budget)
    trials = list(expander.expand_trials())
    ablations = expander.expand_ablations(trials)
    stated = [*trials, *ablations]
    expander.settle_selection(stated)
    stated = [row for item in stated for row in expander.split_trajectory(item)]
    return stated, expander.problems


class Expander:
    """Expands one spec that `trial_parts.py` has checked; `problems` takes what shows only then."""

    def __init__(self, spec: ExperimentSpec, fit_budget: FitBudget | None = None) -> None:
        self.spec = spec
        self.base = spec.base_settings()
        self.forms = SectionForms(has_sizes=fit_budget is not None)
        self.fit_budget = fit_budget
        # sections that were changed before in the same way, by the id of the section that they come from
        self.changed: dict[tuple[int, str], Section] = {}
        # resolved sections by the ids of those that decide, which are kept with them
        self.fitted: dict[tuple[int, int], tuple[LoraSpec, ModelSpec, LoraSpec]] = {}
        self.rated: dict[tuple[int, str], tuple[TrainSpec, TrainSpec]] = {}
        self.problems: list[Problem] = []

    def complain(self, where: str, message: str) -> None:
        """Add a problem at a field of the spec."""
        self.problems.append(Problem(self.spec.name, where, message))

    def change(self, base: TrialSettings, changes: Changes, where: str) -> TrialSettings | None:
        """Settings after changes; None, and a problem, if they do not fit together."""
        by_section: dict[str, Changes] = {}
        for dotted, value in changes.items():
            by_section.setdefault(dotted.partition(".")[0], {})[dotted] = value
        sections: dict[str, Any] = dict(base)
        made: dict[tuple[int, str], str] = {}
        for name, section_changes in by_section.items():
            key = (id(sections.get(name)), repr(section_changes))
            if key in self.changed:
                sections[name] = self.changed[key]
                continue
            made[key] = name
            sections |= self.change_section(name, sections.get(name), section_changes)
        try:
            settings = TrialSettings.model_validate(sections)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                stated = ", ".join(f"{name} {show_value(value)}" for name, value in changes.items())
                reason = str(item["msg"]).removeprefix("Value error, ")
                self.complain(where, f"with {stated}: `{field_name(item['loc'])}`: {reason}")
            return None
        self.changed |= {key: getattr(settings, name) for key, name in made.items()}
        return settings

    def resolve(self, settings: TrialSettings, where: str) -> TrialSettings | None:
        """Settings with the rate of their kind, and the size that a budget leads to; None, and a problem, if not."""
        lora, train, model = settings.lora, settings.train, settings.model
        if not lora.is_trained:
            return settings
        try:
            if isinstance(train.lr, dict):
                key = id(train), lora.kind
                if key not in self.rated:
                    rate = choose_rate(train.lr, lora.kind)
                    self.rated[key] = (train, train.model_copy(update={"lr": rate}))
                settings = settings.model_copy(update={"train": self.rated[key][1]})
            if lora.budget is not None and self.fit_budget is not None:
                place = id(lora), id(model)
                if place not in self.fitted:
                    self.fitted[place] = (lora, model, self.fit_budget(lora, model))
                settings = settings.model_copy(update={"lora": self.fitted[place][2]})
        except ValueError as error:
            self.complain(where, str(error))
            return None
        return settings

    def change_section(self, name: str, section: Section | None, changes: Changes) -> Mapping[str, object]:
        """`{name: plain section}` after changes."""
        sections: dict[str, Any] = {} if section is None else {name: section.model_dump()}
        if isinstance(section, LoraSpec):
            sections[name] = dict(section)  # with the settings of other kinds, which are inherited
        ordered = sorted(changes.items(), key=lambda item: item[0].count("."))
        if isinstance(named := changes.get("dataset"), str):
            sections["dataset"] = self.spec.datasets[named].model_dump()
            ordered = [item for item in ordered if item[0] != "dataset"]
        apply_changes(sections, ordered)
        return sections

    def make(
        self,
        name: str | None,
        stated: TrialSettings | None,
        changes: Changes,
        where: str,
        external: ExternalSpec | None = None,
    ) -> Configuration | None:
        """A configuration of stated settings; without a name, it has that of a combination of the grid."""
        settings = stated if stated is None or external is not None else self.resolve(stated, where)
        if stated is None or settings is None:
            return None
        grid = self.spec.trials.grid
        if name is None and grid is not None:
            name = name_combination(grid, changes, settings)
        elif name is None:
            lora = settings.lora
            name = clean_name(
                f"r{lora.rank}-{show_value(lora.targets)}" if lora.path is None else PurePath(lora.path).name
            )
        identity = self.forms.identify(settings, external)
        return Configuration(name, settings, changes, where, identity, stated, external=external)

    def place(self, configuration: Configuration, cell: dict[str, str] | None) -> Configuration:
        """The configuration with its place in the space of a search; None is outside of it."""
        if cell is None or self.spec.baseline == configuration.name:
            configuration.is_wanted = True
        if cell is not None:
            configuration.cells.append(cell)
        return configuration

    def expand_trials(self) -> Iterator[Configuration]:
        """Variants, then the grid; the defaults alone where neither is given."""
        trials = self.spec.trials
        if not trials.variants and trials.grid is None:
            only = self.make(None, self.base, {}, "trials")
            if only is not None:
                yield self.place(only, {VARIANT_AXIS: only.name})
        for index, variant in enumerate(trials.variants):
            where = f"trials.variants[{index}]"
            stated = self.change(self.base, variant.changes, where)
            made = self.make(variant.name, stated, variant.changes, where, variant.external)
            if made is not None and made.external is not None:
                made.is_wanted = True
                yield made
            elif made is not None:
                yield self.place(made, {VARIANT_AXIS: variant.name} if trials.grid is None else None)
        if trials.grid is None:
            return
        n_found = 0
        for changes, cell in expand_grid(trials.grid):
            n_found += 1
            made = self.make(None, self.change(self.base, changes, "trials.grid"), changes, "trials.grid")
            if made is not None:
                yield self.place(made, cell)
        if not n_found:
            self.complain("trials.grid.exclude", "every combination is excluded; leave at least one")

    def expand_ablations(self, trials: Iterable[Configuration]) -> Iterator[Configuration]:
        """One change each from the baseline: any variant or combination, or a step that one keeps (`NAME@25`)."""
        wanted = self.spec.baseline
        if wanted is None:
            return
        rows = {row.name: row for trial in trials for row in (*self.split_trajectory(trial), trial)}
        baseline = rows.get(wanted)
        if baseline is None:
            near = suggest(wanted, rows)
            known = ", ".join(list(rows)[:12])
            self.complain("baseline", f"`{wanted}` is not a trial{near}; trials are {known}")
            return
        if baseline.external is not None:
            self.complain(
                "baseline",
                f"`{wanted}` is an external system, which has no settings to change; name a trial that is fine-tuned",
            )
            return
        # of a step that a training keeps, ablations keep this step alone
        kept = baseline.stated.train.model_copy(update={"keep": baseline.settings.train.keep})
        base = baseline.stated.model_copy(update={"train": kept}) if "@" in wanted else baseline.stated
        for name, changes in self.spec.ablations.items():
            where = f"ablations.{name}"
            stated = self.change(base, changes, where)
            made = self.make(name, stated, {**baseline.changes, **changes}, where)
            if made is None:
                continue
            (dotted,) = changes
            identity = made.identity
            if (
                identity == baseline.identity
                and not made.settings.lora.is_trained
                and is_training_setting(dotted)
            ):
                message = (
                    f"ablation `{name}` has no effect: `{wanted}` is an adapter that exists already, which "
                    f"`{dotted}` does not train; change another field, or the baseline"
                )
                self.complain(where, message)
            elif identity == baseline.identity:
                value = show_value(find_value(made.settings, changes, dotted))
                self.complain(
                    where, f"ablation `{name}` changes nothing: `{dotted}` of `{wanted}` is already {value}"
                )
            elif drop_effect_free(identity) == drop_effect_free(baseline.identity):
                self.complain(
                    where,
                    f"ablation `{name}` has no effect: `{dotted}` changes neither the adapter nor a clip of "
                    f"`{wanted}`; change another field",
                )
            yield self.place(made, None)

    def settle_selection(self, stated: Iterable[Configuration]) -> None:
        """Fill in the selection side of every dataset: by default, there is one where a search or `tune` decides."""
        decides = self.spec.search.decides or self.spec.tune is not None
        default = DEFAULT_SELECTION_FRAC if decides else None
        settled: dict[int, DatasetSpec] = {}
        for item in stated:
            dataset = item.settings.dataset
            stated_frac = dataset.split.selection_frac
            wanted = default if stated_frac is None else stated_frac or None
            if wanted == stated_frac:
                continue
            if id(dataset) not in settled:  # one object for those that share one, and so one plain form
                split = dataset.split.model_copy(update={"selection_frac": wanted})
                settled[id(dataset)] = dataset.model_copy(update={"split": split})
            item.settings = item.settings.model_copy(update={"dataset": settled[id(dataset)]})
            item.identity = self.forms.identify(item.settings, item.external)

    def split_trajectory(self, item: Configuration) -> list[Configuration]:
        """The configurations of one that keeps several steps of its training."""
        if not item.is_trained:
            return [item]
        search = self.spec.search
        if isinstance(item.settings.train.keep, list) and (search.optuna or search.early_stopping):
            self.complain(
                item.field,
                f"`{KEEP}` of `{item.name}` lists steps, which a search would judge one by one; give one step or "
                "`best`, or remove `search`",
            )
        return split_trajectory(item, self.forms)

    def merge_equal(self, stated: Iterable[Configuration]) -> list[Configuration]:
        """Configurations that differ in more than `EFFECT_FREE`; a name for two of them is a problem."""
        by_key: dict[str, Configuration] = {}
        by_name: dict[str, Configuration] = {}
        texts = SectionTexts(EFFECT_FREE)
        for configuration in stated:
            key = texts.write(configuration.identity)
            first = by_key.setdefault(key, configuration)
            if configuration.name not in (first.name, *first.aliases):
                first.aliases.append(configuration.name)
            if first is not configuration:
                self.take_more_clips(first, configuration)
                first.cells += configuration.cells
                first.is_wanted |= configuration.is_wanted
            namesake = by_name.setdefault(configuration.name, first)
            if namesake is not first:
                self.complain(configuration.field, _describe_collision(namesake, configuration))
            elif configuration.name == ZERO_SHOT:
                message = (
                    f"`{ZERO_SHOT}` names the base model's row, which is always there; choose another name"
                )
                self.complain(configuration.field, message)
        return list(by_key.values())

    def take_more_clips(self, first: Configuration, other: Configuration) -> None:
        """Note in what two equal configurations differ; the first gets the larger number of clips."""
        if first.identity is other.identity:
            return
        differing = [
            name
            for name in find_differences(first.identity, other.identity)
            if name not in first.merged_fields
        ]
        first.merged_fields += differing
        n_clips = other.settings.generation.n_clips
        if n_clips > first.settings.generation.n_clips:
            generation = first.settings.generation.model_copy(update={"n_clips": n_clips})
            first.settings = first.settings.model_copy(update={"generation": generation})
            first.changes = {**first.changes, N_CLIPS: n_clips}
            first.identity = self.forms.identify(first.settings, first.external)


def drop_effect_free(sections: Mapping[str, PlainSection]) -> dict[str, dict[str, JsonValue]]:
    """Plain sections without the fields of `EFFECT_FREE`."""
    return {
        name: {key: value for key, value in section.items() if key not in EFFECT_FREE.get(name, ())}
        for name, section in sections.items()
    }


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
