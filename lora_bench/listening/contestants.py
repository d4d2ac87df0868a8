"""The configurations of a listening test, and their clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from lora_bench.errors import UsageError
from lora_bench.metrics.names import is_higher_better
from lora_bench.report.view import Configuration, RunView
from lora_bench.slugs import prompt_slug
from lora_bench.spec.words import suggest

MAX_FINE_TUNED = 5

Cell: TypeAlias = tuple[str, int]
"""A prompt and a clip index."""


@dataclass(frozen=True)
class Contestant:
    """A configuration that is listened to.

    Attributes:
        clips: by trial (one per training seed), files by prompt and clip index; trials without clips are left out.
    """

    configuration: Configuration
    clips: Mapping[str, Mapping[Cell, Path]]

    @property
    def name(self) -> str:
        """The configuration's name."""
        return self.configuration.name


def choose_prompts(view: RunView, wanted: Sequence[str]) -> list[str]:
    """Return the prompts that were asked for; the genre's own by default, as in the run's pooled scores.

    Raises:
        UsageError: the run has no such prompt.
    """
    for text in wanted:
        if text not in view.prompts:
            shown = "; ".join(view.prompts[:6])
            raise UsageError(
                f"`{text}` is not a prompt of this run{suggest(text, view.prompts)}; prompts are {shown}"
            )
    own = [prompt for prompt in view.prompts if prompt not in view.results.planned.off_genre]
    return list(dict.fromkeys(wanted)) or own or view.prompts


def choose_contestants(
    view: RunView, wanted: Sequence[str], prompts: Sequence[str]
) -> tuple[list[Contestant], list[str]]:
    """Return zero-shot, and the fine-tuned configurations and other systems that are compared with it.

    Without names, configurations that are spread evenly over the ranking on the primary metric, so that the metric can
    be compared with people's preference.

    Returns:
        Zero-shot first; and notes on what was left out.

    Raises:
        UsageError: an unknown name, different base models, or no clips.
    """
    base, tuned = _find_named(view, wanted) if wanted else _find_all(view)
    notes: list[str] = []
    zero_shot = Contestant(base, _find_clips(view, base, prompts))
    found = [Contestant(item, _find_clips(view, item, prompts)) for item in tuned]
    silent = [item.name for item in (zero_shot, *found) if not item.clips]
    if not zero_shot.clips or (wanted and silent) or len(silent) == len(found):
        raise UsageError(
            f"{view.folder.path}: has no clips of {', '.join(silent) or 'fine-tuned configurations'}; finish the "
            "run, or choose others with --configuration"
        )
    if silent:
        notes.append(f"left out, because they have no clips: {', '.join(silent)}")
    found = [item for item in found if item.clips]
    if not wanted and len(found) > MAX_FINE_TUNED:
        found = _spread(view, found)
        notes.append(
            f"{len(found)} of {len(tuned)} configurations, from the best to the worst on {view.primary_metric}: "
            f"{', '.join(item.name for item in found)}; choose others with --configuration"
        )
    return [zero_shot, *found], notes


def _find_all(view: RunView) -> tuple[Configuration, list[Configuration]]:
    if view.zero_shot is None:
        raise UsageError(f"{view.folder.path}: has no zero-shot trial, which all others are compared with")
    return view.zero_shot, [item for item in view.rivals if view.base_of(item) is view.zero_shot]


def _find_named(view: RunView, wanted: Sequence[str]) -> tuple[Configuration, list[Configuration]]:
    known = {item.name: item for item in view.configurations}
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"`{name}` is not a configuration of this run{suggest(name, known)}; configurations are "
                f"{', '.join(list(known)[:12])}"
            )
    chosen = [known[name] for name in dict.fromkeys(wanted)]
    bases = [item if item.is_zero_shot else view.base_of(item) for item in chosen]
    base = bases[0]
    if base is None or any(item is not base for item in bases):
        raise UsageError(
            f"{', '.join(wanted)}: have different base models or data, so their clips are no pairs; choose "
            "configurations with the same zero-shot trial"
        )
    return base, [item for item in chosen if not item.is_zero_shot]


def _find_clips(
    view: RunView, configuration: Configuration, prompts: Sequence[str]
) -> dict[str, dict[Cell, Path]]:
    found: dict[str, dict[Cell, Path]] = {}
    for trial in configuration.trials:
        folder = view.folder.trial(trial.id).clips
        files = {
            (prompt, int(path.stem)): path
            for prompt in prompts
            for path in sorted((folder / prompt_slug(prompt)).glob("*.wav"))
            if path.stem.isdecimal()
        }
        if files:
            found[trial.id] = files
    return found


def _spread(view: RunView, found: Sequence[Contestant]) -> list[Contestant]:
    """Return the best, the worst, and others at equal steps between them."""
    metric = view.primary_metric or next(iter(view.metrics), "")
    sign = -1.0 if is_higher_better(metric) else 1.0

    def rank(item: Contestant) -> float:
        value = view.cell(item.configuration, metric, None).value
        return float("inf") if value is None else sign * value

    ranked = sorted(found, key=rank)
    last = len(ranked) - 1
    return [ranked[round(step * last / (MAX_FINE_TUNED - 1))] for step in range(MAX_FINE_TUNED)]
