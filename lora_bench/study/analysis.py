"""The analysis of a study, from the content of `results.json` alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lora_bench.metrics.names import is_higher_better
from lora_bench.planning.run_folder import RunFolder
from lora_bench.results.run_records import RunResults
from lora_bench.results.search_tally import UNTRIED, describe_search
from lora_bench.store import write_json
from lora_bench.study.choice import choose_best, find_fronts, make_points
from lora_bench.study.effects import analyse_axes
from lora_bench.study.fitting import SeedError, measure_error
from lora_bench.study.records import Axis, Best, MetricStudy, Study
from lora_bench.study.table import Grid, Row, collect_rows, read_grid

ONE_SEED = (
    "A single training seed: the variation between trainings is unknown, so there are no intervals "
    "and no tests; `repeats: {train_seeds: [0, 1, 2]}` gives them."
)
SPREAD = (
    "Standard errors and intervals are over training seeds, their common shifts taken out: an axis is tested against "
    "the variation of its effect between seeds. What all trials share, references and generation noise, is not in "
    "them. Differences from zero-shot and from the baseline are in the comparisons."
)
SEVERAL_SOURCES = (
    "The configurations differ in model, dataset or sampling: their scores are distances to different "
    "references, so an axis over these says how hard the data are, not which setting is better."
)

EXTERNAL = "clips of other systems, which have no settings, training seeds or costs to compare."


def analyse_study(results: RunResults) -> Study | None:
    """Analyse all metrics over all prompts together.

    Returns:
        None if fewer than two fine-tuned configurations are planned: then there is nothing to study.
    """
    trials = [trial for trial in results.trials if trial.state != UNTRIED]
    if len({trial.configuration for trial in trials if trial.is_fine_tuned}) < 2:
        return None
    names = [cell.metric for trial in trials for cell in (*trial.scores, *trial.unscored)]
    metrics = dict.fromkeys((*results.planned.metrics, *names))
    studies = [study for name in metrics if (study := analyse_metric(results, name)) is not None]
    notes = [SPREAD if any(study.error_sd is not None for study in studies) else ONE_SEED]
    if sum(trial.is_zero_shot for trial in trials) > 1:
        notes.append(SEVERAL_SOURCES)
    others = [trial.name for trial in trials if trial.external is not None]
    if others:
        notes.append(f"Not in this: {', '.join(others)}, {EXTERNAL}")
    if results.search is not None:
        notes.append(describe_search(results.search))
    return Study(results.name, read_grid(results.spec).axes, tuple(studies), tuple(notes))


def write_study(run_folder: Path, results: RunResults) -> None:
    """Write `study.json` of a run; a run that has nothing to study has none.

    Raises:
        StoreError: the disk is full.
    """
    study = analyse_study(results)
    place = RunFolder(run_folder).study
    if study is None:
        place.unlink(missing_ok=True)
    else:
        write_json(place, study)


def analyse_metric(results: RunResults, metric: str, prompt: str | None = None) -> MetricStudy | None:
    """Analyse one metric on one prompt, or over all prompts; None if no fine-tuned trial is scored on it."""
    whole = read_grid(results.spec)
    rows, estimate = collect_rows(results, whole, metric, prompt)
    tuned = [row for row in rows if not row.trial.is_zero_shot]
    if not tuned:
        return None
    error = _measure_error(tuned)
    higher = is_higher_better(metric)
    axes, placed, notes = _keep_scored_levels(tuned, whole)
    mains, interactions = analyse_axes(placed, axes, error, higher_is_better=higher)
    points = make_points(rows, error, results.trials)
    planned = sum(trial.is_fine_tuned and trial.state != UNTRIED for trial in results.trials)
    if len(tuned) < planned:
        notes.append(
            f"{planned - len(tuned)} of {planned} fine-tuned trials have no score and are not in this."
        )
    if any(level.effect is None for main in mains for level in main.levels):
        notes.append("The combinations that were run are too few to distinguish all axes.")
    elif _is_unbalanced(placed, axes):
        notes.append(
            "Not every combination was run equally often: the effects are those of a model in which the axes "
            "only add up."
        )
    return MetricStudy(
        metric=metric,
        prompt=prompt,
        higher_is_better=higher,
        estimate=estimate,
        n_seeds=len({row.seed for row in tuned}),
        error_sd=error.sd,
        df_error=error.df,
        main_effects=mains,
        interactions=interactions,
        points=points,
        fronts=find_fronts(points, higher_is_better=higher),
        best=_choose_by_selection(results, whole, metric, prompt)
        or choose_best(points, error, higher_is_better=higher),
        notes=tuple(notes),
    )


def _measure_error(rows: Sequence[Row]) -> SeedError:
    return measure_error(
        [row.configuration for row in rows], [row.seed for row in rows], [row.value for row in rows]
    )


def _choose_by_selection(results: RunResults, grid: Grid, metric: str, prompt: str | None) -> Best | None:
    """Return the choice by the scores on the selection side; None where no configuration has all of these."""
    rows, _ = collect_rows(results, grid, metric, prompt, "selection")
    tuned = [row for row in rows if row.seed is not None]
    if not tuned:
        return None
    error = _measure_error(tuned)
    higher = is_higher_better(metric)
    points = make_points(rows, error, results.trials)
    return choose_best(points, error, higher_is_better=higher, side="selection")


def _keep_scored_levels(rows: Sequence[Row], grid: Grid) -> tuple[tuple[Axis, ...], list[Row], list[str]]:
    """Return axes without the levels that no trial was scored on, and the rows' places on them."""
    inside = [row for row in rows if row.position is not None]
    notes: list[str] = []
    kept: list[list[int]] = []
    for index, axis in enumerate(grid.axes):
        present = {row.position[index] for row in inside if row.position is not None}
        kept.append([level for level in range(len(axis.levels)) if level in present])
        lost = [axis.levels[level].label for level in range(len(axis.levels)) if level not in present]
        if lost and inside:
            notes.append(f"No trial with {axis.field} {', '.join(lost)} was scored.")
    wide = [index for index, levels in enumerate(kept) if len(levels) > 1]
    axes = tuple(
        replace(grid.axes[index], levels=tuple(grid.axes[index].levels[level] for level in kept[index]))
        for index in wide
    )
    placed = [
        replace(row, position=tuple(kept[index].index(row.position[index]) for index in wide))
        if row.position is not None
        else row
        for row in rows
    ]
    return axes, placed, notes


def _is_unbalanced(rows: Sequence[Row], axes: Sequence[Axis]) -> bool:
    """Return whether some combination of the axes has more scores than another."""
    counts: dict[tuple[int, ...], int] = {}
    for row in rows:
        if row.position is not None:
            counts[row.position] = counts.get(row.position, 0) + 1
    n_cells = 1
    for axis in axes:
        n_cells *= len(axis.levels)
    return bool(counts) and (len(counts) < n_cells or len(set(counts.values())) > 1)
