"""Near misses: what somebody may have meant."""

from __future__ import annotations

from collections.abc import Iterable


def find_near(word: str, known: Iterable[str], n: int = 1) -> list[str]:
    """At most `n` of `known` that look like `word`, the nearest first."""
    import difflib

    folded = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    wanted = word[:200].lower().replace("-", "_")
    return [folded[key] for key in difflib.get_close_matches(wanted, folded, n=n, cutoff=0.6)]


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` or nothing."""
    near = find_near(word, known)
    return f"; did you mean `{near[0]}`?" if near else ""
