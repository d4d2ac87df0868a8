"""Choice of the clips in a report, compressed so that they fit into the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from lora_bench.planning.run_folder import SourceFolder
from lora_bench.report.answer import Answer
from lora_bench.report.audio.copy_pairs import CopyPair, find_copy_pairs
from lora_bench.report.audio.players import FOLDER, SoundCache
from lora_bench.report.formatting import clean_text, shorten
from lora_bench.report.view import Configuration, RunView
from lora_bench.report.writers.document import Clip, Listening, Matrix, MatrixRow
from lora_bench.results.run_records import TrialResult
from lora_bench.slugs import prompt_slug

MAX_PROMPTS = 6
MAX_FINE_TUNED = 3
MAX_SYSTEMS = 2
N_INDICES = 2
BUDGET_BYTES = 11_000_000  # of text in the page; the rest of its 15 MB is for tables and plots
QUIET_SHARE = 0.1  # clips that stay below the common loudness: a page can lower a clip, not raise it
AUDIBLE_LUFS = -60.0
REFERENCE, CODED = "reference", "reference after the codec"


@dataclass
class Sounds:
    """The cache of players, and the bytes of page that are left for them."""

    cache: SoundCache
    left: int = field(default_factory=lambda: BUDGET_BYTES)
    levels_lufs: dict[str, float] = field(default_factory=dict[str, float])
    """Loudness by sound."""

    def gain(self, sound: str) -> float:
        """Return the factor that lowers a sound to the loudness that most of them reach."""
        audible = sorted(level for level in self.levels_lufs.values() if level > AUDIBLE_LUFS)
        if not audible:
            return 1.0
        target = audible[int(QUIET_SHARE * (len(audible) - 1))]
        return round(min(1.0, 10.0 ** ((target - self.levels_lufs[sound]) / 20.0)), 3)


@dataclass(frozen=True)
class Heard:
    """Clips that a report plays.

    Attributes:
        matrices: prompts by voices, one per base model.
        pairs: generated clips, each with the training passage that it resembles most.
    """

    matrices: tuple[Matrix, ...]
    pairs: tuple[Listening, ...] = ()

    @property
    def matrix(self) -> Matrix | None:
        """The first base model's."""
        return next(iter(self.matrices), None)


def choose_listening(view: RunView, report_folder: Path, *, with_recordings: bool = True) -> Heard:
    """Choose zero-shot and the best configurations side by side, for the first prompts and clip indices.

    The first clip of every prompt comes before the second of any, so that each prompt is heard before the
    page is full; what does not fit is linked.

    Args:
        view: the run.
        report_folder: where the page will lie; links are relative to it.
        with_recordings: play excerpts of references and of training tracks, and clips of other systems, too.
    """
    sounds = Sounds(SoundCache(view.folder.path / FOLDER))
    bases = [item for item in view.configurations if item.is_zero_shot] or [None]
    made = (
        _make_matrix(view, base, report_folder, sounds, with_recordings=with_recordings) for base in bases
    )
    matrices = [matrix for matrix in made if matrix is not None]
    found = find_copy_pairs(view) if with_recordings else []
    pairs = [_make_pair(pair, report_folder, sounds) for pair in found]
    if with_recordings:
        sounds.cache.prune()
    return Heard(tuple(_match_loudness(matrix, sounds) for matrix in matrices), tuple(pairs))


def _make_matrix(
    view: RunView, base: Configuration | None, report_folder: Path, sounds: Sounds, *, with_recordings: bool
) -> Matrix | None:
    """Return the clips of one base model and its best configurations; None if there is not one clip."""
    voices = [
        trial
        for item in _choose_configurations(view, base)
        if (with_recordings or item.external is None) and (trial := _first_with_clips(view, item))
    ]
    source = _find_source(view, base)
    references = sorted(source.reference_clips.glob("*.wav")) if with_recordings else []
    tracks = view.track_sources
    rows: list[MatrixRow] = []
    for index in range(N_INDICES):
        for place, prompt in enumerate(view.prompts[:MAX_PROMPTS]):
            files = [(view.name_trial(trial.id), _find_clip(view, trial, prompt, index)) for trial in voices]
            if not any(path for _, path in files):
                continue
            if references:
                reference = references[(index * MAX_PROMPTS + place) % len(references)]
                name = _name_reference(reference, tracks)
                files.append((f"{REFERENCE}: {name}", reference))
                coded = source.coded_reference_clips / reference.name
                files.append((f"{CODED}: {name}", coded if coded.is_file() else None))
            clips = tuple(
                None if path is None else _make_clip(name, path, report_folder, sounds)
                for name, path in files
            )
            rows.append(MatrixRow(f"{shorten(prompt, 90)}", clean_text(prompt), index, clips))
    names = [view.name_trial(trial.id) for trial in voices] + [REFERENCE, CODED] * bool(references)
    kept = [place for place in range(len(names)) if any(row.clips[place] for row in rows)]
    if not rows:
        return None
    order = {row.hint: place for place, row in reversed(list(enumerate(rows)))}
    rows.sort(key=lambda row: order[row.hint])  # by prompt, then clip index
    return Matrix(
        tuple(names[place] for place in kept),
        tuple(replace(row, clips=tuple(row.clips[place] for place in kept)) for row in rows),
    )


def _match_loudness(matrix: Matrix, sounds: Sounds) -> Matrix:
    def match(clip: Clip | None) -> Clip | None:
        return clip if clip is None or clip.sound is None else replace(clip, gain=sounds.gain(clip.sound))

    return replace(
        matrix, rows=tuple(replace(row, clips=tuple(map(match, row.clips))) for row in matrix.rows)
    )


def _find_source(view: RunView, base: Configuration | None) -> SourceFolder:
    """Return the folder of the base model's source."""
    for source, folder in zip(view.results.sources, view.source_folders, strict=False):
        if base is not None and base.trials[0].id in source.trial_ids:
            return folder
    return view.source_folders[0]


def _name_reference(path: Path, sources: dict[str, str]) -> str:
    """Return the file that an excerpt was cut from; its own name where the dataset does not say."""
    return shorten(sources.get(path.stem.rpartition("-")[0], path.stem), 40)


def _choose_configurations(view: RunView, base: Configuration | None) -> Iterator[Configuration]:
    """Yield the base model, what comes first in the answer of those trained from it, and other systems."""
    if base is not None:
        yield base
    tuned = [item for item in view.fine_tuned if view.base_of(item) == base]
    best = [row.configuration for row in Answer(view).rows if row.configuration in tuned][:MAX_FINE_TUNED]
    yield from (item for item in tuned if item in best)
    yield from [item for item in view.systems if view.base_of(item) == base][:MAX_SYSTEMS]


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
    sounds.levels_lufs[embedded.sound] = embedded.level_lufs
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
