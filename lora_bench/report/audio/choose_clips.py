"""Choice of the clips in a report, compressed so that they fit into the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from lora_bench.report.audio.copy_pairs import CopyPair, find_copy_pairs
from lora_bench.report.audio.players import FOLDER, SoundCache
from lora_bench.report.formatting import clean_text, shorten
from lora_bench.report.view import Configuration, RunView, is_higher_better
from lora_bench.report.writers.document import Clip, Listening
from lora_bench.results.run_records import TrialResult
from lora_bench.slugs import prompt_slug

MAX_PROMPTS = 6
MAX_FINE_TUNED = 3
N_INDICES = 2
BUDGET_BYTES = 15_000_000  # of text in the page; the rest of its 20 MB is for tables and plots


@dataclass
class Sounds:
    """The cache of players, and the bytes of page that are left for them."""

    cache: SoundCache
    left: int = field(default_factory=lambda: BUDGET_BYTES)


@dataclass(frozen=True)
class Heard:
    """Clips that a report plays.

    Attributes:
        groups: the same prompt and noise through the base model and configurations.
        pairs: generated clips, each with the training passage that it resembles most.
    """

    groups: tuple[Listening, ...]
    pairs: tuple[Listening, ...] = ()


def choose_listening(view: RunView, report_folder: Path) -> Heard:
    """Choose zero-shot and the best configurations side by side, for the first prompts and clip indices.

    The first clip of every prompt comes before the second of any, so that each prompt is heard before the
    page is full; what does not fit is linked.

    Args:
        view: the run.
        report_folder: where the page will lie; links are relative to it.

    Returns:
        Groups prompt by prompt, groups without a single clip left out; and memorisation pairs.
    """
    sounds = Sounds(SoundCache(view.folder.path / FOLDER))
    groups = _choose_groups(view, report_folder, sounds)
    pairs = [_make_pair(pair, report_folder, sounds) for pair in find_copy_pairs(view)]
    sounds.cache.prune()
    return Heard(tuple(groups), tuple(pairs))


def _choose_groups(view: RunView, report_folder: Path, sounds: Sounds) -> list[Listening]:
    bases = [item for item in view.configurations if item.is_zero_shot] or [None]
    groups: list[tuple[int, int, int, Listening]] = []
    for number, base in enumerate(bases):
        for place, index, group in _listen_to(view, base, report_folder, sounds):
            groups.append((number, place, index, group))
    return [group for *_, group in sorted(groups, key=lambda item: item[:3])]


def _listen_to(
    view: RunView, base: Configuration | None, report_folder: Path, sounds: Sounds
) -> Iterator[tuple[int, int, Listening]]:
    """Clips of one base model and its configurations: prompt's place, clip index, group."""
    references = _list_references(view, base)
    sources = view.track_sources
    chosen = _choose_configurations(view, base)
    voices = [trial for item in chosen if (trial := _first_with_clips(view, item))]
    for index in range(N_INDICES):
        for place, prompt in enumerate(view.prompts[:MAX_PROMPTS]):
            files = [(view.name_trial(trial.id), _find_clip(view, trial, prompt, index)) for trial in voices]
            found = [(name, path) for name, path in files if path is not None]
            if not found:
                continue
            if references:
                reference = references[(index * MAX_PROMPTS + place) % len(references)]
                found.append((f"reference: {_name_reference(reference, sources)}", reference))
            clips = tuple(_make_clip(name, path, report_folder, sounds) for name, path in found)
            yield place, index, Listening(f"{shorten(prompt, 90)}, clip {index}", clean_text(prompt), clips)


def _list_references(view: RunView, base: Configuration | None) -> list[Path]:
    """Return excerpts of the held-out tracks that the base model's source has."""
    found = view.source_folders[0]
    for source, folder in zip(view.results.sources, view.source_folders, strict=False):
        if base is not None and base.trials[0].id in source.trial_ids:
            found = folder
            break
    return sorted(found.reference_clips.glob("*.wav"))


def _name_reference(path: Path, sources: dict[str, str]) -> str:
    """Return the file that an excerpt was cut from; its own name where the dataset does not say."""
    return shorten(sources.get(path.stem.rpartition("-")[0], path.stem), 40)


def _choose_configurations(view: RunView, base: Configuration | None) -> Iterator[Configuration]:
    """Yield the base model, then the best trained from it on the first metric over all prompts, in the plan's order."""
    if base is not None:
        yield base
    tuned = [item for item in view.fine_tuned if view.base_of(item) == base]
    metric = view.metrics[0] if view.metrics else ""
    sign = -1.0 if is_higher_better(metric) else 1.0

    def rank(item: Configuration) -> float:
        value = view.cell(item, metric, None).value
        return float("inf") if value is None else sign * value

    best = sorted(tuned, key=rank)[:MAX_FINE_TUNED]
    yield from (item for item in tuned if item in best)


def _first_with_clips(view: RunView, configuration: Configuration) -> TrialResult | None:
    return next((trial for trial in configuration.trials if view.folder.trial(trial.id).clips.is_dir()), None)


def _find_clip(view: RunView, trial: TrialResult, prompt: str, index: int) -> Path | None:
    folder = view.folder.trial(trial.id).clips / prompt_slug(prompt)
    return next(
        (path for path in sorted(folder.glob("*.wav")) if path.stem.isdigit() and int(path.stem) == index),
        None,
    )


def _make_clip(label: str, path: Path, report_folder: Path, sounds: Sounds) -> Clip:
    """Return a clip with sound and picture if they fit, else a link."""
    href = quote(Path(os.path.relpath(path, report_folder)).as_posix())
    embedded = sounds.cache.embed(path)
    if embedded is None:
        return Clip(f"{label} (damaged file)", href, None, None)
    if not embedded.sound or embedded.n_bytes > sounds.left:
        return Clip(label, href, None, None)
    sounds.left -= embedded.n_bytes
    return Clip(label, href, embedded.sound, embedded.picture)


def _make_pair(pair: CopyPair, report_folder: Path, sounds: Sounds) -> Listening:
    """Return a generated clip with the training passage, while the prepared audio is there."""
    clips = [_make_clip(pair.trial, pair.clip, report_folder, sounds)]
    label = f"training: {shorten(pair.source, 40)} at {pair.at_s:.1f} s"
    embedded = sounds.cache.embed_bytes(pair.passage) if pair.passage is not None else None
    if embedded is not None and embedded.sound and embedded.n_bytes <= sounds.left:
        sounds.left -= embedded.n_bytes
        clips.append(Clip(label, "", embedded.sound, embedded.picture))
    else:
        clips.append(Clip(label, None, None, None))
    return Listening(pair.title, pair.title, tuple(clips))
