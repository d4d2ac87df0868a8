"""Resolve LoRA targets of the spec to full module names, and count them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lora_bench.errors import NoModulesMatchedError
from lora_bench.spec.targets import (
    EXPANDED_TARGETS,
    GROUPS,
    OTHER_GROUPS,
    explain_unmatched,
    find_group,
    match_term,
    split_targets,
)


def count_by_group(names: Iterable[str]) -> dict[str, int]:
    """Count modules per group, in the order of `GROUPS`; groups without a module do not appear."""
    groups = [find_group(name) or "other" for name in names]
    return {group: groups.count(group) for group in (*GROUPS, *OTHER_GROUPS, "other") if group in groups}


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
        names: full names of the modules that the kind can train.

    Raises:
        NoModulesMatchedError: a term matches nothing; lists the existing modules.
    """
    matched: set[str] = set()
    for term in split_targets(targets):
        try:
            found = match_term(term, names) if term else []
        except re.error as error:
            raise NoModulesMatchedError(
                f"lora.targets: {term!r} is not a regular expression ({error}); correct it"
            ) from error
        if not found:
            hint = explain_unmatched(term, names, (*GROUPS, *EXPANDED_TARGETS))
            hint = hint or "; text encoder and codec are never adapted"
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
