"""Changes of a trial: dotted fields and their values, as variants, axes and ablations state them.

`lora: {rank: 4}` and `lora.rank: 4` say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lora_bench.spec.tree import RIVALS, WHOLE

Changes = dict[str, Any]


def flatten_mapping(mapping: Mapping[str, Any], prefix: str = "") -> Changes:
    """Dotted keys of nested mappings; lists, scalars and the fields of `WHOLE` are values."""
    flat: Changes = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value and f"{prefix}{key}" not in WHOLE:
            flat |= flatten_mapping(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def apply_changes(sections: dict[str, Any], changes: Iterable[tuple[str, Any]]) -> None:
    """Write dotted values into nested plain dictionaries, in order.

    A field undoes its rival: `dataset.path` and `dataset.builtin`, `lora.rank` and `lora.budget`.
    """
    for dotted, value in changes:
        *above, last = dotted.split(".")
        place = sections
        for part in above:
            inner = place.get(part)
            if not isinstance(inner, dict):
                inner = place[part] = {}
            place = inner
        rival = RIVALS.get((above[-1] if above else "", last))
        if rival is not None and value is not None:
            place.pop(rival, None)
        place[last] = value
