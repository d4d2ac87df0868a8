"""LoRA targets: the groups of a MusicGen's modules, what a target matches, and which of them mean the same.

PEFT matches suffixes, so that `q_proj` means self- and cross-attention alike, and a name without a match goes unnoticed
next to one with a match.  Here each term is resolved and counted separately.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lora_bench.spec.words import find_near

PATTERN_PREFIX = "re:"
GROUPS: dict[str, re.Pattern[str]] = {
    "self_attention": re.compile(r"(^|\.)self_attn\.(q|k|v|out)_proj$"),
    "cross_attention": re.compile(r"(^|\.)encoder_attn\.(q|k|v|out)_proj$"),
    "ffn": re.compile(r"(^|\.)fc[12]$"),
    "heads": re.compile(r"(^|\.)lm_heads\.\d+$"),
    "conditioning": re.compile(r"(^|\.)enc_to_dec_proj$"),
}
"""Disjoint groups of a MusicGen decoder's linear layers, by name."""
OTHER_GROUPS: dict[str, re.Pattern[str]] = {
    "norms": re.compile(r"(^|\.)(\w+_)?layer_norm$"),
    "embeddings": re.compile(r"(^|\.)embed_tokens\.\d+$"),
}
"""Disjoint groups of its other modules with weights."""
EXPANDED_TARGETS: dict[str, tuple[str, ...]] = {
    "attention": ("self_attention", "cross_attention"),
    "all": tuple(GROUPS),
    "decoder": (*GROUPS, *OTHER_GROUPS),
}
"""Words that stand for several groups of modules."""
AUDIOCRAFT_STEMS = ("transformer.layers.", "linears.", "condition_provider.")
"""Beginnings of the names of a decoder's modules in audiocraft."""
UNADAPTABLE = (*OTHER_GROUPS, "decoder")
"""Words for modules that are no linear layers, which only full fine-tuning takes."""


def find_group(name: str) -> str | None:
    """Return the group of a module; None if it has none."""
    known = {**GROUPS, **OTHER_GROUPS}
    return next((group for group, pattern in known.items() if pattern.search(name)), None)


def split_targets(targets: str | Sequence[str]) -> tuple[str, ...]:
    """Return the terms of a target: the list as it is, one pattern, or the terms of a sum."""
    if not isinstance(targets, str):
        return tuple(targets)
    if targets.startswith(PATTERN_PREFIX):
        return (targets,)
    return tuple(term.strip() for term in targets.split("+"))


def match_term(term: str, names: Sequence[str]) -> list[str]:
    """Return the modules of a group or of a sum, those whose whole name a pattern matches, or with dotted parts `term`.

    Raises:
        re.error: the pattern is no regular expression.
    """
    if term.startswith(PATTERN_PREFIX):
        pattern = re.compile(term.removeprefix(PATTERN_PREFIX))
        return [name for name in names if pattern.fullmatch(name)]
    groups = EXPANDED_TARGETS.get(term, (term,) if term in {*GROUPS, *OTHER_GROUPS} else ())
    if groups:
        return [name for name in names if find_group(name) in groups]
    return [name for name in names if f".{term}." in f".{name}."]


def spell_targets(targets: Any) -> Any:
    """Targets in one spelling: sums with their words expanded and ordered; patterns and lists as they are."""
    if not isinstance(targets, str) or targets.startswith(PATTERN_PREFIX):
        return targets
    words = [EXPANDED_TARGETS.get(word.strip(), (word.strip(),)) for word in targets.split("+")]
    return "+".join(sorted({word for group in words for word in group}))


def explain_unmatched(term: str, names: Sequence[str], groups: Sequence[str] = ()) -> str:
    """What may have been meant by a target that matches none of `names`; begins with `; ` or is empty."""
    pattern = term.removeprefix(PATTERN_PREFIX)
    is_cross = term == "cross_attention" or "encoder_attn" in term
    if is_cross and not any("encoder_attn" in name for name in names):
        return (
            "; a melody model has no cross-attention, because its text is part of the decoder's input: use "
            "`self_attention`"
        )
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
