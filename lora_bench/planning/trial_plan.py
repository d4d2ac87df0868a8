"""Records of a plan: its trials, fully resolved, and `plan.json`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from lora_bench.errors import Problem, SpecError
from lora_bench.slugs import slugify
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.spec.external import ExternalSpec
from lora_bench.spec.schema import DatasetSpec, GenerationSpec, LoraSpec, ModelSpec, TrainSpec
from lora_bench.spec.search import EarlyStoppingSpec
from lora_bench.spec.section import Section, is_none
from lora_bench.store import hash_json, read_json


class SearchPlace(Section):
    """Where a trial stands in the space that a search chooses from."""

    cells: tuple[dict[str, str], ...]
    """Values by axis; several where combinations are equal."""
    is_wanted: bool = False
    """Whether it is the baseline, or named elsewhere in the spec: then it is tried before others."""


class TuningPlace(Section):
    """The attempt of a configuration that a trial is: it is trained, and sees no track that scores."""

    configuration: str
    """The configuration that looks for its values."""
    values: dict[str, Any]
    """Those of this attempt, by dotted field."""
    metric: Annotated[str | None, Field(exclude_if=is_none)] = None
    """What its clips are judged by; None for an attempt without clips, which is judged by its held-out loss."""


class TrialPlan(Section):
    """One trial, fully resolved: everything that running it takes."""

    id: str
    """`<slug>-<hash8>`: the folder's name."""
    name: str
    """As tables show it; ends in `-s<seed>` where there are several training seeds."""
    configuration: str
    """Name without the seed: what repeats have in common."""
    kind: Literal["zero-shot", "fine-tuned", "external"]
    """Whether there is an adapter, or the clips are those of another system."""
    model: ModelSpec
    """The model; of an external trial, the one whose format and codec its clips are compared in."""
    dataset: DatasetSpec
    """The dataset."""
    lora: LoraSpec | None
    """LoRA settings with alpha and size filled in; None for zero-shot."""
    budget: Annotated[int | None, Field(exclude_if=is_none)] = None
    """Trainable parameters that the size was chosen for; None where the spec gives the size, or the kind has none."""
    train: TrainSpec | None
    """Training settings; None for zero-shot and for an adapter that exists already."""
    train_seed: int | None
    """Training seed; None where nothing is trained."""
    generation: GenerationSpec
    """Sampling."""
    prompts: tuple[str, ...]
    """What is generated from."""
    metrics: tuple[str, ...]
    """What is measured."""
    encoders: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of plug-ins and commands that measure."""
    distances: Annotated[dict[str, dict[str, Any]], Field(exclude_if=operator.not_)] = Field(
        default_factory=dict
    )
    """Settings of distances that are plug-ins."""
    off_genre: tuple[str, ...] = ()
    """Prompts that are not meant to be of the genre; they enter no pooled score."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Dotted fields in which the trial differs from the defaults, as stated."""
    aliases: tuple[str, ...] = ()
    """Names of equal configurations that were merged into this one."""
    zero_shot: str | None = None
    """Id of the base model's trial that this one is compared with; None for a zero-shot trial."""
    baseline_trial: str | None = None
    """Id of the baseline's trial that this one is compared with; None where there is none, or clips are no pairs."""
    early_stopping: EarlyStoppingSpec | None = None
    """When training is given up; never for zero-shot and the baseline."""
    search: SearchPlace | None = None
    """What a search chooses it by; None if it runs in any case."""
    training: Annotated[str | None, Field(exclude_if=is_none)] = None
    """Id of the first of the trials that share its training; None if it trains alone and to its end."""
    kept: Annotated[tuple[int | Literal["best"], ...], Field(exclude_if=operator.not_)] = ()
    """Steps whose adapters that training keeps, for all trials that share it."""
    tuning: Annotated[TuningPlace | None, Field(exclude_if=is_none)] = None
    """The attempt that it is, of `tune`; None for a trial that is scored."""
    n_clips_so_far: int | None = None
    """Clips per prompt that verdicts have needed so far, where the spec looks at them early; None for all."""
    external: Annotated[ExternalSpec | None, Field(exclude_if=is_none)] = None
    """Another system whose clips these are; None for those of the model."""

    @property
    def sampling(self) -> GenerationSpec:
        """Sampling of the clips that are wanted now."""
        if self.n_clips_so_far is None:
            return self.generation
        return self.generation.model_copy(update={"n_clips": self.n_clips_so_far})

    @property
    def existing_adapter(self) -> str | None:
        """Folder or hub id of an adapter that is not trained here; None for zero-shot and for trained ones."""
        return None if self.lora is None else self.lora.path

    @property
    def own_prompts(self) -> tuple[str, ...]:
        """The genre's own prompts; all of them if none is."""
        return tuple(prompt for prompt in self.prompts if prompt not in self.off_genre) or self.prompts

    @property
    def hash8(self) -> str:
        """The identity without the name."""
        return self.id.rpartition("-")[2]


class ExperimentPlan(Section):
    """All trials of an experiment."""

    name: str
    """Name of the run."""
    spec: ExperimentSpec
    """The whole spec, resolved."""
    trials: tuple[TrialPlan, ...]
    """In the order of the report."""
    baseline: str | None = None
    """Configuration that the others are compared with; None if the spec names none."""
    source: str | None = None
    """The spec's file."""
    overrides: tuple[str, ...] = ()
    """`-o` values, as written."""
    notes: tuple[str, ...] = ()
    """What planning decided and the spec does not say: trials that were merged, a spec that is a shipped one."""
    override_effects: tuple[str, ...] = ()
    """Lines that say what the overrides change, by trial."""

    n_later: Annotated[int, Field(exclude_if=operator.not_)] = 0
    """Trials that follow when what was tuned is chosen; 0 where the plan holds all trials."""

    @property
    def is_tuning(self) -> bool:
        """Whether these are the attempts of `tune`, before the comparison."""
        return bool(self.n_later)

    @property
    def report_name(self) -> str:
        """Name of the report's folder."""
        return name_report(self.name, self.overrides)

    @property
    def n_to_run(self) -> int:
        """Trials that a run does in all: a search leaves some out."""
        optuna = self.spec.search.optuna
        n_candidates = sum(trial.search is not None for trial in self.trials)
        n_chosen = optuna.n_trials if optuna is not None else 0
        return len(self.trials) + self.n_later - n_candidates + n_chosen


def name_report(name: str, overrides: Sequence[str]) -> str:
    """Return the folder of a run's report: the run's name, and what `-o` changes, so that no report replaces another.

    `-o name=...` names the run itself and counts no more.
    """
    pairs = [(key.strip(), value.strip()) for key, _, value in (text.partition("=") for text in overrides)]
    stated = sorted(f"{key}={value}" for key, value in pairs if key != "name")
    if not stated:
        return name
    return f"{name}-{slugify(' '.join(stated), max_length=40)}-{hash_json(stated, length=6)}"


def read_plan(path: Path) -> ExperimentPlan:
    """Read a plan back.

    Raises:
        StoreError: the file is missing or damaged.
        SpecError: the plan was written by another version.
    """
    read_json(path)  # its errors name the file
    try:
        return ExperimentPlan.model_validate_json(path.read_bytes())
    except ValidationError as error:
        n = error.error_count()
        message = (
            f"not a plan that this version of lora_bench reads ({n} differences); run the experiment again"
        )
        raise SpecError([Problem(str(path), "", message)]) from error
