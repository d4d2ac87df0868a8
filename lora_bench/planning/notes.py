"""Remarks of a plan: merged configurations, budgets without an effect, questions without an answer."""

from __future__ import annotations

from collections.abc import Sequence

from lora_bench.metrics import parse_metric
from lora_bench.metrics.names import MELODY_AGREEMENT, TAG_ADHERENCE
from lora_bench.metrics.prompt_tags import find_tags
from lora_bench.spec.configuration import Configuration
from lora_bench.spec.configurations import N_CLIPS
from lora_bench.spec.existing_adapters import FIELD, is_training_setting
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.spec.kinds import has_setting

MAX_NAMED = 6
MIN_CLIPS = {"mmd": 3}  # to leave one out, as of tracks; else 2


def describe_merged(item: Configuration) -> str:
    """Return the names of one configuration, and in what they differ without an effect."""
    names = ", ".join(f"`{name}`" for name in (item.name, *item.aliases))
    if not item.merged_fields:
        return f"{names} are one trial: their settings are equal"
    fields = " and ".join(f"`{name}`" for name in item.merged_fields)
    clips = (
        f", with {item.settings.generation.n_clips} clips per prompt" if N_CLIPS in item.merged_fields else ""
    )
    return (
        f"{names} are one trial{clips}: they differ only in {fields}, which changes neither adapter nor clips"
    )


def describe_unsized(configurations: Sequence[Configuration]) -> list[str]:
    """Return the configurations that a budget has no effect on."""
    names = [
        item.name
        for item in configurations
        if item.external is None
        and item.settings.lora.budget is not None
        and not has_setting(item.settings.lora.kind, "budget")
    ]
    return (
        [f"lora.budget has no effect on {', '.join(names)}: the kind has no size to choose"] if names else []
    )


def describe_untrained(configurations: Sequence[Configuration]) -> list[str]:
    """Return the settings of a training that trials of the base model alone state; they have no effect."""
    stated: dict[str, list[str]] = {}
    for item in configurations:
        for field in item.changes:
            if field == FIELD or is_training_setting(field):
                stated.setdefault(field, []).append(item.name)
    return [
        f"`{field}` of {_name_some(names)} has no effect: trials.zero_shot_only trains no adapter"
        for field, names in stated.items()
    ]


def _name_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def describe_unscored(spec: ExperimentSpec, configurations: Sequence[Configuration]) -> list[str]:
    """Return which metrics rate clips by what these are not asked for."""
    notes: list[str] = []
    if TAG_ADHERENCE in spec.metrics and not any(map(find_tags, spec.prompts)):
        notes.append(f"`{TAG_ADHERENCE}` will be unscored: no prompt names a tag of the tagger")
    made = [item for item in configurations if item.external is None]
    names = [item.name for item in made if item.settings.generation.melodies is None]
    if MELODY_AGREEMENT in spec.metrics and names:
        whose = "" if len(names) == len(made) else f" for {_name_some(names)}"
        notes.append(f"`{MELODY_AGREEMENT}` will be unscored{whose}: generation.melodies is not set")
    return notes


def describe_undecidable(spec: ExperimentSpec, configurations: Sequence[Configuration]) -> list[str]:
    """Return why no verdict can be reached."""
    notes: list[str] = []
    needed = MIN_CLIPS.get(parse_metric(spec.primary_metric).distance, 2)
    fewest = min((item.settings.generation.n_clips for item in configurations), default=needed)
    if fewest < needed:
        notes.append(
            f"{fewest} clips per prompt allow no verdict on `{spec.primary_metric}`: an interval needs at least "
            f"{needed}"
        )
    return notes
