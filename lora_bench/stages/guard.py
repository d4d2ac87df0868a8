"""Stage `guard`: silence and repetition in clips, and copies of the training set.

Copies are searched twice.  In the sound: windows of two seconds of a clip, one a second, against windows of
the training tracks at every 0.05 s (log mel, see `encoders.mel`).  In the codes: stretches of five seconds
of the clip's first codebook, as they were generated, against the training tracks' codes at every shift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import AudioClip, Manifest
from lora_bench.encoders.blas_threads import use_one_blas_thread
from lora_bench.encoders.mel import (
    FINE_SAMPLES,
    HOP_SAMPLES,
    SAMPLE_RATE_HZ,
    SPAN,
    STRIDE,
    MelEncoder,
    compute_mel_frames,
    describe_windows,
)
from lora_bench.errors import DatasetError, ScoreError, UnscoredError
from lora_bench.metrics.guards import SILENCE_DBFS, CodeIndex, find_nearest, measure_silence, repetition
from lora_bench.store import Store, hash_json

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

VERSION = 2  # raise it when the same clips give other figures
LOOKUP_HOP_FRAMES = SAMPLE_RATE_HZ // FINE_SAMPLES  # a window of a clip begins every second
MIN_LAG_FRAMES = SAMPLE_RATE_HZ // HOP_SAMPLES  # repeats of less than a second are notes and beats
MIN_CLIP_S = 2.0  # one window; also twice the shortest repeat
CODE_WINDOW_S = 5.0  # as in the MusicGen paper's memorisation experiment
PARTIAL_MATCH_FRAC = 0.8
FRAMES_FILE = "frames.npz"


def describe_method() -> dict[str, str | int | float]:
    """Return the provenance of the figures of this stage."""
    mel = {f"mel_{key}": value for key, value in MelEncoder().provenance.items() if key != "encoder"}
    return mel | {
        "training_hop_s": FINE_SAMPLES / SAMPLE_RATE_HZ,
        "silence_dbfs": SILENCE_DBFS,
        "silence_block_s": 1.0,
        "repetition": "best autocorrelation of log-mel frames at lags from 1 s to half the clip",
        "copy_search": "cosine of window vectors, exact, best of a clip's windows",
        "code_match": f"first codebook as generated, best of {CODE_WINDOW_S:g} s stretches at every shift",
    }


@dataclass(frozen=True)
class ClipTraits:
    """Silence, repetition and windows of N clips.

    Attributes:
        names: of the clips.
        is_silent: [N] bool, the whole clip is below the threshold.
        silent_frac: [N] share of its seconds that are.
        repetition: [N] see `metrics.guards.repetition`.
        windows: [Q, D] window vectors; `clip_index` [Q] the clip of each.
    """

    names: tuple[str, ...]
    is_silent: NDArray[np.bool_]
    silent_frac: NDArray[np.float64]
    repetition: NDArray[np.float64]
    windows: NDArray[np.float32]
    clip_index: NDArray[np.int64]


@use_one_blas_thread()
def describe_clips(clips: Iterable[AudioClip]) -> ClipTraits:
    """Measure silence, repetition and window vectors of clips.

    Raises:
        UnscoredError: a clip is shorter than two seconds, or there is none.
        ScoreError: a clip is not finite; names it.
    """
    names: list[str] = []
    silences: list[tuple[bool, float]] = []
    repeats: list[float] = []
    windows: list[NDArray[np.float32]] = []
    for clip in clips:
        if clip.audio.shape[1] < MIN_CLIP_S * clip.sample_rate_hz:
            raise UnscoredError(
                f"clip {clip.name} lasts {clip.audio.shape[1] / clip.sample_rate_hz:.2f} s; silence, "
                f"repetition and copies are measured on clips of at least {MIN_CLIP_S:g} s"
            )
        frames = compute_mel_frames(clip, FINE_SAMPLES)
        silence = measure_silence([clip.audio], clip.sample_rate_hz)
        names.append(clip.name)
        silences.append((silence.clip_frac > 0.0, silence.block_frac))
        repeats.append(repetition(frames[::STRIDE], MIN_LAG_FRAMES))
        windows.append(describe_windows(frames, LOOKUP_HOP_FRAMES))
    if not names:
        raise UnscoredError("there is no clip to measure")
    return ClipTraits(
        names=tuple(names),
        is_silent=np.array([whole for whole, _ in silences]),
        silent_frac=np.array([share for _, share in silences]),
        repetition=np.array(repeats),
        windows=np.concatenate(windows),
        clip_index=np.repeat(np.arange(len(names), dtype=np.int64), [len(rows) for rows in windows]),
    )


@dataclass(frozen=True)
class TrainingSound:
    """Fine log-mel frames [F, mels] of every training track, and the tracks' files."""

    sources: tuple[str, ...]
    frames: tuple[NDArray[np.float32], ...]

    def windows(self) -> Iterator[NDArray[np.float32]]:
        """Yield window vectors, track by track, at every fine frame."""
        for frames in self.frames:
            yield describe_windows(frames, 1)


def load_training_sound(manifest: Manifest, store: Store) -> TrainingSound:
    """Return the frames of the training tracks, computed once per dataset.

    Raises:
        UnscoredError: no training track lasts two seconds.
        DatasetError: the prepared audio of a track is gone.
    """
    key = hash_json([VERSION, manifest.key, MelEncoder().provenance])
    place = store.get_or_make("guard_frames", key, lambda draft: _write_frames(manifest, draft))
    with np.load(place / FRAMES_FILE, allow_pickle=False) as arrays:
        every = {track: arrays[track.id] for track in manifest.of_split("train")}
    kept = {track: frames for track, frames in every.items() if len(frames) >= SPAN}
    if not kept:
        raise UnscoredError(f"{manifest.name}: no training track lasts {MIN_CLIP_S:g} s")
    return TrainingSound(tuple(track.source for track in kept), tuple(kept.values()))


@use_one_blas_thread()
def _write_frames(manifest: Manifest, draft: Path) -> None:
    found: dict[str, NDArray[np.float32]] = {}
    for track in manifest.of_split("train"):
        try:
            audio = np.load(track.audio, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{track.audio}: the prepared audio of {track.source} cannot be read ({error}); remove its "
                "folder and run again"
            ) from error
        whole = np.array(audio, dtype=np.float32)
        found[track.id] = compute_mel_frames(
            AudioClip(track.source, track.id, whole, manifest.format.sample_rate_hz), FINE_SAMPLES
        )
    np.savez(draft / FRAMES_FILE, **found)  # pyright: ignore[reportArgumentType]  (names are hex ids)


@dataclass(frozen=True)
class CopySearch:
    """For each of N clips, the passage of the training set that is most similar.

    Attributes:
        similarities: [N] from -1 to 1; copies lie near 1.
        sources: [N] the track's file; `times_s` [N] where in the track the window begins.
    """

    similarities: NDArray[np.float64]
    sources: tuple[str, ...]
    times_s: NDArray[np.float64]


def search_copies(sets: Sequence[ClipTraits], training: TrainingSound) -> list[CopySearch]:
    """Find the nearest training window of every clip of several sets, in one pass over the training side.

    Raises:
        ScoreError: window vectors are not finite.
    """
    with use_one_blas_thread() as n_threads:
        found = find_nearest(
            np.concatenate([traits.windows for traits in sets]), training.windows(), n_threads=n_threads
        )
    searches: list[CopySearch] = []
    begin = 0
    for traits in sets:
        rows = slice(begin, begin + len(traits.windows))
        begin = rows.stop
        similarities = found.similarities[rows]
        # the last row of each clip in ascending order of (clip, similarity)
        order = np.lexsort((similarities, traits.clip_index))
        best = order[np.cumsum(np.bincount(traits.clip_index, minlength=len(traits.names))) - 1]
        searches.append(
            CopySearch(
                similarities=similarities[best],
                sources=tuple(training.sources[number] for number in found.sets[rows][best]),
                times_s=found.rows[rows][best].astype(np.float64) * (FINE_SAMPLES / SAMPLE_RATE_HZ),
            )
        )
    return searches


def read_codes(files: Sequence[Path]) -> list[NDArray[np.int16]]:
    """Read the codes [K, F] of clips.

    Raises:
        UnscoredError: some clips were kept from a run that did not keep codes.
        ScoreError: a file is damaged; names it.
    """
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UnscoredError(
            f"{len(missing)} of {len(files)} clips (the first is {missing[0].stem}) were made without keeping their "
            "codes; remove the trial's clips and run again to have them matched"
        )
    found: list[NDArray[np.int16]] = []
    for file in files:
        try:
            codes = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ScoreError(f"{file}: damaged codes ({error}); remove the clip and run again") from error
        found.append(codes)
    return found


def match_codes(clips: Sequence[ArrayLike], index: CodeIndex, frame_rate_hz: float) -> NDArray[np.float64]:
    """Return [N], for each clip the largest share of five seconds of its first codebook that equals a training track's.

    Args:
        clips: first-codebook codes [F] of each clip.
        index: of the training tracks.
        frame_rate_hz: of the codes.
    """
    n_window = max(round(CODE_WINDOW_S * frame_rate_hz), 1)
    matches: list[float] = []
    for clip in clips:
        codes = np.asarray(clip).ravel()
        starts = range(0, max(len(codes) - n_window, 0) + 1, max(n_window // 2, 1))
        matches.append(max(index.best_match(codes[start : start + n_window]) for start in starts))
    return np.array(matches)
