"""A run's results in, its study out; nothing but `results.json` is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_bench.metrics import METRIC_NAMES, parse_metric
from lora_bench.results.search_tally import UNTRIED, describe_search
from lora_bench.store import write_json
from lora_bench.study.choice import choose_best, find_fronts, make_points
from lora_bench.study.effects import analyse_axes, compare_with_baseline
from lora_bench.study.fitting import SeedError, measure_error
from lora_bench.study.records import Axis, Delta, MetricStudy, Study
from lora_bench.study.table import Grid, Row, collect_rows, read_grid

Json = dict[str, Any]

ZERO_SHOT = "zero-shot"

ONE_SEED = (
    "A single training seed: nothing is known of the variation between trainings, so there are no intervals "
    "and no tests; `repeats: {train_seeds: [0, 1, 2]}` gives them."
)
SPREAD = (
    "Standard errors and intervals are over training seeds: one variance for all configurations, the seeds' "
    "common shifts taken out. What all trials share, references and generation noise, is not in them."
)
SEVERAL_SOURCES = (
    "The configurations differ in model, dataset or sampling: their scores are distances to different "
    "references, so an axis over these says how hard the data are, not which setting is better."
)


def analyse_study(results: Mapping[str, Any]) -> Study | None:
    """All metrics over all prompts together.

    Args:
        results: content of `results.json`.

    Returns:
        None if fewer than two fine-tuned configurations are planned: then there is nothing to study.
    """
    trials: list[Json] = [t for t in results.get("trials") or [] if t.get("state") != UNTRIED]
    tuned = [trial for trial in trials if trial.get("kind") != "zero-shot"]
    if len({str(trial.get("configuration") or trial["name"]) for trial in tuned}) < 2:
        return None
    names = [
        cell["metric"] for trial in trials for cell in (*trial["scores"], *(trial.get("unscored") or []))
    ]
    metrics = [str(name) for name in (*((results.get("planned") or {}).get("metrics") or []), *names)]
    found = [analyse_metric(results, name) for name in dict.fromkeys(metrics)]
    studies = [study for study in found if study is not None]
    n_bases = sum(trial.get("kind") == "zero-shot" for trial in trials)
    notes = [SPREAD if any(study.error_sd is not None for study in studies) else ONE_SEED]
    if n_bases > 1:
        notes.append(SEVERAL_SOURCES)
    if search := results.get("search"):
        notes.append(describe_search(search))
    axes = read_grid(results.get("spec") or {}).axes
    return Study(str(results.get("name") or ""), axes, tuple(studies), tuple(notes))


def write_study(run_folder: Path, results: Mapping[str, Any]) -> None:
    """Write `study.json` of a run; a run that has nothing to study has none.

    Raises:
        StoreError: the disk is full.
    """
    study = analyse_study(results)
    place = run_folder / "study.json"
    if study is None:
        place.unlink(missing_ok=True)
    else:
        write_json(place, study)


def analyse_metric(results: Mapping[str, Any], metric: str, prompt: str | None = None) -> MetricStudy | None:
    """One metric on one prompt, or over all prompts; None if no fine-tuned trial is scored on it."""
    whole = read_grid(results.get("spec") or {})
    rows, estimate = collect_rows(results, whole, metric, prompt)
    tuned = [row for row in rows if row.seed is not None]
    if not tuned:
        return None
    error = measure_error(
        [row.configuration for row in tuned], [row.seed for row in tuned], [row.value for row in tuned]
    )
    higher = metric in METRIC_NAMES and not parse_metric(metric).lower_is_better
    axes, placed, notes = _keep_scored_levels(tuned, whole)
    mains, interactions = analyse_axes(placed, axes, error, higher_is_better=higher)
    baseline, deltas = _compare(results, rows, error, higher_is_better=higher)
    points = make_points(rows, error, results.get("trials") or [])
    planned = sum(
        trial.get("kind") != "zero-shot" and trial.get("state") != UNTRIED
        for trial in results.get("trials") or []
    )
    if len(tuned) < planned:
        notes.append(
            f"{planned - len(tuned)} of {planned} fine-tuned trials have no score and are not in this."
        )
    if any(level.effect is None for main in mains for level in main.levels):
        notes.append("The combinations that were run are too few to tell all axes apart.")
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
        baseline=baseline,
        deltas=deltas,
        points=points,
        fronts=find_fronts(points, higher_is_better=higher),
        best=choose_best(points, error, higher_is_better=higher),
        notes=tuple(notes),
    )


def _keep_scored_levels(rows: Sequence[Row], grid: Grid) -> tuple[tuple[Axis, ...], list[Row], list[str]]:
    """Axes without the levels that no trial was scored on, and the rows' places on them."""
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
    """Whether some combination of the axes has more scores than another."""
    counts: dict[tuple[int, ...], int] = {}
    for row in rows:
        if row.position is not None:
            counts[row.position] = counts.get(row.position, 0) + 1
    n_cells = 1
    for axis in axes:
        n_cells *= len(axis.levels)
    return bool(counts) and (len(counts) < n_cells or len(set(counts.values())) > 1)


def _compare(
    results: Mapping[str, Any], rows: Sequence[Row], error: SeedError, *, higher_is_better: bool
) -> tuple[str | None, tuple[Delta, ...]]:
    """The baseline's name and the differences from it: the spec's, else each trial's zero-shot model."""
    tuned = [row for row in rows if row.seed is not None]
    wanted = (results.get("spec") or {}).get("baseline")
    if wanted is not None:
        own = [row for row in tuned if wanted in (row.configuration, *(row.trial.get("aliases") or []))]
        by_seed = {row.seed: row.value for row in own}
        name = own[0].configuration if own else str(wanted)
        others = [row for row in tuned if row.configuration != name]
        return name, compare_with_baseline(
            others,
            lambda row: by_seed.get(row.seed),
            error,
            is_trained=True,
            higher_is_better=higher_is_better,
        )
    bases = {str(row.trial["id"]): row for row in rows if row.seed is None}
    if not bases:
        return None, ()
    only = next(iter(bases.values())) if len(bases) == 1 else None

    def find_base(row: Row) -> float | None:
        base = bases.get(str(row.trial.get("zero_shot")), only)
        return None if base is None else base.value

    deltas = compare_with_baseline(
        tuned, find_base, error, is_trained=False, higher_is_better=higher_is_better
    )
    return (ZERO_SHOT if only is None else only.configuration), deltas
