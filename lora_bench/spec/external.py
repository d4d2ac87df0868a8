"""The section `external` of a variant: clips of another system, as files or from a command."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from lora_bench.spec.section import Section, StatedPath, is_none

ALLOWED_CHANGES = ("dataset", "generation.n_clips", "generation.clip_s")
"""Fields that a variant with `external` may change."""
_OF_COMMAND = ("per", "settings", "timeout_s", "files", "version")


def _is_per_prompt(value: object) -> bool:
    return value == "prompt"


class ExternalSpec(Section):
    """Another system: a folder with its clips, or the command that generates them."""

    clips: Annotated[StatedPath | None, Field(exclude_if=is_none)] = None
    """Folder of audio files: one subfolder per prompt named by its slug, files that begin with the slug, or a
    `prompts.csv` or `metadata.jsonl` that names the prompt of each file; never written to."""
    command: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None, Field(min_length=1, exclude_if=is_none)
    ] = None
    """Program and arguments, such as `[python, my_generator.py]`; it gets the name of a JSON file as its last argument
    and writes the clips that this file asks for. Files next to the spec are found from there."""
    per: Annotated[Literal["prompt", "run"], Field(exclude_if=_is_per_prompt)] = "prompt"
    """Call the command once per prompt, or once for all prompts, which loads its model only once."""
    settings: Annotated[dict[str, JsonValue], Field(exclude_if=operator.not_)] = Field(
        default_factory=dict[str, JsonValue]
    )
    """Settings that the command gets in its request."""
    timeout_s: Annotated[float | None, Field(gt=0.0, exclude_if=is_none)] = None
    """Seconds after which a call of the command is stopped with everything that it started; null waits."""
    files: Annotated[list[StatedPath], Field(exclude_if=operator.not_)] = Field(default_factory=list[Path])
    """Files that the command's clips depend on, in addition to those in `command`: clips are generated again when the
    content of one changes."""
    version: Annotated[str, Field(exclude_if=operator.not_)] = ""
    """Part of the identity: change it when the command's clips change."""

    @model_validator(mode="after")
    def _one_source(self) -> ExternalSpec:
        if (self.clips is None) == (self.command is None):
            given = "neither" if self.clips is None else "both"
            raise ValueError(
                "give one of `clips` (a folder of audio) and `command` (a program that writes clips), got "
                + given
            )
        foreign = [name for name in _OF_COMMAND if name in self.model_fields_set]
        if self.clips is not None and foreign:
            raise ValueError(
                f"`{foreign[0]}` is a setting of `command`, but `clips` is given; remove it, or give `command`"
            )
        return self

    def identify(self) -> dict[str, Any]:
        """Return what the clips depend on, as JSON: not how often and how long the command is called."""
        return self.model_dump(mode="json", exclude={"per", "timeout_s"})

    @property
    def paths(self) -> list[Path]:
        """The folder, or the absolute paths of the command and the files that it depends on."""
        stated = [] if self.clips is None else [self.clips]
        words = (Path(word) for word in self.command or ())
        return [*stated, *(word for word in words if word.is_absolute()), *self.files]


def find_foreign_change(changes: Any) -> str | None:
    """Return why a change has no effect on another system's clips; None if all have one."""
    for dotted in changes:
        if not any(dotted == name or dotted.startswith(f"{name}.") for name in ALLOWED_CHANGES):
            return (
                f"`{dotted}` has no effect on the clips of another system; a variant with `external` may change "
                f"{', '.join(ALLOWED_CHANGES[:-1])} and {ALLOWED_CHANGES[-1]}"
            )
    return None
