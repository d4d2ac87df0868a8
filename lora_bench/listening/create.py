"""The page of a listening test from the clips of a run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from lora_bench.errors import AudioFileError, UsageError
from lora_bench.listening.contestants import Contestant, choose_contestants, choose_prompts
from lora_bench.listening.loudness import choose_gains, damage_sound, measure_loudness
from lora_bench.listening.page import write_page
from lora_bench.listening.pairs import draw_checks, draw_pairs
from lora_bench.listening.study import Pair, PairSide, Study, build_study, read_or_make_key, write_key
from lora_bench.planning.run_folder import RunFolder
from lora_bench.report.audio.players import embed_sound
from lora_bench.report.view import RunView
from lora_bench.results.gather import gather_results
from lora_bench.results.reading import expect_form
from lora_bench.results.settings import read_section
from lora_bench.spec.schema import ListeningSpec
from lora_bench.store import write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_EXAMPLES = 3


@dataclass(frozen=True)
class Wishes:
    """Choices of a listening test; what is not given is that of the run's spec."""

    n_pairs: int | None = None
    seed: int | None = None
    configurations: Sequence[str] = ()
    prompts: Sequence[str] = ()


@dataclass(frozen=True)
class WrittenPage:
    """A page, and notes on what differs from what was asked for."""

    path: Path
    study: Study
    notes: tuple[str, ...]


def write_study(run: Path, wishes: Wishes, path: Path | None = None) -> WrittenPage:
    """Write the page of a listening test, and its key into the run's folder.

    Args:
        run: the folder of a run with clips.
        wishes: number of pairs, seed, configurations and prompts.
        path: file of the page; by default in the run's folder.

    Raises:
        UsageError: unknown configurations or prompts, or no clips to compare.
        AudioFileError: a clip is damaged.
        StoreError: the folder holds no run, or the disk is full.
    """
    view = RunView(gather_results(run), run)
    spec = read_spec(view)
    seed = spec.seed if wishes.seed is None else wishes.seed
    n_pairs = spec.n_pairs if wishes.n_pairs is None else wishes.n_pairs
    chance = random.Random(seed)
    contestants, notes = choose_contestants(view, wishes.configurations, choose_prompts(view, wishes.prompts))
    pairs = draw_pairs(contestants, n_pairs, chance)
    if not pairs:
        raise UsageError(f"{run}: its configurations have no clips with the same prompt and clip index")
    if len(pairs) < n_pairs:
        notes.append(f"{len(pairs)} pairs instead of {n_pairs}, because the run has no more clips in pairs")
    checks = draw_checks(contestants, len(pairs), chance, _is_audible)
    if not checks:
        notes.append("no attention checks, because all clips are silent")
    examples = list(_read_examples(view, contestants[0], chance)) if "fits_genre" in spec.questions else []
    questions = [name for name in spec.questions if name != "fits_genre" or examples]
    if not questions:
        raise UsageError(f"{run}: has no reference clips, without which `fits_genre` cannot be asked")
    if len(questions) < len(spec.questions):
        notes.append("`fits_genre` is not asked, because the run has no reference clips")
    key = read_or_make_key(run)
    study = build_study(key, [*pairs, *checks], questions, seed, contestants[0].name)
    table = _embed_pairs(study.pairs, contestants)
    target = RunFolder(run).listening_page if path is None else path
    write_key(run, key.add(study))  # first: a page without a key could not be evaluated
    write_text(target, write_page(study, table.sounds, table.places, examples))
    return WrittenPage(target, study, tuple(notes))


def read_spec(view: RunView) -> ListeningSpec:
    """Return the section of the run's spec; the defaults for a run from before there was one.

    Raises:
        StoreError: the section of the stored spec does not fit.
    """
    with expect_form(view.folder.plan):
        return ListeningSpec.model_validate(dict(read_section(view.spec, "report", "listening")))


@dataclass
class _SoundTable:
    """Sounds of a page, each once, and the places of each pair's sides in it."""

    sounds: list[str] = field(default_factory=list[str])
    places: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def add(self, sound: str) -> int:
        if sound not in self.sounds:
            self.sounds.append(sound)
        return self.sounds.index(sound)


def _embed_pairs(pairs: Sequence[Pair], contestants: Sequence[Contestant]) -> _SoundTable:
    clips = {trial: files for item in contestants for trial, files in item.clips.items()}

    def read(pair: Pair, side: PairSide) -> tuple[NDArray[np.float32], int]:
        audio, rate_hz = read_clip(clips[side.trial][pair.prompt, pair.clip_index])
        return (damage_sound(audio, rate_hz) if side.is_damaged else audio), rate_hz

    table = _SoundTable()
    for pair in pairs:
        (first, rate_hz), (second, other_hz) = (read(pair, side) for side in pair.sides)
        gains = choose_gains([first, second], rate_hz)
        table.places.append(
            (table.add(embed_sound(first * gains[0], rate_hz)), table.add(embed_sound(second * gains[1], other_hz)))
        )  # fmt: skip
    return table


def read_clip(path: Path) -> tuple[NDArray[np.float32], int]:
    """Return the samples [S, C] of a clip and its rate.

    Raises:
        AudioFileError: the file is damaged.
    """
    try:
        audio, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioFileError(
            str(path), f"cannot be read ({error}); resume the run to make it again"
        ) from error
    return np.asarray(audio, dtype=np.float32), rate_hz


def _is_audible(path: Path) -> bool:
    audio, rate_hz = read_clip(path)
    return np.isfinite(measure_loudness(audio, rate_hz)).item()


def _read_examples(view: RunView, zero_shot: Contestant, chance: random.Random) -> Iterator[str]:
    """Yield held-out recordings of zero-shot's source, from different tracks where there are enough."""
    ids = {trial.id for trial in zero_shot.configuration.trials}
    folders = [
        view.folder.source(Path(item.folder)) for item in view.results.sources if ids & {*item.trial_ids}
    ]
    files = sorted((folders or view.source_folders)[0].reference_clips.glob("*.wav"))
    chance.shuffle(files)
    by_track = {path.stem.rpartition("-")[0]: path for path in reversed(files)}
    ranked = sorted(files, key=lambda path: path not in by_track.values())
    for path in ranked[:N_EXAMPLES]:
        audio, rate_hz = read_clip(path)
        yield embed_sound(audio * choose_gains([audio], rate_hz)[0], rate_hz)
