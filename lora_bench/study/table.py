"""The scores of a run by configuration and training seed, and their positions in the grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from lora_bench.results.records import ScoreRecord, Settings
from lora_bench.results.run_records import RunResults, TrialResult
from lora_bench.results.settings import read_section
from lora_bench.spec.changes import flatten_mapping
from lora_bench.spec.data_size import ALL, SIZE_FIELDS, order_sizes
from lora_bench.spec.grid import show_value
from lora_bench.spec.targets import spell_targets
from lora_bench.spec.trajectories import KEEP
from lora_bench.study.records import Axis, Level

Estimate = Literal["corrected", "value"]
Side = Literal["test", "selection"]
# Sections of a resolved spec that hold the defaults of a trial's fields.
_DEFAULTS = {"lora": ("defaults", "lora"), "train": ("defaults", "train")}


@dataclass(frozen=True)
class Row:
    """One scored trial.

    Attributes:
        position: index of its level on every axis; None if it is not one of the grid's combinations.
    """

    configuration: str
    seed: int | None
    value: float
    trial: TrialResult
    position: tuple[int, ...] | None


@dataclass(frozen=True)
class Grid:
    """The axes of a spec with what follows them, and the levels as they are matched.

    Attributes:
        axes: those with two levels or more.
        matches: per axis and level, dotted fields and values, the linked ones included.
        fixed: the same of axes with a single level: every combination has these.
    """

    axes: tuple[Axis, ...]
    matches: tuple[tuple[Settings, ...], ...]
    fixed: Settings


def read_grid(spec: Settings) -> Grid:
    """Return the grid's axes with two levels or more; none if the spec has no grid."""
    grid = read_section(spec, "trials", "grid")
    links = _list_links(grid)
    axes: list[Axis] = []
    matches: list[tuple[Settings, ...]] = []
    fixed: dict[str, JsonValue] = {}
    for field, listed_values in read_section(grid, "axes").items():
        if not isinstance(listed_values, list):
            continue
        values = listed_values
        followers = {
            name: listed for axis, fields in links if axis == field for name, listed in fields.items()
        }
        if field in SIZE_FIELDS:  # a learning curve, with `all` last
            order = order_sizes(listed_values)
            values = [listed_values[place] for place in order]
            followers = {name: [listed[place] for place in order] for name, listed in followers.items()}
        wanted = tuple(
            flatten_mapping({field: value, **{name: listed[index] for name, listed in followers.items()}})
            for index, value in enumerate(values)
        )
        if len(values) == 1:
            fixed |= wanted[0]
            continue
        levels = tuple(Level(value, label_level(value)) for value in values)
        numeric = all(_is_number(value) for value in values)
        axes.append(Axis(field, levels, numeric, tuple(followers)))
        matches.append(wanted)
    return Grid(tuple(axes), tuple(matches), fixed)


def _list_links(grid: Settings) -> list[tuple[str, dict[str, list[JsonValue]]]]:
    """Return the axis that each link follows, and its fields, from the spec's file or its resolved form."""
    found = grid.get("zip")
    links = [link for link in found if isinstance(link, dict)] if isinstance(found, list) else []
    return [
        (
            str(link.get("with")),
            {
                name: listed
                for name, listed in (read_section(link, "values") or link).items()
                if isinstance(listed, list)
            },
        )
        for link in links
    ]


def label_level(value: JsonValue) -> str:
    """Return a level as tables show it."""
    if isinstance(value, Mapping):
        return "-".join(show_value(item) for item in flatten_mapping(value).values())
    return show_value(value)


def find_position(trial: TrialResult, grid: Grid, spec: Settings) -> tuple[int, ...] | None:
    """Return the position in the grid; None if a trial changes what is no axis, or has a value that is no level."""

    def has(wanted: Settings) -> bool:
        return all(_same(field, read_setting(trial, field, spec), value) for field, value in wanted.items())

    position: list[int] = []
    for levels in grid.matches:
        found = next((index for index, wanted in enumerate(levels) if has(wanted)), None)
        if found is None:
            return None
        position.append(found)
    if not has(grid.fixed):
        return None
    of_grid = {*grid.fixed, *(field for levels in grid.matches for level in levels for field in level)}
    others = (field for field in trial.changes if field not in of_grid)
    if not all(_same(field, read_setting(trial, field, spec), read_default(spec, field)) for field in others):
        return None
    return tuple(position)


def _same(field: str, one: JsonValue, other: JsonValue) -> bool:
    if field == "lora.targets":
        return spell_targets(one) == spell_targets(other)
    return one == other


def read_setting(trial: TrialResult, field: str, spec: Settings) -> JsonValue:
    """Return the value of a trial's dotted field; what it does not change is the spec's default."""
    section, _, rest = field.partition(".")
    stated = trial.changes.get(field)
    if field == "lora.budget" or isinstance(stated, Mapping):  # a trial's settings have what follows from it
        return stated
    if section in _DEFAULTS and rest:
        found = _walk(trial.lora if section == "lora" else trial.train, rest)
        if field == KEEP and found is None:
            return _walk(trial.train, "steps")
        return "lora" if field == "lora.kind" and found is None else found
    return trial.changes[field] if field in trial.changes else read_default(spec, field)


def read_default(spec: Settings, field: str) -> JsonValue:
    """Return the default of a dotted field; `dataset` is the name of the spec's dataset."""
    section, _, rest = field.partition(".")
    if field == "dataset":
        named = read_section(spec, "datasets").items()
        return next((name for name, dataset in named if dataset == spec.get("dataset")), None)
    if field in SIZE_FIELDS:
        return read_section(spec, "dataset", "size").get(rest.rpartition(".")[2], ALL)
    defaults = read_section(spec, *_DEFAULTS.get(section, (section,)))
    found, rank = _walk(defaults, rest), defaults.get("rank")
    if field == KEEP and (found is None or isinstance(found, list)):  # a trial keeps one step
        return defaults.get("steps")
    if field == "lora.kind" and found is None:
        return "lora"
    if field == "lora.alpha" and found is None and isinstance(rank, int | float):
        return 2.0 * rank
    return found


def _walk(settings: Settings | None, dotted: str) -> JsonValue:
    *sections, name = dotted.split(".")
    return read_section(settings, *sections).get(name)


def find_score(
    trial: TrialResult, metric: str, prompt: str | None, side: Side = "test"
) -> ScoreRecord | None:
    """Return the score of one cell, or None."""
    scores = trial.scores if side == "test" else trial.selection
    return next((s for s in scores if s.metric == metric and s.prompt == prompt), None)


def choose_estimate(scores: Sequence[ScoreRecord]) -> Estimate:
    """Return `corrected` if every score of a metric has it: only then are numbers of one kind compared."""
    has_all = bool(scores) and all(score.corrected is not None for score in scores)
    return "corrected" if has_all else "value"


def collect_rows(
    results: RunResults, grid: Grid, metric: str, prompt: str | None, side: Side = "test"
) -> tuple[list[Row], Estimate]:
    """Return every trial with a score of one side, and which of its numbers is taken.

    Zero-shot trials are among them; those of other systems, which have no settings, are not.
    """
    scored = [
        (trial, score)
        for trial in results.trials
        if trial.external is None and (score := find_score(trial, metric, prompt, side))
    ]
    estimate = choose_estimate([score for _, score in scored])
    rows: list[Row] = []
    for trial, score in scored:
        value = score.corrected if estimate == "corrected" else score.value
        if value is None:
            continue
        is_placed = bool(grid.axes) and not trial.is_zero_shot
        position = find_position(trial, grid, results.spec) if is_placed else None
        rows.append(Row(trial.configuration, trial.train_seed, value, trial, position))
    return rows, estimate


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
