"""Budgets that an override of a size leaves to the kinds without that size.

`-o lora.rank=8` takes the place of a budget.  Kind oft has no rank, so trials of such kinds state the budget themselves
from then on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lora_bench.errors import Problem
from lora_bench.spec.kinds import SETTINGS
from lora_bench.spec.tree import Node, find_node, merge_nodes, nest_node

SIZE_FIELDS = ("lora.rank", "lora.block_size")
_KIND = "lora.kind"
_SIZED = frozenset({"rank", "block_size", "budget"})


def keep_budgets(stated: Node, overridden: Node, field: str, problems: list[Problem]) -> Node:
    """Return the document with an override of a size, in which kinds without that size keep their budget.

    Args:
        stated: the document without the override.
        overridden: the document with it.
        field: one of `SIZE_FIELDS`.
        problems: gets ablations that cannot keep the budget.
    """
    budget = _read_budget(stated, "defaults")
    base = _find(stated, "defaults", "lora", "kind")
    base_kind = str(base.value) if base is not None else "lora"
    trials = _find(overridden, "trials")
    if trials is None or not {"variants", "grid"} & set(trials.children):
        return stated if budget is not None and _lacks(base_kind, field) else overridden
    if budget is not None:
        problems += _list_changed_kinds(overridden, field)
    changed = dict(trials.children)
    if "variants" in changed:
        before = _find(stated, "trials", "variants")
        kept = [
            _keep_in_variant(variant, base_kind, field, _read_budget(old) or budget)
            for variant, old in zip(changed["variants"].items, before.items if before else (), strict=True)
        ]
        changed["variants"] = replace(changed["variants"], value=kept)
    if "grid" in changed and budget is not None:
        changed["grid"] = _keep_in_grid(changed["grid"], base_kind, field, budget)
    return replace(overridden, value={**overridden.children, "trials": replace(trials, value=changed)})


def _list_changed_kinds(document: Node, field: str) -> Iterator[Problem]:
    """Yield ablations, and values of an axis `lora`, of kinds without the size, which cannot state a budget too."""
    ablations, axis = _find(document, "ablations"), _find(document, "trials", "grid", "axes", "lora")
    places = (
        {f"the ablation `{name}`": node for name, node in ablations.children.items()} if ablations else {}
    )
    kinds = [(what, _find(node, "lora", "kind")) for what, node in places.items()]
    kinds += [("the axis `lora`", _find(node, "kind")) for node in (axis.items if axis is not None else ())]
    for what, kind in kinds:
        if kind is not None and _lacks(str(kind.value), field):
            yield Problem(
                str(kind.stated_at),
                field,
                f"`{field}` takes the place of `lora.budget`, and {what} has kind `{kind.value}`, which has no "
                f"{field.removeprefix('lora.')}; override `lora.budget` instead",
            )


def _lacks(kind: str, field: str) -> bool:
    """Whether a kind has sizes, but not this one."""
    own = SETTINGS.get(kind, ())
    return "budget" in own and field.removeprefix("lora.") not in own


def _find(node: Node, *trail: str) -> Node | None:
    found, followed = find_node(node, trail)
    return found if followed == len(trail) else None


def _read_budget(node: Node, *section: str) -> Node | None:
    """The budget of a variant, or of the defaults; None where there is none, or it is null."""
    found = _find(node, *section, "lora", "budget")
    return None if found is None or found.value is None else found


def _has_size(node: Node) -> bool:
    return any(_find(node, "lora", name) is not None for name in _SIZED)


def _keep_in_variant(variant: Node, base_kind: str, field: str, budget: Node | None) -> Node:
    kind = _find(variant, "lora", "kind")
    is_other = "external" in variant.children or _find(variant, "lora", "path") is not None
    if (
        budget is None
        or is_other
        or _has_size(variant)
        or not _lacks(str(kind.value) if kind is not None else base_kind, field)
    ):
        return variant
    return merge_nodes(variant, nest_node(("lora", "budget"), budget))


def _keep_in_grid(grid: Node, base_kind: str, field: str, budget: Node) -> Node:
    """The grid with the budget linked to the axis that gives the kind, else to the first one."""
    axes = _find(grid, "axes")
    if axes is None or not axes.children or any(f"lora.{name}" in axes.children for name in _SIZED):
        return grid
    axis = _KIND if _KIND in axes.children else next(iter(axes.children))
    values = axes.children[axis].items
    kinds = [str(value.value) if axis == _KIND else base_kind for value in values]
    if not any(_lacks(kind, field) for kind in kinds):
        return grid
    nothing = replace(budget, value=None)
    budgets = [budget if _lacks(kind, field) else nothing for kind in kinds]
    link = {"with": replace(budget, value=axis), "lora.budget": replace(budget, value=budgets)}
    zipped = _find(grid, "zip")
    others = [] if zipped is None else [zipped] if zipped.children else zipped.items
    links = replace(budget, value=[*others, replace(budget, value=link)])
    return replace(grid, value={**grid.children, "zip": links})
