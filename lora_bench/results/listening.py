"""Records of `listening.json`: what raters preferred, and how metrics agree with them."""

from __future__ import annotations

from pydantic import Field

from lora_bench.results.records import Count, Real, Record, Settings

LISTENING_SCHEMA = 1


class PreferenceRecord(Record):
    """People's preference for a configuration over zero-shot on one question."""

    question: str
    configuration: str
    against: str = "zero-shot"
    """Name of the zero-shot configuration."""
    strength: Real | None = None
    """Bradley-Terry: the logarithm of the odds of being preferred to zero-shot; 0 is no preference."""
    se: Real | None = None
    df: Real | None = None
    """Degrees of freedom of `se`: raters less one."""
    ci_low: Real | None = None
    """The 95 % interval of `strength`, over raters; None for a single rater."""
    ci_high: Real | None = None
    share: Real | None = None
    """How often it is preferred to zero-shot, by `strength`; an answer of no difference is half a preference."""
    share_ci_low: Real | None = None
    share_ci_high: Real | None = None
    n_raters: Count = 0
    """Raters who heard the configuration."""
    n_answers: Count = 0
    """Answers on pairs with the configuration, against zero-shot or another."""
    note: str | None = None
    """Why there is no strength or no interval."""


class MetricAgreement(Record):
    """The rank correlation of a metric with people's preference over configurations."""

    question: str
    metric: str
    correlation: Real | None = None
    """Spearman's; positive if the metric calls better what people prefer."""
    n_configurations: Count
    """Configurations with a strength and a score, zero-shot included."""
    note: str | None = None
    """Why there is no correlation."""


class ExcludedAnswers(Record):
    """A file of answers that was not evaluated."""

    file: str
    rater: str
    reason: str


class ListeningResults(Record):
    """All results of a run's listening tests."""

    schema_version: Count = Field(LISTENING_SCHEMA, alias="schema")
    studies: tuple[str, ...] = ()
    """Ids of the pages that were answered."""
    n_raters: Count = 0
    n_answers: Count = 0
    """Pairs that were answered, attention checks not counted."""
    preferences: tuple[PreferenceRecord, ...] = ()
    agreements: tuple[MetricAgreement, ...] = ()
    excluded: tuple[ExcludedAnswers, ...] = ()
    provenance: Settings = Field(default_factory=dict)
    """Model, interval and rules of exclusion."""
