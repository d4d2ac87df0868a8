"""Records of the analysis of a study: the content of `study.json`, of its tables and of its plots.

All are frozen and are checked when they are made.  None means *not known*, never zero.
Labels of levels and names of configurations are those of the report's tables.
"""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue
from pydantic.dataclasses import dataclass

Cost = Literal["trainable_params", "train_s", "peak_memory_gib"]
COSTS: dict[Cost, str] = {
    "trainable_params": "trainable parameters",
    "train_s": "training time (s)",
    "peak_memory_gib": "peak memory in training (GiB)",
}
"""Costs that quality is weighed against, with their labels in plots."""


@dataclass(frozen=True)
class Level:
    """One value of an axis: as the spec states it, and as tables show it."""

    value: JsonValue
    label: str


@dataclass(frozen=True)
class Axis:
    """One axis of the grid.

    Attributes:
        field: dotted field, such as `lora.rank`.
        levels: in the order of the spec; only those that at least one trial was scored on.
        is_numeric: every value is a number, so that a plot may use a (logarithmic) scale.
        linked: fields that follow this axis (`zip`), such as `lora.alpha`.
    """

    field: str
    levels: tuple[Level, ...]
    is_numeric: bool
    linked: tuple[str, ...] = ()


@dataclass(frozen=True)
class LevelEffect:
    """Effect of one level of an axis, the other axes averaged out with equal weights.

    Attributes:
        label: the level.
        n_trials: scores behind it.
        mean: estimated marginal mean of the metric.
        effect: `mean` less the mean over the levels of this axis; None where the axes cannot be distinguished.
        se: standard error of `effect` over training seeds; None from a single seed.
        ci_low: 95 % interval of `effect` (Student's t, `df_error` of the main effect); None with `se`.
    """

    label: str
    n_trials: int
    mean: float | None
    effect: float | None
    se: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class MainEffect:
    """One axis: its levels, and whether they differ at all.

    Attributes:
        field: the axis.
        f_value: F of the axis given the other axes; None, with `p_value`, from a single seed.
        df: degrees of freedom of the axis; `df_error` those of the variation of its effect between seeds.
    """

    field: str
    levels: tuple[LevelEffect, ...]
    f_value: float | None
    df: int
    df_error: int
    p_value: float | None


@dataclass(frozen=True)
class InteractionCell:
    """One combination of two axes, further axes averaged.

    Attributes:
        configurations: names of the configurations in it; empty for a combination that was not run.
        n_trials: scores behind `mean`.
        mean: mean over configurations and seeds; None if there is none.
        se: its standard error over training seeds.
        deviation: `mean` less what the two axes give when they only add up.
    """

    configurations: tuple[str, ...]
    n_trials: int
    mean: float | None
    se: float | None
    deviation: float | None


@dataclass(frozen=True)
class Interaction:
    """Two axes as a table (a heat map): `cells[i][j]` is row level i with column level j.

    Attributes:
        rows: field of the rows, `row_labels` its levels; likewise `columns`.
        f_value: F of the departure from additivity; None, with `p_value`, where it cannot be tested.
        best: (i, j) of the best mean, None if there is none.
    """

    rows: str
    columns: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    cells: tuple[tuple[InteractionCell, ...], ...]
    f_value: float | None
    df: int
    df_error: int
    p_value: float | None
    best: tuple[int, int] | None


@dataclass(frozen=True)
class Point:
    """A configuration's quality and what it cost, means over its training seeds.

    Attributes:
        quality: the metric; lower or higher is better as `MetricStudy.higher_is_better` says.
        se: standard error of `quality` over training seeds; None from one seed.
        n_done: seeds that were scored, of `n_planned`.
        trainable_params: 0 for the zero-shot model.
        train_s: wall time of training; 0 for the zero-shot model.
        total_s: wall time of all stages.
        peak_memory_gib: in training; None for the zero-shot model.
    """

    configuration: str
    kind: Literal["zero-shot", "fine-tuned"]
    quality: float
    se: float | None
    n_done: int
    n_planned: int
    trainable_params: float | None
    train_s: float | None
    total_s: float | None
    peak_memory_gib: float | None

    def cost(self, name: Cost) -> float | None:
        """Return a cost by its name."""
        return getattr(self, name)


@dataclass(frozen=True)
class ParetoFront:
    """Configurations that no other beats in both quality and cost.

    Attributes:
        cost: which cost, `label` in words.
        optimal: names on the front, cheapest first.
        dominated: names of the others, in the order of the plan; those without this cost are in neither.
    """

    cost: Cost
    label: str
    optimal: tuple[str, ...]
    dominated: tuple[str, ...]


@dataclass(frozen=True)
class Best:
    """The configuration that the stated rule chooses.

    Attributes:
        configuration: the choice.
        leader: the best mean, which the choice may be a little worse than.
        tolerance: how much worse it may be: one standard error of a difference; None from one seed.
        rule: the rule in words.
        side: tracks that the rule saw: those to select by, or, for want of these, those that score.
        quality: mean of the choice there; its mean on the tracks that score is in `MetricStudy.points`.
        n_candidates: fine-tuned configurations that it was chosen from.
    """

    configuration: str
    leader: str
    tolerance: float | None
    rule: str
    side: Literal["selection", "test"]
    quality: float
    n_candidates: int


@dataclass(frozen=True)
class MetricStudy:
    """One metric, on one prompt or (`prompt` None) over all prompts.

    Attributes:
        estimate: `corrected` (without the bias of finite samples) or `value`, whichever all trials have.
        error_sd: standard deviation between training seeds, seeds that are common to all trials taken
            out; None from a single seed.
        df_error: its degrees of freedom.
        main_effects: one per axis of `Study.axes`; empty without a grid.
        interactions: every pair of axes, the first one in the rows.
        points: every configuration with a score, zero-shot first.
        notes: caveats.
    """

    metric: str
    prompt: str | None
    higher_is_better: bool
    estimate: Literal["corrected", "value"]
    n_seeds: int
    error_sd: float | None
    df_error: int
    main_effects: tuple[MainEffect, ...]
    interactions: tuple[Interaction, ...]
    points: tuple[Point, ...]
    fronts: tuple[ParetoFront, ...]
    best: Best | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A run with several configurations, analysed.

    Attributes:
        name: the run.
        axes: of the grid, with two levels or more; empty if the spec has no grid.
        metrics: over all prompts together, in the order of the spec.
        notes: caveats for all metrics.
    """

    name: str
    axes: tuple[Axis, ...]
    metrics: tuple[MetricStudy, ...]
    notes: tuple[str, ...]
