"""A configuration: settings under a name, and the plain forms that it is compared and hashed by."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import JsonValue

from lora_bench.spec.changes import Changes
from lora_bench.spec.experiment import TrialSettings
from lora_bench.spec.external import ExternalSpec
from lora_bench.spec.lora import LoraSpec
from lora_bench.spec.schema import GenerationSpec, ModelSpec
from lora_bench.spec.section import Section
from lora_bench.spec.targets import spell_targets

SIZES = ("rank", "block_size")
"""Settings of an adapter that a budget leads to."""
FitBudget: TypeAlias = Callable[[LoraSpec, ModelSpec], LoraSpec]
"""Returns an adapter's settings with the size that its budget leads to on a model; its ValueError says why not."""
PlainSection = Mapping[str, JsonValue]
"""A section of a spec as JSON."""
EFFECT_FREE: Mapping[str, Collection[str]] = {
    "generation": {"n_clips", "batch_size"},
    "train": {"checkpoint_every"},
}
"""Fields that change neither an adapter nor a clip: how many clips, how many at once, how often a checkpoint is kept.

Trials that differ in these alone are one trial, which trains once and makes the larger number of clips.
"""


@dataclass
class Configuration:
    """Settings under a name.

    Attributes:
        changes: dotted fields in which it differs from the defaults, as stated.
        field: where the spec states it, for messages.
        identity: what it is compared by: plain sections with alpha filled in, targets spelled out and ordered.
            Configurations whose settings share a section share its plain form.
        stated: the settings before budgets led to sizes, and rates by kind to a rate.
        aliases: names of equal configurations that were merged into this one.
        merged_fields: fields of `EFFECT_FREE` in which those differed.
        cells: where it stands in the space that a search chooses from, as values by axis; several if
            combinations are equal, none outside of the space.
        is_wanted: whether the spec names it outside of that space, so that a search has to try it.
        external: another system, whose clips stand in for those of a fine-tuned model; None for a training.
    """

    name: str
    settings: TrialSettings
    changes: Changes
    field: str
    identity: Mapping[str, PlainSection]
    stated: TrialSettings
    aliases: list[str] = dataclasses.field(default_factory=list)
    merged_fields: list[str] = dataclasses.field(default_factory=list)
    cells: list[dict[str, str]] = dataclasses.field(default_factory=list)
    is_wanted: bool = False
    external: ExternalSpec | None = None

    @property
    def is_trained(self) -> bool:
        """Whether an adapter is trained for it: it is neither another system nor an adapter that exists already."""
        return self.external is None and self.settings.lora.is_trained


class SectionForms:
    """Plain forms of sections.

    A plan of many thousand trials shares most sections, and what is shared is written out once.

    Args:
        has_sizes: whether budgets have led to sizes, which then say everything.
    """

    def __init__(self, *, has_sizes: bool = False) -> None:
        self.has_sizes = has_sizes
        # each is kept with its section, under whose id it is
        self._known: dict[int, tuple[Section, PlainSection]] = {}

    def identify(
        self, settings: TrialSettings, external: ExternalSpec | None = None
    ) -> dict[str, PlainSection]:
        """What settings are compared by; not to be changed."""
        plain = {name: self._write(section) for name, section in settings}
        if external is not None:
            del plain["lora"], plain["train"]
            return {**plain, "external": self._write(external)}
        if not settings.lora.is_trained:
            del plain["train"]
        return plain

    def _write(self, section: Section) -> PlainSection:
        known = self._known.get(id(section))
        if known is not None:
            return known[1]
        if isinstance(section, LoraSpec) and section.is_trained:
            has_budget = section.budget is not None and self.has_sizes
            spelled = (section.model_copy(update={"budget": None}) if has_budget else section).spell()
            alpha = {"alpha": section.resolved_alpha} if "alpha" in spelled else {}
            targets = spell_targets(section.targets)
            plain: PlainSection = {**spelled, **alpha, "targets": targets}
            if spelled.get("budget") is not None:  # what it leads to is not known here
                chosen = {*SIZES, *(("alpha",) if section.alpha is None else ())}
                plain = {name: value for name, value in plain.items() if name not in chosen}
        elif isinstance(section, ExternalSpec):
            plain = section.identify()
        else:
            idle = section.idle if isinstance(section, GenerationSpec) else None
            plain = section.model_dump(mode="json", exclude=idle)
        self._known[id(section)] = (section, plain)
        return plain


class SectionTexts:
    """Canonical JSON of plain sections, each shared one written once.

    Args:
        skip: fields that are left out, by section.
    """

    def __init__(self, skip: Mapping[str, Collection[str]] | None = None) -> None:
        self.skip = skip or {}
        self._known: dict[tuple[str, int], tuple[PlainSection, str]] = {}

    def write(self, identity: Mapping[str, PlainSection]) -> str:
        """What `write_canonical` gives for the whole."""
        parts = [f'"{name}":{self._write_section(name, identity[name])}' for name in sorted(identity)]
        return f"{{{','.join(parts)}}}"

    def _write_section(self, name: str, plain: PlainSection) -> str:
        known = self._known.get((name, id(plain)))
        if known is None:
            skipped = self.skip.get(name, ())
            text = write_canonical({key: value for key, value in plain.items() if key not in skipped})
            known = self._known[name, id(plain)] = (plain, text)
        return known[1]


def write_canonical(plain: Any) -> str:
    """The one JSON text of a plain value."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
