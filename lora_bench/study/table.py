"""The numbers of a run by configuration and training seed, and where each stands in the grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lora_bench.spec.changes import flatten_mapping
from lora_bench.spec.grid import show_value
from lora_bench.spec.targets import spell_targets
from lora_bench.study.records import Axis, Level

Json = dict[str, Any]
Estimate = Literal["corrected", "value"]
# Where a field of a trial has its default in a resolved spec.
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
    trial: Json
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
    matches: tuple[tuple[Json, ...], ...]
    fixed: Json


def read_grid(spec: Mapping[str, Any]) -> Grid:
    """The grid's axes with two levels or more; none if the spec has no grid."""
    grid: Json = (spec.get("trials") or {}).get("grid") or {}
    links = [_read_link(link) for link in grid.get("zip") or []]
    axes: list[Axis] = []
    matches: list[tuple[Json, ...]] = []
    fixed: Json = {}
    for field, values in (grid.get("axes") or {}).items():
        followers = {
            name: listed for axis, fields in links if axis == field for name, listed in fields.items()
        }
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


def _read_link(link: Mapping[str, Any]) -> tuple[str, Json]:
    """The axis that a link follows, and its fields, as the spec's file or its resolved form has them."""
    values = link.get("values") or {key: value for key, value in link.items() if key != "with"}
    return str(link.get("with")), dict(values)


def label_level(value: Any) -> str:
    """A level as tables show it."""
    if isinstance(value, Mapping):
        return "-".join(show_value(item) for item in flatten_mapping(value).values())
    return show_value(value)


def find_position(trial: Json, grid: Grid, spec: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Where a trial stands in the grid; None if it changes something that is no axis, or has another value."""

    def has(wanted: Json) -> bool:
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
    others = (field for field in trial.get("changes") or {} if field not in of_grid)
    if not all(_same(field, read_setting(trial, field, spec), read_default(spec, field)) for field in others):
        return None
    return tuple(position)


def _same(field: str, one: Any, other: Any) -> bool:
    if field == "lora.targets":
        return spell_targets(one) == spell_targets(other)
    return one == other


def read_setting(trial: Json, field: str, spec: Mapping[str, Any]) -> Any:
    """What a trial has in a dotted field; what it does not change is the spec's default."""
    section, _, rest = field.partition(".")
    if section in _DEFAULTS and rest:
        return _walk(trial.get(section), rest)
    changes: Json = trial.get("changes") or {}
    return changes[field] if field in changes else read_default(spec, field)


def read_default(spec: Mapping[str, Any], field: str) -> Any:
    """What trials start from in a dotted field; `dataset` is the name of the spec's dataset."""
    section, _, rest = field.partition(".")
    if field == "dataset":
        named: Json = spec.get("datasets") or {}
        return next((name for name, dataset in named.items() if dataset == spec.get("dataset")), None)
    value: Any = spec
    for part in _DEFAULTS.get(section, (section,)):
        value = (value or {}).get(part)
    found = _walk(value, rest)
    if field == "lora.alpha" and found is None:
        rank = _walk(value, "rank")
        return None if rank is None else 2.0 * rank
    return found


def _walk(value: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def choose_estimate(trials: Iterable[Json], metric: str, prompt: str | None) -> Estimate:
    """`corrected` if every score of the metric has it: only then are numbers of one kind compared."""
    scores = [score for trial in trials if (score := find_score(trial, metric, prompt))]
    has_all = bool(scores) and all(_is_number(score.get("corrected")) for score in scores)
    return "corrected" if has_all else "value"


def find_score(trial: Json, metric: str, prompt: str | None) -> Json | None:
    """The score of one cell, or None."""
    scores: Sequence[Json] = trial.get("scores") or []
    return next((s for s in scores if s.get("metric") == metric and s.get("prompt") == prompt), None)


def collect_rows(
    results: Mapping[str, Any], grid: Grid, metric: str, prompt: str | None
) -> tuple[list[Row], Estimate]:
    """Every trial with a score, zero-shot ones included, and which of its numbers is taken."""
    trials: list[Json] = results.get("trials") or []
    spec: Json = results.get("spec") or {}
    estimate = choose_estimate(trials, metric, prompt)
    rows: list[Row] = []
    for trial in trials:
        score = find_score(trial, metric, prompt)
        if score is None or not _is_number(score.get(estimate)):
            continue
        tuned = trial.get("kind") != "zero-shot"
        position = find_position(trial, grid, spec) if tuned and grid.axes else None
        name = str(trial.get("configuration") or trial["name"])
        rows.append(Row(name, trial.get("train_seed"), float(score[estimate]), trial, position))
    return rows, estimate


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
