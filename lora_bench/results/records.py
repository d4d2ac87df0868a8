"""Records of what a run measured: scores, comparisons, guards and text control.

A field that the file does not hold has its default and is left out again when the record is written.
Fields that this version does not know are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, Strict
from pydantic_core import PydanticCustomError

from lora_bench.metrics.verdicts import Verdict

Settings = Mapping[str, JsonValue]
"""A document of the spec or of an encoder, kept as it was written."""

SUPPORT = "recall and coverage"
"""Begins their names in `unscored` of a `GuardRecord`."""


def _refuse_words(value: object) -> object:
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "a whole number")
    return value


Real = Annotated[float, Strict()]
Count = Annotated[int, BeforeValidator(_refuse_words)]
Flag = Annotated[bool, Strict()]


class Record(BaseModel):
    """Base of all records: frozen, and finite numbers only."""

    model_config = ConfigDict(
        frozen=True, extra="allow", allow_inf_nan=False, use_attribute_docstrings=True, validate_by_name=True
    )
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]


class ScoreRecord(Record):
    """The score of one metric on one prompt."""

    metric: str
    prompt: str | None = None
    """None for all prompts together."""
    value: Real
    """The plug-in estimate, as other tools report it."""
    n_generated: Count | None = None
    n_reference: Count | None = None
    dim: Count | None = None
    se: Real | None = None
    """Standard error of `corrected`."""
    ci_low: Real | None = None
    """The 95 % interval of `corrected`; `value` may lie above it."""
    ci_high: Real | None = None
    corrected: Real | None = None
    """The estimate without the bias of a finite sample."""
    note: str | None = None
    """Why there is no interval, or a caveat."""
    provenance: Settings = {}
    """Encoder, weights, window, resampler, estimator and interval method."""

    @property
    def best_value(self) -> float:
        """Return the value without the bias of finite samples if it is known, else the plug-in estimate."""
        return self.value if self.corrected is None else self.corrected


class UnscoredCell(Record):
    """A planned cell without a score."""

    metric: str
    prompt: str | None = None
    reason: str = "no reason was written"
    cause: Literal["stated", "missing"] = "missing"
    """`stated`: a stage gave the reason; `missing`: the work that would have scored it is not done."""


class _FloorName(Record):
    """The first field of a reference level; pydantic puts fields of later bases first."""

    floor: str
    """`real-vs-real`: training tracks against the references; `codec`: the references, encoded and decoded."""


class Floor(ScoreRecord, _FloorName):
    """A reference level: the score of real music under the same metric."""

    source: str | None = None
    """Label of the data; only where a run has several."""


class UnscoredFloor(Record):
    """A metric without reference levels."""

    metric: str
    prompt: str | None = None
    reason: str | None = None
    source: str | None = None


class MissingContrast(Record):
    """A difference that could not be computed, and why."""

    metric: str
    prompt: str | None = None
    """None for the genre's own prompts together."""
    configuration: str
    against: str = "zero-shot"
    reason: str


class SeedDifference(Record):
    """The difference of one training seed."""

    trial: str
    """Id of the trial."""
    train_seed: Count | None = None
    delta: Real


class ErrorParts(Record):
    """Variances that add up to the squared standard error of a difference."""

    clips: Real | None = None
    """Between clips; falls with their number."""
    tracks: Real | None = None
    """Between reference tracks; falls with their number."""
    seeds: Real | None = None
    """Between trainings; None for a single one, which speaks of this adapter alone."""


class Contrast(Record):
    """A configuration against zero-shot or the baseline: the one inference on this difference.

    It speaks about new clips on this prompt against new tracks of the genre; over several training seeds, about new
    trainings, too.
    """

    metric: str
    prompt: str | None = None
    """None for the genre's own prompts together."""
    configuration: str
    against: str = "zero-shot"
    """Name of the other configuration."""
    kind: Literal["zero-shot", "baseline", "trial"] = "zero-shot"
    """What the other is to it."""
    primary: Flag = False
    """Whether it is of the declared family that verdicts are given on; others are descriptive."""
    delta: Real
    """Mean over training seeds of the difference, corrected for the bias of finite samples; of a distance, negative is
    better."""
    delta_plugin: Real | None = None
    """Difference of the plug-in values, as tables show them."""
    se: Real | None = None
    df: Real | None = None
    """Degrees of freedom of `se`; None if `se` is 0."""
    ci_low: Real | None = None
    """The 95 % interval of `delta`: simultaneous over the family if primary, else of this difference alone; None, with
    `se`, if there are too few clips or tracks for one."""
    ci_high: Real | None = None
    p_value: Real | None = None
    """Two-sided, agrees with the interval: adjusted for the family if primary."""
    verdict: Verdict | None = None
    """None if descriptive, or without an interval."""
    margin: Real | None = None
    """Largest difference that counts as none."""
    detectable: Real | None = None
    """The true difference that this design finds with a probability of 80 %."""
    variance: ErrorParts = ErrorParts()
    n_pairs: Count | None = None
    """Clips per trial that both sides made with the same noise; None if the clips are no pairs."""
    paired: Flag = True
    """Whether clips of one index share their noise; never with another system's."""
    n_clips: tuple[Count, Count] | None = None
    """Clips per trial of either side, where they are no pairs."""
    n_tracks: Count | None = None
    """Reference tracks (for one track, its clips)."""
    seeds: tuple[SeedDifference, ...] = ()
    note: str | None = None
    provenance: Settings = {}

    @property
    def n_seeds(self) -> int:
        """Number of training seeds."""
        return len(self.seeds)


class GuardRecord(Record):
    """Sanity measures of one set of clips; a measure that is unavailable is absent, and `unscored` says why."""

    trial: str | None = None
    """None for the held-out recordings, which are measured in the same way."""
    clips_of: str | None = Field(None, alias="set")
    prompt: str | None = None
    n_clips: Count | None = None
    diversity: Mapping[str, Real] = {}
    """By encoder: spread of a prompt's clips over that of the held-out tracks."""
    silent_clips_frac: Real | None = None
    silent_seconds_frac: Real | None = None
    repetition: Real | None = None
    copy_similarity: Real | None = None
    copy_similarity_max: Real | None = None
    closer_than_held_out_frac: Real | None = None
    nearest_copy: str | None = None
    """The clip that most resembles the training set, and the passage that it resembles."""
    code_match: Real | None = None
    code_match_max: Real | None = None
    partial_code_copies_frac: Real | None = None
    unscored: Mapping[str, str] = {}
    provenance: Settings = {}
    adherence: Real | None = None
    """Mean cosine of clips and prompts in CLAP's space."""
    adherence_se: Real | None = None
    recall: Mapping[str, Real] = {}
    """By encoder: share of held-out clips closer to a clip than its fifth nearest other clip.  For all prompts: of the
    clips of the genre's prompts as one set; for the held-out recordings: between halves of their tracks."""
    coverage: Mapping[str, Real] = {}
    """By encoder: share of held-out clips that have a clip closer than their own fifth nearest held-out clip."""


class ControlRecord(Record):
    """Effect of fine-tuning on how clips follow their prompts, by encoder and prompt."""

    trial: str
    against: str = "zero-shot"
    encoder: str
    prompt: str | None = None
    off_genre: Flag | None = None
    """None for all prompts together."""
    provenance: Settings = {}
    n_pairs: Count | None = None
    n_reference: Count | None = None
    dim: Count | None = None
    separation_base: Real | None = None
    separation: Real | None = None
    """Distance of a prompt's clips from those of other prompts, over the variance within prompts."""
    separation_change: Real | None = None
    separation_change_se: Real | None = None
    separation_change_ci_low: Real | None = None
    separation_change_ci_high: Real | None = None
    told_apart_base_frac: Real | None = None
    told_apart_frac: Real | None = None
    """Prompt accuracy: share of clips nearest to the mean of their own prompt."""
    note: str | None = None
    pull: Real | None = None
    """Shift toward the genre: share of the way from zero-shot to the recordings."""
    pull_se: Real | None = None
    pull_ci_low: Real | None = None
    pull_ci_high: Real | None = None
    retention: Real | None = None
    """1 less the length of the move as a share of the way to the genre; over all prompts: of the off-genre ones."""
    retention_ci_low: Real | None = None
    retention_ci_high: Real | None = None
    off_genre_less_in_genre_pull: Real | None = None
    off_genre_less_in_genre_pull_se: Real | None = None
    off_genre_less_in_genre_pull_ci_low: Real | None = None
    off_genre_less_in_genre_pull_ci_high: Real | None = None
