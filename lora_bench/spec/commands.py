"""Commands that a spec names."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lora_bench.spec.schema import Section


class CommandSpec(Section):
    """An encoder that is a command: how to call it, and what it wants and returns."""

    run: Annotated[str, Field(min_length=1)]
    """The command, split as a shell does; no shell runs it."""
    dim: Annotated[int, Field(ge=1)]
    """Length of a vector."""
    sample_rate_hz: Annotated[int, Field(ge=1000, le=384_000)]
    """Rate of the clips that it gets."""
    version: str = ""
    """Part of the provenance: change it when the command's vectors change."""
