"""The whole spec: sections, trials, ablations.

What a file may say beyond this (names of datasets, prompts from files, changes written as nested
sections, parents) is resolved by `loading.py` before these models see it.
"""

from __future__ import annotations

import operator
import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from lora_bench.metrics.names import (
    BUILT_IN_STATISTICS,
    COMMAND,
    Metric,
    is_described,
    is_metric,
    parse_metric,
)
from lora_bench.spec.changes import Changes, flatten_mapping
from lora_bench.spec.commands import CommandSpec
from lora_bench.spec.external import ExternalSpec, find_foreign_change
from lora_bench.spec.schema import (
    DatasetSpec,
    DefaultsSpec,
    GenerationSpec,
    LoraSpec,
    ModelSpec,
    RepeatsSpec,
    ReportSpec,
    ResourcesSpec,
    TrainSpec,
)
from lora_bench.spec.search import SearchSpec
from lora_bench.spec.section import Name, Prompt, RowName, Section, is_none
from lora_bench.spec.tune import TuneSpec

MAX_GRID = 100_000
DEFAULT_METRICS = ("mfcc20-seed", "mfcc20", "encodec")


class TrialSettings(Section):
    """Everything that a trial may change: the fields of variants, axes and ablations."""

    model: ModelSpec = ModelSpec()
    """The MusicGen model that is fine-tuned."""
    dataset: DatasetSpec
    """The genre."""
    generation: GenerationSpec = GenerationSpec()
    """Sampling of clips."""
    lora: LoraSpec = LoraSpec()
    """The LoRA configuration."""
    train: TrainSpec = TrainSpec()
    """How the adapter is trained."""


class VariantSpec(Section):
    """A named trial: the defaults with changes."""

    name: Name
    """Name of the trial in tables and folders."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Dotted field to value; written as sections (`lora: {rank: 4}`) or as dotted keys (`lora.rank: 4`)."""
    external: Annotated[ExternalSpec | None, Field(exclude_if=is_none)] = None
    """Clips of another system, which nothing is trained for."""

    @model_validator(mode="before")
    @classmethod
    def _gather_changes(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        own = ("name", "external")
        rest = {key: value for key, value in data.items() if key not in {*own, "changes"}}
        changes = {**(data.get("changes") or {}), **flatten_mapping(rest)}
        return {key: data[key] for key in own if key in data} | {"changes": changes}

    @model_validator(mode="after")
    def _has_effect(self) -> VariantSpec:
        reason = find_foreign_change(self.changes) if self.external is not None else None
        if reason is not None:
            raise ValueError(reason)
        return self


class ZipSpec(Section):
    """Fields whose values follow an axis one by one."""

    axis: str = Field(alias="with")
    """The axis that the fields follow."""
    values: dict[str, list[Any]]
    """Values of each field, given by its dotted name, one per value of the axis."""

    @model_validator(mode="before")
    @classmethod
    def _gather_values(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "values" in data:
            return data
        values = {key: value for key, value in data.items() if key != "with"}
        return {key: data[key] for key in ("with",) if key in data} | {"values": values}


class GridSpec(Section):
    """The product of axes."""

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Template of the trials' names, such as `r{lora.rank}-{lora.targets}`; null joins the values."""
    axes: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    """Values of each field, given by its dotted name."""
    zip: list[ZipSpec] = Field(default_factory=list)
    """Fields that follow an axis, such as alpha with rank; they do not multiply the grid."""
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    """Combinations to leave out, each given by some axes and one value of each."""

    @field_validator("zip", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value


class TrialsSpec(Section):
    """The trials that are compared, in addition to the zero-shot model."""

    zero_shot_only: Annotated[bool, Field(exclude_if=operator.not_)] = (
        False  # finished runs from before it are still found
    )
    """Run the base model alone, without any adapter. Variants and axes then say which models, data and sampling."""
    variants: list[VariantSpec] = Field(default_factory=list)
    """Named trials."""
    grid: GridSpec | None = None
    """A product of axes."""


OFF_GENRE_SET = re.compile(r"^(off|out)[-_ ]?(of[-_ ]?)?genre", re.IGNORECASE)


class VerdictSpec(Section):
    """The declared question: a verdict is given on it, everything else is descriptive."""

    metric: str | None = None
    """The primary metric; null is the first of `metrics`."""
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Largest change of the primary metric that counts as none; null is half the real-vs-real level."""
    looks: list[Annotated[int, Field(ge=4)]] = Field(default_factory=list[int], max_length=10)
    """Clips per prompt after which verdicts are looked at early, ascending, such as `[40, 80]` of 150; a configuration
    with a verdict over the genre's own prompts makes no more clips. Error control holds over all looks."""

    @field_validator("looks")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if value != sorted(set(value)):
            raise ValueError(f"looks are {value}; expected ascending numbers of clips, each once")
        return value


class ExperimentSpec(Section):
    """A whole experiment."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of the spec format: 1."""
    extends: list[str] = Field(default_factory=list)
    """Parent specs, relative to this file: mappings are merged, lists and values replace the parent's."""
    name: Name
    """Name of the run's folder and of the report; the default is the name of this file, not of a parent."""
    model: ModelSpec = ModelSpec()
    """The MusicGen model that is fine-tuned."""
    datasets: dict[Name, DatasetSpec] = Field(default_factory=dict)
    """Datasets by name, for `dataset: <name>` in the spec, in variants and in axes."""
    dataset: DatasetSpec
    """The genre: a dataset, or its name in `datasets`."""
    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=1000)]
    """Texts to generate from; an item can be `{file: prompts.txt}`, a file with one prompt per line."""
    prompt_sets: dict[Name, Annotated[list[Prompt], Field(min_length=1)]] = Field(default_factory=dict)
    """Groups of prompts by name, such as in the genre and outside it; generated like `prompts`."""
    generation: GenerationSpec = GenerationSpec()
    """Sampling of clips."""
    verdict: VerdictSpec = VerdictSpec()
    """What verdicts are given on."""
    metrics: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: list(DEFAULT_METRICS))
    """Metrics: an encoder's name, `fad/<encoder>`, `mmd/<encoder>` or a plug-in's `<distance>/<encoder>`, each also
    with `@codec`; or `clap_score`, `melody-agreement` or `tag-adherence`."""
    encoders: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of encoders that are plug-ins, and of commands (`command.NAME`), by the name in `metrics`."""
    distances: Annotated[dict[str, dict[str, Any]], Field(exclude_if=operator.not_)] = Field(
        default_factory=dict
    )
    """Settings of distances that are plug-ins, by the name in `metrics`."""
    defaults: DefaultsSpec = DefaultsSpec()
    """Settings that trials start from."""
    baseline: RowName | None = None
    """The trial that ablations change and others are compared with; `NAME@25` is a step that `train.keep` lists."""
    trials: TrialsSpec = TrialsSpec()
    """The trials that are compared."""
    ablations: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Ablations by name, each one change from the baseline."""
    repeats: RepeatsSpec = RepeatsSpec()
    """Training seeds."""
    resources: ResourcesSpec = ResourcesSpec()
    """Resources of one trial."""
    tune: Annotated[TuneSpec | None, Field(exclude_if=is_none)] = None
    """Values among which each configuration finds its own before the comparison."""
    search: SearchSpec = SearchSpec()
    """Spend less on trials that do not look promising."""
    report: ReportSpec = ReportSpec()
    """The report of the run."""

    @field_validator("extends", mode="before")
    @classmethod
    def _one_or_many_parents(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("prompts", "metrics")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        repeated = (
            sorted({item for item in value if value.count(item) > 1}) if len(set(value)) < len(value) else []
        )
        if repeated:
            raise ValueError(f"{', '.join(f'`{item}`' for item in repeated)} appears twice; keep one of them")
        return value

    @field_validator("ablations")
    @classmethod
    def _flat_ablations(cls, value: dict[str, Changes]) -> dict[str, Changes]:
        return {name: flatten_mapping(changes) for name, changes in value.items()}

    @model_validator(mode="after")
    def _primary_is_measured(self) -> ExperimentSpec:
        if self.primary_metric not in self.metrics:
            known = ", ".join(f"`{name}`" for name in self.metrics)
            raise ValueError(f"verdict.metric is `{self.primary_metric}`; expected one of `metrics`: {known}")
        return self

    @model_validator(mode="after")
    def _encoders_are_used(self) -> ExperimentSpec:
        used = {metric.encoder for metric in self.parse_metrics()}
        named = {metric.distance for metric in self.parse_metrics()}
        for name in sorted(self.distances):
            if name in BUILT_IN_STATISTICS:
                raise ValueError(f"distances.{name} is built in and has no settings; remove it")
            if name in named:
                continue
            raise ValueError(
                f"distances.{name} describes no plug-in that `metrics` names; add `{name}/<encoder>` to `metrics`, or "
                "remove its settings"
            )
        for name in self.encoders:
            if not is_described(name) or name not in used:
                raise ValueError(
                    f"encoders.{name} describes no plug-in or command that `metrics` names; add `{name}` to `metrics`, "
                    "or remove its settings"
                )
        for name in filter(COMMAND.fullmatch, used):
            if name in self.encoders:
                try:
                    CommandSpec.model_validate(self.encoders[name])
                except ValidationError as error:
                    told = (
                        f"{'.'.join(map(str, item['loc']))}: {item['msg'].lower()}" for item in error.errors()
                    )
                    raise ValueError(f"encoders.{name}: {'; '.join(told)}") from None
            else:
                raise ValueError(
                    f"metrics has `{name}`, but nothing says how to call it; add `encoders: {{{name}: {{run: ..., "
                    "dim: ..., sample_rate_hz: ...}}}`"
                )
        return self

    def parse_metrics(self) -> list[Metric]:
        """Return the metrics that this version, with the packages that are installed, knows."""
        return [parse_metric(name, self.distances) for name in self.metrics if is_metric(name)]

    @property
    def primary_metric(self) -> str:
        """The metric that verdicts are given on."""
        return self.verdict.metric or self.metrics[0]

    @property
    def off_genre(self) -> tuple[str, ...]:
        """Prompts of the sets that are named off-genre: what fine-tuning should leave alone."""
        stated = {
            text for name, texts in self.prompt_sets.items() if OFF_GENRE_SET.match(name) for text in texts
        }
        return tuple(prompt for prompt in self.prompts if prompt in stated)

    @model_validator(mode="after")
    def _nothing_next_to_zero_shot_alone(self) -> ExperimentSpec:
        if not self.trials.zero_shot_only:
            return self
        stated = {
            "baseline": self.baseline is not None,
            "ablations": bool(self.ablations),
            "verdict.looks": bool(self.verdict.looks),
            "search": self.search.decides,
            "tune": self.tune is not None,
        }
        found = [f"`{name}`" for name, is_there in stated.items() if is_there]
        if found:
            raise ValueError(
                f"trials.zero_shot_only leaves no adapter to compare, but {' and '.join(found)} would need one; remove "
                "one of the two"
            )
        systems = [f"`{variant.name}`" for variant in self.trials.variants if variant.external is not None]
        if systems:
            raise ValueError(
                f"trials.zero_shot_only leaves other rows out, but {' and '.join(systems)} would be another system's; "
                "remove zero_shot_only: next to other systems alone, zero-shot is a row as well"
            )
        return self

    @model_validator(mode="after")
    def _looks_before_the_end(self) -> ExperimentSpec:
        looks = self.verdict.looks
        if looks and looks[-1] >= self.generation.n_clips:
            raise ValueError(
                f"verdict.looks ends at {looks[-1]} clips, but generation.n_clips is {self.generation.n_clips}; "
                "expected early looks only, the last one is at all clips"
            )
        if looks and (self.search.optuna is not None or self.search.early_stopping is not None):
            raise ValueError(
                "verdict.looks and search both decide what is left out, and error rates hold for looks alone; "
                "remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _no_choice_among_seeds(self) -> ExperimentSpec:
        if self.search.early_stopping is not None and len(self.repeats.train_seeds) > 1:
            raise ValueError(
                f"search.early_stopping would drop the worse of the {len(self.repeats.train_seeds)} train_seeds, "
                "so the mean over the rest would be too good; use one seed, or rerun the best configurations with "
                "several seeds and without early stopping"
            )
        return self

    @model_validator(mode="after")
    def _no_search_among_seeds(self) -> ExperimentSpec:
        if self.search.optuna is not None and len(self.repeats.train_seeds) > 1:
            raise ValueError(
                f"search.optuna judges a combination by one training, but repeats has "
                f"{len(self.repeats.train_seeds)} train_seeds; use one seed, or `tune`, which chooses by one "
                "training per configuration and then trains what was chosen with all seeds"
            )
        return self

    @model_validator(mode="after")
    def _one_choice(self) -> ExperimentSpec:
        if self.tune is not None and self.search.decides:
            raise ValueError(
                "tune and search both decide what is trained to the end; remove one of them (tune tries every value)"
            )
        return self

    def base_settings(self) -> TrialSettings:
        """What trials start from."""
        return TrialSettings(
            model=self.model,
            dataset=self.dataset,
            generation=self.generation,
            lora=self.defaults.lora,
            train=self.defaults.train,
        )
