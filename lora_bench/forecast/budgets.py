"""The size of an adapter whose trainable parameters come nearest to a budget without exceeding it.

The size is the rank, or `block_size` of kind oft.  Kind lokr also needs a `factor` unless one is stated: its default
makes both Kronecker factors as equal as they can be, which bounds the parameters, so smaller factors follow where the
budget is larger.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from lora_bench.forecast.adapters import list_trainable, match_targets
from lora_bench.forecast.kinds import find_misfits, size_layer
from lora_bench.forecast.shapes import Linear, find_shape
from lora_bench.spec.budgets import spell_count
from lora_bench.spec.kinds import has_setting
from lora_bench.spec.schema import LoraSpec, ModelSpec

MAX_RANK = 1024
MAX_BLOCK = 1024
FACTORS = (16, 8, 4, 2)  # of kind lokr, in the order in which they are tried after the default


def fit_budget(lora: LoraSpec, model: ModelSpec) -> LoraSpec:
    """Return settings with the size that `lora.budget` leads to; a kind without a size stays as it is.

    Targets that match nothing stay, too: the plan says what is wrong with them.

    Raises:
        ValueError: the model's sizes are unknown here, or the budget is below the smallest size.
    """
    if lora.budget is None or not has_setting(lora.kind, "budget"):
        return lora
    budget = spell_count(lora.budget)
    shape = find_shape(model)
    if shape is None:
        raise ValueError(
            f"lora.budget {budget} leads to no size, because the sizes of model `{model.id}` are unknown: its "
            "config.json is not on this machine; download the model first, or state lora.rank"
        )
    matched, problem = match_targets(lora.targets, list_trainable(shape, lora))
    if problem is not None or not matched:
        return lora
    # layers of one shape are counted once
    alike = Counter(replace(each, name=f".{each.name.rpartition('.')[2]}") for each in matched)
    sized: list[tuple[int, LoraSpec]] = []
    for family in _list_families(lora, matched):
        found = [(_count_trained(each, alike), each) for each in family]
        sized += found
        if any(n > lora.budget for n, _ in found):
            break  # this factor reaches the budget
    affordable = [item for item in sized if item[0] <= lora.budget]
    if affordable:
        return max(affordable, key=itemgetter(0))[1]  # the first of equals, which is the smallest rank
    if not sized:
        name = "block_size" if lora.kind == "oft" else "rank"
        raise ValueError(
            f"lora.budget {budget} leads to no size: no {name} of kind `{lora.kind}` fits these targets of "
            f"`{model.id}`; choose other targets"
        )
    smallest = min(n for n, _ in sized)
    raise ValueError(
        f"lora.budget {budget} is below the smallest size of kind `{lora.kind}` on these targets of `{model.id}`, "
        f"which has {smallest:,} trainable parameters; raise the budget to {smallest} or more, or adapt fewer targets"
    )


def _list_families(lora: LoraSpec, matched: Sequence[Linear]) -> Iterator[list[LoraSpec]]:
    """Yield the sizes of a kind, ascending, and once per factor that lokr may take."""
    if lora.kind == "oft":
        common = math.gcd(*(linear.n_in for linear in matched))
        yield [_resize(lora, block_size=n) for n in range(2, MAX_BLOCK + 1) if common % n == 0]
        return
    factors = (None, *FACTORS) if lora.kind == "lokr" and lora.factor is None else (lora.factor,)
    for factor in factors:
        sizes = (_resize(lora, rank=rank, factor=factor) for rank in range(1, MAX_RANK + 1))
        yield [each for each in sizes if next(find_misfits(each, matched), None) is None]


def _resize(lora: LoraSpec, **size: Any) -> LoraSpec:
    return lora.model_copy(update=size)


def _count_trained(lora: LoraSpec, alike: Mapping[Linear, int]) -> int:
    """Return the trainable parameters on layers, given with the number of each shape."""
    return sum(n * size_layer(lora, linear).trained for linear, n in alike.items())
