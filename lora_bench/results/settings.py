"""Look-ups in a spec as a run has stored it, perhaps by an earlier version."""

from __future__ import annotations

from collections.abc import Mapping

from lora_bench.results.records import Settings


def read_section(settings: Settings | None, *names: str) -> Settings:
    """Return a section within sections; empty where it is absent or no mapping."""
    found = settings
    for name in names:
        inner = (found or {}).get(name)
        found = inner if isinstance(inner, Mapping) else None
    return found or {}


def read_text(settings: Settings | None, name: str) -> str | None:
    """Return a text; None where it is absent, empty or no text."""
    found = (settings or {}).get(name)
    return found if isinstance(found, str) and found else None
