"""Records of the files that stages write into a run's folder, which `results.json` is gathered from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from lora_bench.artifacts import AudioFormat
from lora_bench.metrics.names import is_higher_better
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
    UnscoredFloor,
)
from lora_bench.results.run_records import ExcludedFile, ModelSummary, RepeatedChoice, RunName, TrialKind


class PlannedTrial(Record):
    """A trial in `plan.json`; fields are optional because earlier versions did not write all of them."""

    id: str
    name: str | None = None
    configuration: str | None = None
    kind: TrialKind = "fine-tuned"
    model: Settings | None = None
    dataset: Settings | None = None
    lora: Settings | None = None
    budget: Count | None = None
    train: Settings | None = None
    train_seed: Count | None = None
    generation: Settings | None = None
    prompts: tuple[str, ...] | None = None
    metrics: tuple[str, ...] | None = None
    off_genre: tuple[str, ...] = ()
    changes: Settings = Field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    zero_shot: str | None = None
    training: str | None = None
    """First of the trials that share its training; None if it trains alone."""
    external: Settings | None = None
    tuning: Settings | None = None
    """The attempt of `tune` that it is; None if it is scored."""
    search: Settings | None = None
    """Its place in the space of a search; None if it runs in any case."""


class RunPlan(Record):
    """`plan.json`."""

    name: RunName | None = None
    spec: Settings | None = None
    trials: tuple[PlannedTrial, ...]
    source: str | None = None
    overrides: tuple[str, ...] = ()
    n_later: Count = 0
    """Trials that follow when what is tuned is chosen."""


class StateFile(Record):
    """`state.json` of a trial."""

    state: str | None = None
    stage: str | None = None
    reason: str | None = None
    wall_s: Mapping[str, Real] | None = None
    peak_memory_gib: Real | None = None
    model: ModelSummary | None = None


class CurvePoint(Record):
    """One point of a training curve."""

    step: Count
    train_loss: Real | None = None
    eval_loss: Real | None = None
    lr: Real | None = None


class TrainFile(Record):
    """`train.json` of a trial."""

    trainable_params: Count | None = None
    matched_modules: Mapping[str, Count] = {}
    curve: tuple[CurvePoint, ...] = ()
    wall_s: Real | None = None
    peak_memory_gib: Real | None = None
    step: Count | None = None
    """At which the adapter was kept; None for the last one."""
    gradient_checkpointing: bool | None = None
    """Whether it was on; None if an earlier version trained it."""

    @property
    def eval_loss(self) -> float | None:
        """Return the held-out loss of the adapter; None if it was not measured."""
        last = self.curve[-1].step if self.curve and self.step is None else self.step
        return next((point.eval_loss for point in self.curve if point.step == last), None)


class ExistingAdapterFile(Record):
    """`existing_adapter.json` of a trial: what the files of its adapter say."""

    key: str
    """Hash of its weights and config."""
    kind: str
    rank: Count | None = None
    """None for kinds without one."""
    alpha: Real | None = None
    targets: str
    """The adapted modules as a target, or the ends of their names."""
    n_params: Count
    matched_modules: Mapping[str, Count] = {}


class WrittenGap(Record):
    """A cell that a stage left unscored."""

    metric: str
    prompt: str | None = None
    reason: str | None = None


class UnusableScore(Record):
    """A score that is no number, or whose record is damaged."""

    metric: str
    prompt: str | None = None
    value: Any = None


class ScoresSheet(Record):
    """Scores against the references of one side."""

    scores: tuple[Annotated[ScoreRecord | UnusableScore, Field(union_mode="left_to_right")], ...] = ()
    unscored: tuple[WrittenGap, ...] = ()

    @property
    def usable(self) -> list[ScoreRecord]:
        """Scores that are numbers."""
        return [score for score in self.scores if isinstance(score, ScoreRecord)]


class ScoresFile(ScoresSheet):
    """`scores.json` of a trial."""

    selection: ScoresSheet | None = None
    """The same clips against the selection side; None where the dataset has no such side."""

    def of_choice(self, metric: str) -> list[ScoreRecord]:
        """Return the scores of a metric that a choice may see: with a selection side, no others than its own.

        A text score or a rating has no references, and so no sides.
        """
        sheet = self if self.selection is None or is_higher_better(metric) else self.selection
        return [score for score in sheet.usable if score.metric == metric]


class TrialGuardsFile(Record):
    """`guards.json` of a trial."""

    guards: tuple[GuardRecord, ...] = ()


class GuardsFile(Record):
    """`guards.json` of a run: the guards of all trials, and text control."""

    key: str | None = None
    guards: tuple[GuardRecord, ...] = ()
    control: tuple[ControlRecord, ...] = ()


class Decisions(Record):
    """What looks before the last clips have decided."""

    key: str
    """Hash of the question: trials, prompts, metrics, and the verdict's settings."""
    n_clips: Count = 0
    """Clips per prompt at the last look; 0 before the first."""
    configurations: Mapping[str, Count] = {}
    """Clips per prompt at the look that decided, by configuration."""

    def before(self, n_clips: int) -> Decisions:
        """Return what was decided with fewer clips."""
        kept = {name: n for name, n in self.configurations.items() if n < n_clips}
        return self.model_copy(update={"configurations": kept})


class ContrastsFile(Record):
    """`contrasts.json` of a run."""

    key: str | None = None
    contrasts: tuple[Contrast, ...] = ()
    missing: tuple[MissingContrast, ...] = ()
    decisions: Decisions | None = None
    """None where the spec asks for no looks before the last clips."""


class ChoiceFile(Record):
    """`choice.json` of a run."""

    key: str | None = None
    choice: RepeatedChoice | None = None


class CalibrationFile(Record):
    """`calibration.json` of a run: how often intervals and verdicts of its design are right on its own features."""

    key: str | None = None
    """That of the contrasts it was measured for."""
    metric: str
    n_draws: Count
    """Simulated reports."""
    seed: Count = 0
    n_clips: Count
    """Clips per prompt."""
    n_tracks: Count | None = None
    n_differences: Count
    """Differences of the primary family."""
    covered: Real | None = None
    """Share of single 95 % intervals that hold the true difference; None if none is given."""
    jointly_covered: Real | None = None
    """Share of reports whose simultaneous intervals all hold it."""
    false_verdicts: Real
    """Share of reports with any verdict of better or worse although all clips are zero-shot's."""
    refused: Real = 0.0
    """Share of differences without an interval."""


class WrittenFloor(Record):
    """A reference level as it is written: its name and its score."""

    floor: str
    score: ScoreRecord

    def flatten(self, source: str | None) -> Floor:
        """Return the reference level with the fields of its score next to its name."""
        named = {} if source is None else {"source": source}
        score = self.score.model_dump(exclude_unset=True)
        return Floor.model_validate({"floor": self.floor, **score, **named})


class FloorsFile(Record):
    """`floors.json` of a source."""

    floors: tuple[WrittenFloor, ...] = ()
    unscored: tuple[UnscoredFloor, ...] = ()


class PreparationEntry(Record):
    """What `dataset.prepare` did to a track; None for what it was not asked for."""

    clipped_samples: Count = 0
    dc_offset: Real | None = None
    lead_s: Real | None = None
    tail_s: Real | None = None
    gain_db: Real | None = None
    loudness_lufs: Real | None = None
    is_limited: Flag = False


class TrackEntry(Record):
    """A track of a prepared dataset."""

    id: str | None = None
    source: str | None = None
    audio: str | None = None
    split: str | None = None
    duration_s: Real | None = None
    caption: str | None = None
    caption_origins: Mapping[str, str] = Field(default_factory=dict[str, str])
    """Where the caption's fields come from, by field; empty in runs from before they were recorded."""
    preparation: PreparationEntry | None = None
    variants: tuple[str, ...] | None = None
    """Captions that training chose from; None if there was one."""


class SliceEntry(Record):
    """A training-length slice of a track."""

    split: str | None = None


class NearDuplicateEntry(Record):
    """Two recordings of the same music."""

    first: str
    second: str
    correlation: Real


class ManifestEntry(Record):
    """The prepared dataset of a source."""

    name: str | None = None
    key: str | None = None
    clip_s: Real | None = None
    format: AudioFormat | None = None
    resampler: str | None = None
    tracks: tuple[TrackEntry, ...] = ()
    slices: tuple[SliceEntry, ...] = ()
    excluded: tuple[ExcludedFile, ...] = ()
    near_duplicates: tuple[NearDuplicateEntry, ...] | None = None
    """None if they were not searched for."""


class DatasetFile(Record):
    """`dataset.json` of a source."""

    manifest: ManifestEntry
    n_reference_clips: Count | None = None
    model: ModelSummary | None = None
    source: str | None = None
    """The dataset on the hub with its commit; None for other sources."""

    @model_validator(mode="before")
    @classmethod
    def _wrap_manifest(cls, given: Any) -> Any:
        """Accept a file that is the manifest itself."""
        return (
            given if not isinstance(given, Mapping) or "manifest" in given else {**given, "manifest": given}
        )


class TrialSettings(Record):
    """`trial.json`: what a trial was run with."""

    id: str
    prompts: tuple[str, ...] = ()
    off_genre: tuple[str, ...] = ()
    train_seed: Count | None = None
    generation: Settings = Field(default_factory=dict)
    external: Settings | None = None
    distances: dict[str, Settings] = Field(default_factory=dict)


class ReferencePointer(Record):
    """`reference.json` of a trial's embeddings: the file of the references that it was scored against."""

    file: str
