"""Effects of `-o` overrides: the trials that they change, names that follow, and overrides that change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_bench.errors import Problem
from lora_bench.spec.changes import flatten_mapping
from lora_bench.spec.configuration import SIZES, Configuration, SectionTexts
from lora_bench.spec.configurations import find_differences, list_stated
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.spec.grid import find_value, rename_value, show_value
from lora_bench.spec.overrides import TRIAL_SECTIONS, apply_override
from lora_bench.spec.reading import shorten
from lora_bench.spec.tree import Node, find_node

Read = Callable[[Node], ExperimentSpec | None]
MAX_NAMES, MAX_LINES = 6, 24
# what a spec says of trials: their configurations tell what comes of it
_OF_TRIALS = {"model", "datasets", "dataset", "generation", "defaults", "trials", "ablations", "baseline"}
_ALONE = "trials.zero_shot_only"
_NOT_SHOWN = {*_OF_TRIALS, "extends", "prompt_sets"}
Stated = Mapping[str, Configuration]


@dataclass(frozen=True)
class Followed:
    """An overridden document whose names follow the overrides.

    Attributes:
        tree: the document.
        effects: lines such as `small: lora.rank 4 -> 8`.
        problems: overrides that change nothing, and trials that they make equal.
    """

    tree: Node
    effects: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def follow_overrides(stated: Node, overridden: Node, overrides: Sequence[str], read: Read) -> Followed:
    """Rename what an override belies, and say what the overrides change.

    Args:
        stated: the document without overrides.
        overridden: the valid document with all of them.
        overrides: as written.
        read: checks a document; None if it is not valid, as without an override that it needs.
    """
    after = read(overridden)
    if after is None:
        return Followed(overridden)
    before = read(stated)
    problems, restated = _find_idle(stated, before, after, overrides, read)
    if before is None or problems:
        return Followed(overridden, problems=tuple(problems))
    old, new = _place(before), _place(after)
    if equal := list(_find_equal(old, new, overrides)):
        return Followed(overridden, problems=tuple(equal))
    tree = _rename_variants(overridden, old, new)
    renamed = read(tree)
    new = _place(renamed) if renamed is not None else new
    tree = _follow_baseline(tree, before, old, new)
    final = read(tree)
    new = _place(final) if final is not None else new  # with the ablations of a renamed baseline
    effects = [*_describe_trials(old, new), *_describe_rest(before, after), *restated]
    return Followed(tree if final is not None else overridden, tuple(effects[:MAX_LINES]))


def _find_idle(
    stated: Node, before: ExperimentSpec | None, after: ExperimentSpec, overrides: Sequence[str], read: Read
) -> tuple[list[Problem], list[str]]:
    """Problems of overrides that change nothing; lines for those that repeat what the spec says, next to others."""
    problems: list[Problem] = []
    restated: list[Problem] = []
    for index, override in enumerate(overrides):
        key = override.partition("=")[0].strip()
        others = (*overrides[:index], *overrides[index + 1 :])
        if not _is_same(after, read(_apply_all(stated, others))):
            continue
        alone = read(_apply_all(stated, [override]))
        is_restated = key.partition(".")[0] in TRIAL_SECTIONS or alone == before
        if before is not None and is_restated and _is_same(before, alone):
            why = "every trial and the rest of the spec already have this value or make no use of it; leave it out"
            restated.append(Problem(f"-o {override}", key, f"`{key}` changes nothing: {why}"))
        else:
            problems.append(_describe_idle(override, key, overrides[index + 1 :]))
    if len(restated) == len(overrides):
        problems += restated
    return problems, [
        f"{item.field} already has this value: -o {item.field}=... changes nothing" for item in restated
    ]


def _apply_all(tree: Node, overrides: Sequence[str]) -> Node:
    for override in overrides:
        tree = apply_override(tree, override, [])
    return tree


def _is_same(one: ExperimentSpec, other: ExperimentSpec | None) -> bool:
    """Whether the same trials with the same names, and the same of everything else, come of both."""
    if other is None or one.baseline != other.baseline:
        return False
    if one.trials.zero_shot_only != other.trials.zero_shot_only:
        return False
    first, second = (spec.model_dump(mode="json", exclude=_OF_TRIALS) for spec in (one, other))
    return first == second and (one == other or _list_trials(one) == _list_trials(other))


def _list_trials(spec: ExperimentSpec) -> list[tuple[str, str]]:
    texts = SectionTexts()
    return [(item.name, texts.write(item.identity)) for item in list_stated(spec)[0]]


def _describe_idle(override: str, key: str, later: Sequence[str]) -> Problem:
    if any(item.partition("=")[0].strip() == key for item in later):
        why = "is given again later, and the last one counts; give it once"
    elif key.startswith("defaults."):
        field = key.removeprefix("defaults.")
        why = f"changes no trial, because each sets `{field}` itself; `-o {field}=...` changes it in every trial"
    else:
        why = "changes nothing, because no trial takes it from there or another override undoes it; leave it out"
    return Problem(f"-o {override}", key, f"`{key}` {why}")


def _place(spec: ExperimentSpec) -> dict[str, Configuration]:
    """Stated configurations by where they are stated, a combination of the grid by its values."""
    found: dict[str, Configuration] = {}
    for item in list_stated(spec)[0]:
        cell = f" {item.cells[0]}" if item.cells and item.field == "trials.grid" else ""
        step = "".join(item.name.partition("@")[1:])  # a kept one
        found[f"{item.field}{cell}{step}"] = item
    return found


def _find_equal(old: Stated, new: Stated, overrides: Sequence[str]) -> Iterator[Problem]:
    """A problem for each trial that only an override makes equal to an earlier one."""
    texts = SectionTexts()
    first: dict[str, str] = {}
    for place, item in new.items():
        twin = first.setdefault(texts.write(item.identity), place)
        if twin == place or place not in old or twin not in old:
            continue
        differing = find_differences(old[twin].identity, old[place].identity)
        if not differing:
            continue
        fields = ", ".join(f"`{name}`" for name in differing)
        guilty = [text for text in overrides if _is_about(text.partition("=")[0].strip(), differing)]
        index = place.partition("[")[2].partition("]")[0]
        mend = (
            f"override one of them with `-o trials.variants.{index}.KEY=VALUE`"
            if index
            else "override fewer fields"
        )
        yield Problem(
            " ".join(f"-o {text}" for text in guilty or overrides),
            "trials",
            f"trials `{old[twin].name}` and `{old[place].name}` become equal, because they differ only in {fields}; "
            f"{mend}, or leave one of them out",
        )


def _is_about(key: str, fields: Sequence[str]) -> bool:
    key = key.removeprefix("defaults.")
    return any(field == key or field.startswith(f"{key}.") for field in fields)


def _list_changed(old: Configuration, new: Configuration) -> dict[str, tuple[Any, Any]]:
    """Fields in which a trial differs from what the spec says, with both values as stated."""
    changed: dict[str, tuple[Any, Any]] = {}
    for field in find_differences(old.identity, new.identity):
        name = "dataset" if field in {"dataset.path", "dataset.builtin"} else field
        changed[name] = (_read_value(old, name), _read_value(new, name))
    return changed


def _read_value(item: Configuration, name: str) -> Any:
    """What a trial states in a field; None of a size that its budget leads to."""
    lora = item.settings.lora
    is_open = name in {f"lora.{size}" for size in SIZES} or (name == "lora.alpha" and lora.alpha is None)
    return None if is_open and lora.budget is not None else find_value(item.settings, item.changes, name)


def _rename_variants(tree: Node, old: Stated, new: Stated) -> Node:
    """The document whose variants no longer name a value that an override has changed."""
    variants, followed = find_node(tree, ("trials", "variants"))
    if followed < 2 or not isinstance(variants.value, list):
        return tree
    items = list(variants.value)
    for index, item in enumerate(items):
        place = f"trials.variants[{index}]"
        named = item.children.get("name")
        if named is None or not named.place.line or place not in old or place not in new:
            continue  # an override names it
        name = new[place].name
        for field, (before, after) in _list_changed(old[place], new[place]).items():
            name = rename_value(name, field, before, after)
        items[index] = replace(item, value={**item.children, "name": replace(named, value=name)})
    trials = tree.children["trials"]
    inner = replace(trials, value={**trials.children, "variants": replace(variants, value=items)})
    return replace(tree, value={**tree.children, "trials": inner})


def _follow_baseline(tree: Node, before: ExperimentSpec, old: Stated, new: Stated) -> Node:
    """The document whose baseline is the trial that the spec names, under its present name."""
    stated = tree.children.get("baseline")
    if stated is None or not stated.place.line or before.baseline is None:
        return tree
    for place, item in old.items():
        if item.name == before.baseline and place in new:
            return replace(tree, value={**tree.children, "baseline": replace(stated, value=new[place].name)})
    return tree


def _describe_trials(old: Stated, new: Stated) -> Iterator[str]:
    """One line per change, with the trials that it is of."""
    by_change: dict[str, list[str]] = {}
    kept = [place for place in old if place in new]
    for place in kept:
        changed = _list_changed(old[place], new[place])
        text = ", ".join(f"{field} {_show(one)} -> {_show(other)}" for field, (one, other) in changed.items())
        before, after = old[place].name, new[place].name
        if text or before != after:
            name = after if before == after else f"{after} (in the spec: {before})"
            by_change.setdefault(text or "renamed", []).append(name)
    for text, names in by_change.items():
        is_all = len(names) == len(kept) > 1 and not any(" (" in name for name in names)
        yield f"{f'all {len(names)} trials' if is_all else _join(names)}: {text}"
    for what, places in (
        ("left out", [old[place].name for place in old if place not in new]),
        ("added", [new[place].name for place in new if place not in old]),
    ):
        if places:
            yield f"{what}: {_join(places)}"


def _describe_rest(before: ExperimentSpec, after: ExperimentSpec) -> Iterator[str]:
    """Changes beside the trials' own settings."""
    if before.trials.zero_shot_only != after.trials.zero_shot_only:
        yield f"{_ALONE}: {_show(before.trials.zero_shot_only)} -> {_show(after.trials.zero_shot_only)}"
    one, other = (
        flatten_mapping(spec.model_dump(mode="json", exclude=_NOT_SHOWN)) for spec in (before, after)
    )
    for field in {**one, **other}:
        if one.get(field) != other.get(field):
            yield f"{field}: {_show(one.get(field))} -> {_show(other.get(field))}"


def _join(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _show(value: Any) -> str:
    if isinstance(value, list) and any(len(str(item)) > 20 for item in value):
        return f"{len(value)} values"
    text = f"[{', '.join(str(item) for item in value)}]" if isinstance(value, list) else show_value(value)
    return text if len(text) <= 60 else shorten(text)
