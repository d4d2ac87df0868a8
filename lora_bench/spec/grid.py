"""The product of a grid's axes, with linked fields, exclusions and names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lora_bench.slugs import clean_name
from lora_bench.spec.budgets import spell_count
from lora_bench.spec.changes import Changes, flatten_mapping
from lora_bench.spec.data_size import ALL, SIZE_FIELDS
from lora_bench.spec.experiment import GridSpec, TrialSettings
from lora_bench.spec.kinds import has_setting
from lora_bench.spec.lora import LoraSpec

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_STATED_NUMBER = re.compile(
    r"(?<![A-Za-z])(?P<word>[A-Za-z][A-Za-z_]*)(?P<sign>[-=]?)(?P<number>[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?)(?![0-9])"
)
_BUDGET = "lora.budget"
_SHORT = {
    "lora.rank": "r",
    "lora.alpha": "a",
    "lora.dropout": "drop",
    "train.lr": "lr",
    "train.batch_size": "b",
    "generation.adapter_scale": "scale",
}


def expand_grid(grid: GridSpec) -> Iterator[tuple[Changes, dict[str, str]]]:
    """Changes of every combination that is not excluded, the last axis fastest; and its value on each axis.

    An axis may take mappings (`dataset: [{path: a}, {path: b}]`): they count as the fields in them.
    """
    excluded = [flatten_mapping(combination) for combination in grid.exclude]
    names = list(grid.axes)
    labels = {axis: label_values(values) for axis, values in grid.axes.items()}
    for positions in itertools.product(*(range(len(values)) for values in grid.axes.values())):
        chosen = dict(zip(names, positions, strict=True))
        stated: Changes = {axis: grid.axes[axis][position] for axis, position in chosen.items()}
        for link in grid.zip:
            stated |= {name: values[chosen[link.axis]] for name, values in link.values.items()}
        changes = flatten_mapping(stated)
        if not any(_agrees(changes, combination) for combination in excluded):
            yield changes, {axis: labels[axis][position] for axis, position in chosen.items()}


def label_values(values: Sequence[Any]) -> list[str]:
    """A word for each value of an axis, no two of them alike."""
    labels: list[str] = []
    for value in values:
        parts = flatten_mapping(value).values() if isinstance(value, dict) else [value]
        label = "-".join(show_value(part) for part in parts)
        labels.append(label if label not in labels else f"{label} #{len(labels) + 1}")
    return labels


def _agrees(changes: Changes, combination: Changes) -> bool:
    return bool(combination) and all(
        name in changes and changes[name] == value for name, value in combination.items()
    )


def name_combination(grid: GridSpec, changes: Changes, settings: TrialSettings) -> str:
    """Name of a combination: the template filled in, or the axes' values put together.

    Characters that a name cannot hold become hyphens.
    """
    if grid.name is not None:
        text = PLACEHOLDER.sub(lambda found: show_value(find_value(settings, changes, found[1])), grid.name)
    else:
        axes = (name for name in changes if name.split(".")[0] in grid.axes or name in grid.axes)
        labels = (
            label_budget(settings.lora)
            if name == _BUDGET
            else label_field(name, find_value(settings, changes, name))
            for name in axes
        )
        text = "-".join(label for label in labels if label)
    return clean_name(text)


def label_budget(lora: LoraSpec) -> str:
    """A budget and the size that it leads to as part of a name: `400k-r12`; empty for a kind without a size."""
    if lora.budget is None or not has_setting(lora.kind, "budget"):
        return ""
    size = f"b{lora.block_size}" if lora.kind == "oft" else f"r{lora.rank}"
    factor = f"-f{lora.factor}" if lora.kind == "lokr" and lora.factor is not None else ""
    return f"{spell_count(lora.budget)}-{size}{factor}"


def label_field(name: str, value: Any) -> str:
    """A field with its value as part of a name: `lr0.001`, `r16`."""
    if isinstance(value, str | list | Path) or value is None:
        return show_value(value)
    return f"{_SHORT.get(name, name.rpartition('.')[2])}{show_value(value)}"


def find_value(settings: TrialSettings, changes: Changes, dotted: str) -> Any:
    """What a trial has in a dotted field; `dataset` is the dataset's name."""
    if dotted == "lora.alpha":
        return settings.lora.resolved_alpha
    if dotted == _BUDGET and settings.lora.budget is not None:
        return spell_count(settings.lora.budget)
    if dotted == "dataset":
        named = changes.get("dataset")
        return named if isinstance(named, str) else name_dataset(settings)
    if dotted == "lora.path" and settings.lora.path is not None:
        return Path(settings.lora.path)  # whose last part is its name
    if dotted in SIZE_FIELDS and settings.dataset.size is None:
        return ALL
    value: Any = settings
    for part in dotted.split("."):
        value = None if value is None else getattr(value, part)  # of a section that is left out
    return value


def name_dataset(settings: TrialSettings) -> str:
    """The dataset's folder or built-in name."""
    dataset = settings.dataset
    return dataset.path.name if dataset.path is not None else str(dataset.builtin)


def show_value(value: Any) -> str:
    """A value as part of a name."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "+".join(show_value(item) for item in value)
    if isinstance(value, Path):
        return value.name
    return str(value)


def rename_value(name: str, field: str, before: Any, after: Any) -> str:
    """`name` with the value of a field that it states replaced: `r4-attention` becomes `r8-attention`.

    A number is one after its field's name, its beginning or its short form (`r4`, `rank-4`, `lr1e-3`); a text is
    one between hyphens or other signs.  A name that does not state the value stays as it is.
    """
    if isinstance(before, bool) or isinstance(after, bool) or before is None or after is None:
        return name
    new = show_value(after).rpartition("/")[2]
    if not isinstance(before, int | float):
        old = re.escape(show_value(before).rpartition("/")[2])
        return clean_name(re.sub(rf"(?<![A-Za-z0-9]){old}(?![A-Za-z0-9])", lambda _: new, name))
    last = field.rpartition(".")[2]
    initials = "".join(word[0] for word in last.split("_"))

    def replace(found: re.Match[str]) -> str:
        word = found["word"].lower().rstrip("_")
        is_field = word in {_SHORT.get(field), initials} or last.startswith(word)
        return (
            f"{found['word']}{found['sign']}{new}"
            if is_field and float(found["number"]) == before
            else found[0]
        )

    return clean_name(_STATED_NUMBER.sub(replace, name))
