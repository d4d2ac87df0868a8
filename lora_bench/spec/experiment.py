"""The whole spec: sections, trials, ablations.

What a file may say beyond this (names of datasets, prompts from files, changes written as nested
sections, parents) is resolved by `loading.py` before these models see it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lora_bench.spec.changes import Changes, flatten_mapping
from lora_bench.spec.schema import (
    DatasetSpec,
    DefaultsSpec,
    GenerationSpec,
    LoraSpec,
    ModelSpec,
    Name,
    Prompt,
    RepeatsSpec,
    ReportSpec,
    ResourcesSpec,
    Section,
    TrainSpec,
)
from lora_bench.spec.search import SearchSpec

MAX_GRID = 100_000
DEFAULT_METRICS = ("mfcc20-seed", "mfcc20", "encodec")


class TrialSettings(Section):
    """Everything that a trial may change: the fields of variants, axes and ablations."""

    model: ModelSpec = ModelSpec()
    """Which MusicGen is adapted."""
    dataset: DatasetSpec
    """The genre."""
    generation: GenerationSpec = GenerationSpec()
    """How clips are sampled."""
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

    @model_validator(mode="before")
    @classmethod
    def _gather_changes(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        rest = {key: value for key, value in data.items() if key not in {"name", "changes"}}
        changes = {**(data.get("changes") or {}), **flatten_mapping(rest)}
        return {key: data[key] for key in ("name",) if key in data} | {"changes": changes}


class ZipSpec(Section):
    """Fields whose values follow an axis one by one."""

    axis: str = Field(alias="with")
    """The axis that is followed."""
    values: dict[str, list[Any]]
    """Dotted field to a list as long as the axis."""

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
    """Dotted field to its values."""
    zip: list[ZipSpec] = Field(default_factory=list)
    """Fields that follow an axis, such as alpha with rank; they do not multiply the grid."""
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    """Combinations that are left out; a combination names some axes and one value of each."""

    @field_validator("zip", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @property
    def n_combinations(self) -> int:
        """Size of the product before exclusions."""
        size = 1
        for values in self.axes.values():
            size *= len(values)
        return size


class TrialsSpec(Section):
    """What is compared, beside the zero-shot model, which is always there."""

    variants: list[VariantSpec] = Field(default_factory=list)
    """Named trials."""
    grid: GridSpec | None = None
    """A product of axes."""


class ExperimentSpec(Section):
    """A whole experiment."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this grammar: 1."""
    extends: list[str] = Field(default_factory=list)
    """Files that this one starts from, relative to it: mappings merge, lists and values replace."""
    name: Name
    """Name of the run's folder and of the report; the file's name if it is left out, never a parent's."""
    model: ModelSpec = ModelSpec()
    """Which MusicGen is adapted."""
    datasets: dict[Name, DatasetSpec] = Field(default_factory=dict)
    """Named datasets, for `dataset: <name>` here, in variants and in axes."""
    dataset: DatasetSpec
    """The genre, in place or by its name in `datasets`."""
    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=1000)]
    """What is generated from; an item may be `{file: prompts.txt}` with one prompt per line."""
    prompt_sets: dict[Name, Annotated[list[Prompt], Field(min_length=1)]] = Field(default_factory=dict)
    """Named groups of prompts (in the genre, outside of it); they are generated like `prompts`."""
    generation: GenerationSpec = GenerationSpec()
    """How clips are sampled."""
    metrics: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: list(DEFAULT_METRICS))
    """What is measured; an encoder's name, `fad/<encoder>`, `mmd/<encoder>` or `clap_score`."""
    defaults: DefaultsSpec = DefaultsSpec()
    """What trials start from."""
    baseline: Name | None = None
    """The trial that others are compared with and that ablations change."""
    trials: TrialsSpec = TrialsSpec()
    """What is compared."""
    ablations: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Name to one change from the baseline."""
    repeats: RepeatsSpec = RepeatsSpec()
    """Training seeds."""
    resources: ResourcesSpec = ResourcesSpec()
    """What one trial takes."""
    search: SearchSpec = SearchSpec()
    """What is spent on trials that do not look promising."""
    report: ReportSpec = ReportSpec()
    """What is written about the run."""

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
            raise ValueError(f"{', '.join(f'`{item}`' for item in repeated)} stands twice; keep one of them")
        return value

    @field_validator("ablations")
    @classmethod
    def _flat_ablations(cls, value: dict[str, Changes]) -> dict[str, Changes]:
        return {name: flatten_mapping(changes) for name, changes in value.items()}

    @model_validator(mode="after")
    def _no_choice_among_seeds(self) -> ExperimentSpec:
        if self.search.early_stopping is not None and len(self.repeats.train_seeds) > 1:
            raise ValueError(
                f"search.early_stopping would drop the worse of the {len(self.repeats.train_seeds)} train_seeds, "
                "and the mean over the rest would be too good; give one seed, or run the best configurations "
                "again with several seeds and without early stopping"
            )
        return self

    @model_validator(mode="after")
    def _no_search_among_seeds(self) -> ExperimentSpec:
        if self.search.optuna is not None and len(self.repeats.train_seeds) > 1:
            raise ValueError(
                f"search.optuna would judge a combination by one training, and repeats has "
                f"{len(self.repeats.train_seeds)} train_seeds; give one seed, and run the best combinations again "
                "with several seeds and without the search"
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
