"""Commands that a spec names."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lora_bench.spec.section import WORDS, Section


class CommandSpec(Section):
    """An encoder that is a command: how to call it, and what it wants and returns."""

    run: Annotated[str, Field(min_length=1), WORDS]
    """The command, split as a shell does; no shell runs it."""
    dim: Annotated[int, Field(ge=1)]
    """Length of a vector."""
    sample_rate_hz: Annotated[int, Field(ge=1000, le=384_000)]
    """Rate of the clips that it gets."""
    timeout_s: Annotated[float | None, Field(gt=0.0, exclude=True)] = None
    """Seconds after which a call is stopped with everything that it started; null waits."""
    version: str = ""
    """Part of the provenance: change it when the command's vectors change."""
