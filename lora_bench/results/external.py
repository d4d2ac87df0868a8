"""The record of another system's clips in a trial's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from lora_bench.results.records import Count, Record, Settings


class ExternalRecord(Record):
    """`external.json` of a trial: where its clips come from, how many there are, what was done to them."""

    label: str
    """The folder's name, or the command."""
    n_planned: Count | None = None
    """Clips per prompt that are asked for."""
    n_clips: Mapping[str, Count] = {}
    """Clips by prompt; empty before they are there."""
    notes: tuple[str, ...] = ()
    """Files that were cut or brought to another format, in sentences."""
    key: str | None = None
    """Identity of the clips."""

    @property
    def lacking(self) -> dict[str, int]:
        """Prompts with fewer clips than asked for, and how many they have."""
        return {prompt: n for prompt, n in self.n_clips.items() if n < (self.n_planned or 0)}


def label_external(external: Settings) -> str:
    """Return how reports name a system, from the section `external` of a planned trial."""
    clips, command = external.get("clips"), external.get("command")
    if isinstance(command, list):
        return f"command {' '.join(PurePath(str(word)).name for word in command)}"
    return f"folder {PurePath(str(clips)).name}"
