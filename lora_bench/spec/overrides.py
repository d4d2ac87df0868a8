"""`-o KEY=VALUE`: changes of a spec from the command line.

A field of a trial (`lora.rank`, `dataset.clip_s`) is changed in every trial, also where a variant states it.
An axis of the grid and an ablation exist to vary their field, so they refuse an override of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from lora_bench.errors import Problem
from lora_bench.spec.kept_budgets import SIZE_FIELDS, keep_budgets
from lora_bench.spec.reading import read_text
from lora_bench.spec.tree import RIVALS, WHOLE, Node, find_node, merge_nodes, nest_node

TRIAL_SECTIONS = ("model", "dataset", "generation", "lora", "train")
_SOURCES = frozenset({"dataset.path", "dataset.builtin"})
Leaves = Mapping[str, Node]


def apply_override(tree: Node, override: str, problems: list[Problem]) -> Node:
    """Return the document with one `key=value`; relative paths in it are relative to the current folder."""
    source = f"-o {override}"
    key, equals, text = override.partition("=")
    key = key.strip()
    parts = tuple(key.split("."))
    if not equals or not all(parts):
        problems.append(Problem(source, "", "expected KEY=VALUE with a dotted key, such as `-o lora.rank=8`"))
        return tree
    if parts[0] in {"extends", "schema"}:
        problems.append(Problem(source, parts[0], f"`{parts[0]}` cannot be overridden; set it in the file"))
        return tree
    value = read_text(text, source, Path.cwd(), problems, is_file=False)
    if value is None:
        if not any(problem.place == source for problem in problems):
            problems.append(Problem(source, key, "the value is empty; write `null` for nothing"))
        return tree
    stated = replace(value, key_place=value.place)
    if parts[0] not in TRIAL_SECTIONS:
        return set_node(tree, parts, stated)
    leaves = dict(_list_leaves(key, stated))
    conflicts = list(_find_conflicts(tree, leaves, text))
    problems += [Problem(source, key, message) for message in conflicts]
    if conflicts:
        return tree
    overridden = _override_trials(tree, parts, stated, leaves)
    for field in SIZE_FIELDS:
        if field in leaves and leaves[field].value is not None:
            overridden = keep_budgets(tree, overridden, field, problems)
    return overridden


def set_node(tree: Node, parts: tuple[str, ...], value: Node, name: str = "") -> Node:
    """Return the document with `value` merged in at `parts`; a number counts into a list that is there."""
    head, rest = parts[0], parts[1:]
    if isinstance(tree.value, list) and head.isdigit() and int(head) < len(tree.value):
        items = list(tree.value)
        items[int(head)] = set_node(items[int(head)], rest, value) if rest else value
        return replace(tree, value=items)
    dotted = ".".join(parts)
    if rest and dotted in tree.children:  # a field that is written as a dotted key, as on an axis
        return replace(tree, value={**tree.children, dotted: value})
    for end in range(len(parts) - 1, 0, -1):
        key = ".".join(parts[:end])
        if key in tree.children:
            inner = set_node(tree.children[key], parts[end:], value, parts[end - 1])
            return replace(tree, value={**tree.children, key: inner})
    return merge_nodes(tree, nest_node(parts, value), name)


def _list_leaves(key: str, value: Node) -> Iterator[tuple[str, Node]]:
    """Dotted fields and values below a node; lists and scalars are values."""
    if not value.children or key in WHOLE:
        yield key, value
        return
    for name, child in value.children.items():
        yield from _list_leaves(f"{key}.{name}", child)


def _touches(stated: str, leaf: str) -> bool:
    """Whether a stated field is the overridden one, lies in it, or is the other source of data."""
    section, _, last = leaf.rpartition(".")
    rival = f"{section}.{RIVALS.get((section, last))}"
    return stated in {leaf, rival} or stated.startswith(f"{leaf}.")


def _find_conflicts(tree: Node, leaves: Leaves, text: str) -> Iterator[str]:
    """Messages for axes, linked fields and ablations that vary an overridden field."""
    for axis, values, what, mend in _list_varied(tree):
        fields = {field for item in values.items for field, _ in _list_leaves(axis, item)}
        for leaf in leaves:
            is_source = "dataset" in fields and leaf in _SOURCES  # an axis of named datasets
            if is_source or any(_touches(field, leaf) for field in fields):
                yield f"`{leaf}` {what}; override its values, as in `-o {mend}=[{text}]`"
    ablations = tree.children.get("ablations")
    for name, ablation in ablations.children.items() if ablations is not None else ():
        stated = [field for key, child in ablation.children.items() for field, _ in _list_leaves(key, child)]
        for leaf in leaves:
            if any(_touches(field, leaf) for field in stated):
                mends = f"`-o ablations.{name}.{leaf}={text}`"
                if leaf.startswith(("lora.", "train.")):
                    mends += (
                        f", or the value that the other trials start from with `-o defaults.{leaf}={text}`"
                    )
                yield f"`{leaf}` is what the ablation `{name}` changes; override it there with {mends}"


def _list_varied(tree: Node) -> Iterator[tuple[str, Node, str, str]]:
    """Tuned fields, axes of the grid and what follows them: name, values, what it is, where an override reaches it."""
    tuned, followed = find_node(tree, ("tune",))
    if followed:
        axes, prefix = (tuned.children["axes"], "tune.axes") if "axes" in tuned.children else (tuned, "tune")
        for key, child in axes.children.items():
            for field, values in _list_leaves(key, child):
                yield field, values, "is what `tune` looks for", f"{prefix}.{field}"
    grid, _ = find_node(tree, ("trials", "grid"))
    if "axes" not in grid.children:
        return
    for axis, values in grid.children["axes"].children.items():
        yield axis, values, "is an axis of the grid", f"trials.grid.axes.{axis}"
    zipped = grid.children.get("zip")
    if zipped is None:
        return
    links = {f".{n}": link for n, link in enumerate(zipped.items)} or {"": zipped}
    for index, link in links.items():
        followed = link.children["with"].value if "with" in link.children else None
        for name, values in link.children.items():
            if name != "with":
                yield name, values, f"follows the axis `{followed}`", f"trials.grid.zip{index}.{name}"


def _override_trials(tree: Node, parts: tuple[str, ...], value: Node, leaves: Leaves) -> Node:
    """The document with a field changed where trials start from, and stated by no variant."""
    section, *rest = parts
    if section == "dataset" and (rest or value.children):
        tree = _override_datasets(tree, tuple(rest), value)
    else:
        tree = set_node(tree, ("defaults", *parts) if section in {"lora", "train"} else parts, value)
    trials = tree.children.get("trials")
    variants = trials.children.get("variants") if trials is not None else None
    if trials is None or variants is None or not variants.items:
        return tree
    kept = [_drop_fields(item, "", leaves) or item for item in variants.items]
    inner = replace(trials, value={**trials.children, "variants": replace(variants, value=kept)})
    return replace(tree, value={**tree.children, "trials": inner})


def _override_datasets(tree: Node, parts: tuple[str, ...], value: Node) -> Node:
    """The document with a field changed in its dataset, and in every named one, which trials may take."""
    children = dict(tree.children)
    named = children.get("datasets")
    if named is not None and named.children:
        changed = {
            name: set_node(node, parts, value, "dataset") if parts else merge_nodes(node, value, "dataset")
            for name, node in named.children.items()
        }
        children["datasets"] = replace(named, value=changed)
    own = children.get("dataset")
    tree = replace(tree, value=children)
    if own is not None and isinstance(own.value, str):
        return tree
    return set_node(tree, ("dataset", *parts), value)


def _drop_fields(node: Node, prefix: str, leaves: Leaves) -> Node | None:
    """A variant without the fields that are overridden; None if nothing is left of a section."""
    kept: dict[str, Node] = {}
    for key, child in node.children.items():
        dotted = f"{prefix}{key}"
        if child.children and dotted not in WHOLE:
            inner = _drop_fields(child, f"{dotted}.", leaves)
            if inner is not None:
                kept[key] = inner
        elif not any(_touches(dotted, leaf) for leaf in leaves):
            kept[key] = child
    return replace(node, value=kept) if kept else None
