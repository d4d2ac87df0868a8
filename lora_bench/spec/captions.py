"""The section `dataset.captions`."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from lora_bench.spec.caption_template import parse_template
from lora_bench.spec.section import WORDS, Prompt, Section, StatedPath, is_none

Measured = Literal["bpm", "key", "tags"]
MEASURED: tuple[Measured, ...] = ("bpm", "key", "tags")
FieldName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,39}$")]
# fields are excluded where they say nothing, so that finished runs from before them are still found


def _is_everything(value: object) -> bool:
    return value == list(MEASURED)


class CaptionSpec(Section):
    """The source of the training captions."""

    text: Prompt | None = None
    """One fixed caption for every track."""
    source: Literal["text", "sidecar", "metadata"] | None = None
    """`sidecar`: `song.txt` or `song.json` next to `song.wav`; `metadata`: csv files (`captions.csv`, with columns
    `file` and `caption`) and `metadata.jsonl` (`file_name` and `caption`, `text` or `description` per line) in any
    subfolder. Null is `text` if it is given, else any of the two that exists."""
    file: Annotated[StatedPath | None, Field(exclude_if=is_none)] = None
    """A csv or jsonl file of captions outside of the dataset's folder, such as one that `lora-bench captions` wrote; it
    is used instead of those in the folder. Its file names are relative to the dataset's folder."""
    template: Annotated[Prompt | None, Field(exclude_if=is_none)] = None
    """Text with fields, such as `{genre}, {mood}, {bpm:.0f} bpm, {key}, {instruments}`. A field comes from the first of
    these that has it: csv and metadata.jsonl, `song.json` and `song.txt`, `command`, tags in the file, folder names,
    measurements of the audio. A part between commas whose field is missing is left out; brackets limit what is left
    out, as in `{bpm:.0f} bpm[ in {key}]`."""
    alternatives: Annotated[list[Prompt], Field(exclude_if=operator.not_)] = []
    """More templates, which give more captions to each track: training takes one of a track's captions at random, for
    each slice of each step. Held-out loss uses `template`."""
    field_dropout: Annotated[float | None, Field(gt=0.0, lt=1.0, exclude_if=is_none)] = None
    """Probability with which each field of a template is left out of a caption in training. Each track gets up to eight
    captions of this kind, besides the whole one."""
    trigger: Annotated[Prompt | None, Field(exclude_if=is_none)] = None
    """A word in front of every caption, to call the trained style by. The field `{trigger}` puts it elsewhere."""
    folders: Annotated[list[FieldName], Field(exclude_if=operator.not_)] = []
    """Fields that the names of the folders give, the outermost first: with `[artist, album]`, `Ann/First/song.wav`
    has artist Ann and album First. `{folder}` is always the name of the innermost folder."""
    command: Annotated[Annotated[Prompt, WORDS] | None, Field(exclude_if=is_none)] = None
    """A program that describes a track: `{path}` stands for the file (at the end if it is left out). It prints a
    caption, or a JSON object of fields. It runs once per track and command, without a shell."""
    captioner: Annotated[Prompt | None, Field(exclude_if=is_none)] = None
    """A plug-in of another package that describes a track by its sound: a caption, or fields. It is asked once per
    track and settings, after `command`."""
    captioner_settings: Annotated[dict[str, Any], Field(exclude_if=operator.not_)] = Field(
        default_factory=dict
    )
    """Settings of the captioner."""
    measure: Annotated[list[Measured], Field(exclude_if=_is_everything)] = list(MEASURED)
    """Fields of the template that are measured where nothing else gives them: bpm and key (librosa), and tags, genre,
    mood and instruments (musicnn)."""

    @field_validator("template")
    @classmethod
    def _can_be_parsed(cls, value: str | None) -> str | None:
        if value is not None:
            parse_template(value)
        return value

    @field_validator("alternatives")
    @classmethod
    def _can_all_be_parsed(cls, value: list[str]) -> list[str]:
        for text in value:
            parse_template(text)
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> CaptionSpec:
        if self.text is not None and self.source in {"sidecar", "metadata"}:
            raise ValueError(
                f"`text` is given, but `source` is `{self.source}`, so the text would not be used; remove one "
                "of them"
            )
        for name in ("file", "template", "command", "captioner"):
            if self.text is not None and getattr(self, name) is not None:
                raise ValueError(
                    f"`text` is given, so `{name}` would not be used; remove one of them"
                    + (", or write the text into the template" if name == "template" else "")
                )
        if self.file is not None and self.source == "sidecar":
            raise ValueError("`file` is given, but `source` is `sidecar`; remove one of them")
        for name in ("alternatives", "field_dropout"):
            if getattr(self, name) and self.resolved_template is None:
                raise ValueError(
                    f"`{name}` varies the captions of `template`, which is missing; add it (`{{caption}}` is the "
                    f"caption as it is written), or remove `{name}`"
                )
        if self.captioner_settings and self.captioner is None:
            raise ValueError(
                "`captioner_settings` are those of `captioner`, which is missing; add it, or remove them"
            )
        if self.folders and self.template is None:
            raise ValueError(
                "`folders` gives fields to `template`, which is missing; add it, or remove `folders`"
            )
        return self

    @property
    def resolved_template(self) -> str | None:
        """The template; of a command or a captioner alone, its caption. None if captions are taken as written."""
        is_asked = self.command is not None or self.captioner is not None
        return self.template if self.template is not None or not is_asked else "{caption}"
