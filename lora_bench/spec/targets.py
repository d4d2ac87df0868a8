"""Words for LoRA targets, spelled out: which of them mean the same."""

from __future__ import annotations

from typing import Any

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
