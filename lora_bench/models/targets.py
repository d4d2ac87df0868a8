"""Resolve LoRA targets of the spec to full module names, and count them.

PEFT matches suffixes, so that `q_proj` means self- and cross-attention alike, and a name without a match goes unnoticed
next to one with a match.  Here each term is resolved and counted separately.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lora_bench.errors import NoModulesMatchedError
from lora_bench.spec.targets import PATTERN_PREFIX, explain_unmatched

GROUPS: dict[str, re.Pattern[str]] = {
    "self_attention": re.compile(r"(^|\.)self_attn\.(q|k|v|out)_proj$"),
    "cross_attention": re.compile(r"(^|\.)encoder_attn\.(q|k|v|out)_proj$"),
    "ffn": re.compile(r"(^|\.)fc[12]$"),
    "heads": re.compile(r"(^|\.)lm_heads\.\d+$"),
    "conditioning": re.compile(r"(^|\.)enc_to_dec_proj$"),
}
"""Disjoint groups of a MusicGen decoder's linear layers, by name."""

SUMS: dict[str, tuple[str, ...]] = {
    "attention": ("self_attention", "cross_attention"),
    "all": tuple(GROUPS),
}
"""Words that stand for several groups."""


def find_group(name: str) -> str | None:
    """Return the group of a module; None if it has none."""
    return next((group for group, pattern in GROUPS.items() if pattern.search(name)), None)


def count_by_group(names: Iterable[str]) -> dict[str, int]:
    """Count modules per group, in the order of `GROUPS`; groups without a module do not appear."""
    groups = [find_group(name) or "other" for name in names]
    return {group: groups.count(group) for group in (*GROUPS, "other") if group in groups}


def split_targets(targets: str | Sequence[str]) -> tuple[str, ...]:
    """Return the terms of a target: the list as it is, one pattern, or the terms of a sum."""
    if not isinstance(targets, str):
        return tuple(targets)
    if targets.startswith(PATTERN_PREFIX):
        return (targets,)
    return tuple(term.strip() for term in targets.split("+"))


def _match_term(term: str, names: Sequence[str]) -> list[str]:
    if term.startswith(PATTERN_PREFIX):
        try:
            pattern = re.compile(term.removeprefix(PATTERN_PREFIX))
        except re.error as error:
            raise NoModulesMatchedError(
                f"lora.targets: {term!r} is not a regular expression ({error}); correct it"
            ) from error
        return [name for name in names if pattern.fullmatch(name)]
    groups = SUMS.get(term, (term,) if term in GROUPS else ())
    if groups:
        return [name for name in names if find_group(name) in groups]
    return [name for name in names if f".{term}." in f".{name}."]


def _describe(names: Sequence[str]) -> str:
    counts = ", ".join(f"{group} ({n})" for group, n in count_by_group(names).items())
    # one line per kind of module: the layer's number says nothing here
    kinds = dict.fromkeys(re.sub(r"\.layers\.\d+\.", ".layers.*.", name) for name in names)
    return f"Groups of this model: {counts}. Modules: {', '.join(kinds)}"


def resolve_targets(targets: str | Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return the full names of the modules that `targets` selects, in the order of `names`.

    Args:
        targets: a group, a sum of groups (`attention+ffn`), a list of groups or module names (a name matches if its
            dotted parts appear in a full name: `q_proj`, `self_attn.q_proj`, `layers.0`), or `re:` and an expression
            that must match the whole name.
        names: full names of the adaptable modules.

    Raises:
        NoModulesMatchedError: a term matches nothing; lists the existing modules.
    """
    terms = split_targets(targets)
    matched: set[str] = set()
    for term in terms:
        found = _match_term(term, names) if term else []
        if not found:
            hint = (
                explain_unmatched(term, names, (*GROUPS, *SUMS))
                or "; text encoder and codec are never adapted"
            )
            raise NoModulesMatchedError(
                f"lora.targets: {term!r} matches no module of the decoder, expected at least one{hint}. "
                f"{_describe(names)}"
            )
        matched.update(found)
    if not matched:
        raise NoModulesMatchedError(
            f"lora.targets is empty, expected at least one target. {_describe(names)}"
        )
    return tuple(name for name in names if name in matched)
