"""Words for LoRA targets, spelled out: which of them mean the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lora_bench.spec.words import find_near

PATTERN_PREFIX = "re:"
EXPANDED_TARGETS: dict[str, tuple[str, ...]] = {
    "attention": ("self_attention", "cross_attention"),
    "all": ("self_attention", "cross_attention", "ffn", "heads", "conditioning"),
}
"""Words that stand for several groups of modules."""


def spell_targets(targets: Any) -> Any:
    """Targets in one spelling: sums with their words expanded and ordered; patterns and lists as they are."""
    if not isinstance(targets, str) or targets.startswith(PATTERN_PREFIX):
        return targets
    words = [EXPANDED_TARGETS.get(word.strip(), (word.strip(),)) for word in targets.split("+")]
    return "+".join(sorted({word for group in words for word in group}))


def explain_unmatched(term: str, names: Sequence[str], groups: Sequence[str] = ()) -> str:
    """What may have been meant by a target that matches none of `names`; begins with `; ` or is empty."""
    pattern = term.removeprefix(PATTERN_PREFIX)
    try:
        compiled = re.compile(pattern)
    except re.error:
        compiled = None
    if term.startswith(PATTERN_PREFIX):
        if compiled is not None and any(compiled.search(name) for name in names):
            return f"; the expression must match the whole name, begin it with `.*`: `{PATTERN_PREFIX}.*{pattern}`"
        return "; the expression must match the whole name, begin it with `.*`"
    if compiled is not None and (n_found := sum(compiled.fullmatch(name) is not None for name in names)):
        return f"; a regular expression begins with `re:`: `re:{term}` matches {n_found} modules"
    parts = {part for name in names for part in name.split(".") if not part.isdigit()}
    near = find_near(term.rpartition(".")[2], [*groups, *sorted(parts)], 3)
    return f"; did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else ""
