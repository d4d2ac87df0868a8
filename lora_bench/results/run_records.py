"""Records of a run: its trials, data, model and machine; `RunResults` is the content of `results.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from lora_bench.artifacts import AudioFormat
from lora_bench.results.external import ExternalRecord
from lora_bench.results.records import (
    Contrast,
    ControlRecord,
    Count,
    Flag,
    Floor,
    GuardRecord,
    MissingContrast,
    Real,
    Record,
    ScoreRecord,
    Settings,
    UnscoredCell,
    UnscoredFloor,
)

RESULTS_SCHEMA = 2
TrialState = Literal["done", "stopped", "failed", "running", "interrupted", "unstarted", "missing", "untried"]
"""`stopped`: early, as the spec asks; `untried`: a search left it out; `missing`: its state is unknown, or an earlier
version wrote so of one that was not started or was interrupted."""
TrialKind = Literal["zero-shot", "fine-tuned", "external"]


def _check_name(name: str) -> str:
    """Refuse what cannot be the name of a folder."""
    if name in {"", ".", ".."} or set(name) & set("/\\\0"):
        raise PydanticCustomError("run_name", "not a name")
    return name


RunName = Annotated[str, AfterValidator(_check_name)]


class Losses(Record):
    """Losses of a training in nats per code; those that were not measured are absent."""

    first_train: Real | None = None
    last_train: Real | None = None
    first_eval: Real | None = None
    last_eval: Real | None = None
    best_eval: Real | None = None
    best_eval_step: Count | None = None
    steps: Count | None = None


class TrialResult(Record):
    """One trial: its settings, its state, and every planned cell with its score or the reason why it has none."""

    id: str
    name: str
    configuration: str
    """Name without the training seed."""
    changes: Settings = Field(default_factory=dict)
    """Dotted fields that differ from the spec's defaults."""
    aliases: tuple[str, ...] = ()
    """Names of equal configurations that were merged into this one."""
    kind: TrialKind = "fine-tuned"
    train_seed: Count | None = None
    state: TrialState = "done"
    reason: str | None = None
    """Why it is not done."""
    stage: str | None = None
    lora: Settings | None = None
    """None for zero-shot."""
    budget: Count | None = None
    """Trainable parameters that the size was chosen for; absent where the spec gives the size."""
    train: Settings | None = None
    trainable_params: Count | None = None
    n_params: Count | None = None
    """Parameters of an adapter that exists already, none of which are trained; None for others."""
    matched_modules: Mapping[str, Count] = {}
    """Adapted modules by target group."""
    adapter: str | None = None
    """Folder of the adapter, relative to the run's."""
    step: Count | None = None
    """Of the training, at which the adapter was kept; absent where it is the last one."""
    losses: Losses = Losses()
    wall_s: Mapping[str, Real] = {}
    """Seconds by stage, over all attempts."""
    peak_memory_gib: Real | None = None
    scores: tuple[ScoreRecord, ...] = ()
    unscored: tuple[UnscoredCell, ...] = ()
    selection: tuple[ScoreRecord, ...] = ()
    """Scores of the same clips against the selection side, for choices alone; empty where there is no such side."""
    zero_shot: str | None = None
    """Id of the base model's trial that this one is compared with."""
    external: ExternalRecord | None = None
    """Another system whose clips these are; None for those of the model."""

    @model_validator(mode="before")
    @classmethod
    def _complete_names(cls, given: Any) -> Any:
        """Let `id`, `name` and `configuration` stand for one another where some are absent."""
        if not isinstance(given, Mapping):
            return given
        name = given.get("name") or given.get("id")
        if not name:
            raise PydanticCustomError("trial_name", "no name")
        return {"id": name, "name": name, "configuration": given.get("name") or name, **given}

    @property
    def is_zero_shot(self) -> bool:
        """Return whether this is the base model."""
        return self.kind == "zero-shot"

    @property
    def existing_adapter(self) -> str | None:
        """Return the folder or hub id of an adapter that was not trained here; None for others."""
        path = (self.lora or {}).get("path")
        return path if isinstance(path, str) else None

    @property
    def adapter_params(self) -> int | None:
        """Return the parameters of the adapter, whether they were trained here or not; None if that is not known."""
        return self.trainable_params if self.n_params is None else self.n_params

    @property
    def is_fine_tuned(self) -> bool:
        """Return whether there is an adapter."""
        return self.kind == "fine-tuned"

    @property
    def total_s(self) -> float | None:
        """Return the seconds of all stages; None if none were recorded."""
        return math.fsum(self.wall_s.values()) if self.wall_s else None


class SplitSummary(Record):
    """One side of a dataset."""

    n_tracks: Count
    duration_s: Real
    n_slices: Count | None = None


class ExcludedFile(Record):
    """A file of the dataset that was not used."""

    source: str
    reason: str


class DatasetSummary(Record):
    """Counts and lengths of a dataset; without a field where the run describes none."""

    name: str | None = None
    key: str | None = None
    """Hash of the content."""
    source: str | None = None
    """A dataset on the hub with its commit, `hf:owner/name@commit`; None for other sources."""
    clip_s: Real | None = None
    format: AudioFormat | None = None
    resampler: str | None = None
    train: SplitSummary | None = None
    selection: SplitSummary | None = None
    """What training and searches decided by; None where the dataset has no such side."""
    eval: SplitSummary | None = None
    n_tracks: Count | None = None
    n_reference_clips: Count | None = None
    excluded: tuple[ExcludedFile, ...] = ()


class SourceSummary(Record):
    """Model, data, and length and number of clips that some trials share."""

    key: str | None = None
    label: str
    folder: str = "."
    """Its files, relative to the run's folder."""
    trial_ids: tuple[str, ...] = ()
    dataset: DatasetSummary = DatasetSummary()


class ModelSummary(Record):
    """The base model as it was loaded."""

    name: str | None = None
    weights_hash: str | None = None
    audio_format: AudioFormat | None = None
    hop_samples: Count | None = None
    n_codebooks: Count | None = None
    codebook_size: Count | None = None
    delays: tuple[Count, ...] | None = None
    max_frames: Count | None = None
    trained: Flag | None = None
    """False for random weights, whose scores say nothing about music."""
    codec_hash: str | None = None


class Environment(Record):
    """The machine and the packages."""

    python: str | None = None
    system: str | None = None
    cpu: str | None = None
    instruction_set: str | None = None
    """The processor's instructions for vectors that torch uses, such as AVX512; trained results depend on them."""
    n_cpu: Count | None = None
    memory_gib: Real | None = None
    gpus: tuple[str, ...] | None = None
    packages: Mapping[str, str | None] = {}


class Planned(Record):
    """Contents of the plan."""

    trials: Count | None = None
    metrics: tuple[str, ...] = ()
    primary_metric: str | None = None
    """The metric that verdicts are given on."""
    prompts: tuple[str, ...] = ()
    off_genre: tuple[str, ...] = ()
    """Prompts that are not meant to be of the genre; they enter no verdict."""
    cells: Count | None = None


class SearchSummary(Record):
    """Progress of a search."""

    n_trials: Count
    """Trials that the spec asks for."""
    n_candidates: Count
    n_tried: Count
    objective: str
    side: Literal["selection", "test"] = "test"
    """Tracks that the objective refers to: those to select by, or those that score."""
    seed: Count | None = None


class TuningAttempt(Record):
    """One combination of values that a configuration was trained with."""

    trial: str
    """Id of its folder."""
    values: Settings
    """By dotted field."""
    state: TrialState
    loss: Real | None = None
    """Held-out loss on the selection tracks at the end of training; None where clips are judged."""
    score: Real | None = None
    """Mean of the metric over the genre's own prompts, against the selection tracks; None where the loss is judged."""
    reason: str | None = None
    """Why there is none."""

    @property
    def value(self) -> float | None:
        """What the attempt is judged by; None if it is missing."""
        return self.loss if self.score is None else self.score


class TunedConfiguration(Record):
    """The attempts of one configuration, and the values that were chosen."""

    configuration: str
    attempts: tuple[TuningAttempt, ...]
    chosen: Settings | None = None
    """The best values; None while they are not settled, or if every attempt failed."""
    inputs: str | None = None
    """Key of the plans and the data of the attempts."""


class Tuning(Record):
    """What `tune` tried and chose, before any score."""

    train_seed: Count
    """Of the attempts."""
    configurations: tuple[TunedConfiguration, ...]
    metric: str | None = None
    """What clips were judged by; None where the held-out loss was."""


class ChoiceShare(Record):
    """How often a configuration was chosen, and its scores on the tracks that did not choose it."""

    configuration: str
    n_chosen: Count
    sealed: Real
    """Mean."""
    sealed_sd: Real | None = None
    """Standard deviation; None if it was chosen once."""


class RepeatedChoice(Record):
    """The choice of the best configuration on random halves of the held-out tracks, each scored on the other half."""

    metric: str
    n_repeats: Count
    n_tracks: Count
    seed: Count
    seen: Real
    """Mean score of the chosen one on the half that chose it: plug-in distances to half of the tracks."""
    sealed: Real
    """The same on the other half."""
    sealed_sd: Real
    """Standard deviation over repeats."""
    zero_shot: Real | None = None
    """Mean score of the base model on the other half."""
    configurations: tuple[ChoiceShare, ...]
    """Those that were chosen, the most frequent first."""


class RunResults(Record):
    """All results of a run."""

    schema_version: Count = Field(RESULTS_SCHEMA, alias="schema")
    name: RunName = ""
    """The run's name; that of the folder where the file has none."""
    complete: Flag = False
    planned: Planned = Planned()
    trials: tuple[TrialResult, ...]
    search: SearchSummary | None = None
    floors: tuple[Floor, ...] = ()
    """Reference levels: scores of real music."""
    unscored_floors: tuple[UnscoredFloor, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    """Configurations against zero-shot, and against the baseline that the spec names."""
    missing_contrasts: tuple[MissingContrast, ...] = ()
    """Differences that could not be computed."""
    decided: Mapping[str, Count] | None = None
    """Clips per prompt after which a configuration had its verdict and made no more; None where the spec asks for no
    looks before the last clips."""
    repeated_choice: RepeatedChoice | None = None
    """None where tracks were set aside to select by, or there is nothing to choose from."""
    tuning: Tuning | None = None
    """None where nothing was tuned."""
    guards: tuple[GuardRecord, ...] = ()
    control: tuple[ControlRecord, ...] = ()
    dataset: DatasetSummary = DatasetSummary()
    """Dataset of the first source."""
    sources: tuple[SourceSummary, ...] = ()
    model: ModelSummary = ModelSummary()
    environment: Environment = Environment()
    spec: Settings = Field(default_factory=dict)
    """The spec as it was resolved."""
    source: str | None = None
    """The spec's file."""
    overrides: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """Files of the run that could not be read."""
