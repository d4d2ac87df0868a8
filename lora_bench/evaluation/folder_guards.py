"""Silence, loops and copies in a folder of generated audio, with the recordings measured in the same way.

The recordings stand for what a model may have learnt from: a generated clip that is more like one of them
than they are like one another is worth listening to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import AudioClip
from lora_bench.encoders.mel import FINE_SAMPLES, SPAN, compute_mel_frames
from lora_bench.errors import UnscoredError
from lora_bench.metrics.guards import compare_nearness
from lora_bench.stages.guard import (
    MIN_CLIP_S,
    ClipTraits,
    CopySearch,
    TrainingSound,
    describe_clips,
    describe_method,
    search_copies,
)
from lora_bench.store import JsonObject, drop_absent

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CONTROL_CLIPS = 200  # excerpts of the recordings that are measured; more tell nothing new


@dataclass(frozen=True)
class ClipFigures:
    """Figures of a set of clips; None where copies could not be looked for.

    Attributes:
        silent_clips_frac: share of clips that are silent throughout.
        silent_seconds_frac: share of silent seconds.
        repetition: median of the clips.
        copy_similarity: median of the clips' similarities to the recordings.
        copy_similarity_max: the largest.
        closer_than_control_frac: share of generated clips that are more like a recording than 95 % of the control;
            about 0.05 if nothing was copied.
        nearest_copy: the generated clip that is most like a recording, and where.
    """

    n_clips: int
    silent_clips_frac: float
    silent_seconds_frac: float
    repetition: float
    copy_similarity: float | None = None
    copy_similarity_max: float | None = None
    closer_than_control_frac: float | None = None
    nearest_copy: str | None = None


@dataclass(frozen=True)
class FolderGuards:
    """Figures of the generated clips, and of excerpts of the recordings that are as long, the control.

    Attributes:
        unscored: why a figure is absent.
        provenance: how the figures were measured.
    """

    unscored: Mapping[str, str]
    provenance: Mapping[str, str | int | float]
    generated: ClipFigures | None = None
    control: ClipFigures | None = None

    def to_json(self) -> JsonObject:
        """Return the figures as `lora-bench score --json` prints them; absent ones are left out."""
        sides = {"generated": self.generated, "control": self.control}
        return {
            "unscored": dict(self.unscored),
            "provenance": dict(self.provenance),
            **{name: drop_absent(side) for name, side in sides.items() if side is not None},
        }


def measure_folder_guards(
    generated: Iterable[AudioClip], recordings: Iterable[AudioClip], n_recordings: int
) -> FolderGuards:
    """Measure the generated clips, and excerpts of the recordings.

    Args:
        generated: clips.
        recordings: whole; each is its own group.
        n_recordings: how many there are.

    Raises:
        ScoreError, AudioFileError: a file is damaged; names it.
    """
    # wav files have no codes
    method = {key: value for key, value in describe_method().items() if key != "code_match"}
    lengths_s: list[float] = []

    def measured() -> Iterator[AudioClip]:
        for clip in generated:
            lengths_s.append(clip.audio.shape[1] / clip.sample_rate_hz)
            yield clip

    try:
        ours = describe_clips(measured())
        excerpt_s = float(np.median(lengths_s))
        reading = Reading(excerpt_s, -(-MAX_CONTROL_CLIPS // n_recordings))
        theirs = describe_clips(reading.cut(recordings))
    except UnscoredError as reason:
        return FolderGuards({"silence, repetition, copies": str(reason)}, method)
    method["control"] = (
        f"excerpts of {excerpt_s:.2f} s of the reference folder; for copies those of every second recording are "
        "looked up in the others, both ways"
    )
    found = FolderGuards({}, method, _describe(ours), _describe(theirs))
    try:
        copies, control = _look_up(ours, theirs, reading)
    except UnscoredError as reason:
        return replace(found, unscored={"copies": str(reason)})
    nearness = compare_nearness(copies.similarities, control)
    best = int(copies.similarities.argmax())
    return replace(
        found,
        generated=replace(
            _describe(ours),
            copy_similarity=nearness.generated_median,
            copy_similarity_max=float(copies.similarities[best]),
            closer_than_control_frac=nearness.above_frac,
            nearest_copy=f"{ours.names[best]}: {copies.sources[best]} at {copies.times_s[best]:.1f} s",
        ),
        control=replace(
            _describe(theirs),
            copy_similarity=nearness.held_out_median,
            copy_similarity_max=float(control.max()),
        ),
    )


@dataclass
class Reading:
    """Recordings read once: excerpts are passed on, the features of whole recordings are kept.

    Attributes:
        excerpt_s: length of an excerpt; recordings shorter than that, or than two seconds, give none.
        n_each: at most so many excerpts of a recording, evenly spaced.
        frames: by recording, log-mel frames [F, mels].
        groups: recording of each excerpt.
    """

    excerpt_s: float
    n_each: int
    frames: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)

    def cut(self, recordings: Iterable[AudioClip]) -> Iterator[AudioClip]:
        """Yield excerpts, recording by recording."""
        for clip in recordings:
            if clip.audio.shape[1] < MIN_CLIP_S * clip.sample_rate_hz:
                continue
            self.frames[clip.group] = compute_mel_frames(clip, FINE_SAMPLES)
            n_samples = round(self.excerpt_s * clip.sample_rate_hz)
            n_found = clip.audio.shape[1] // n_samples
            for place in np.linspace(0, n_found - 1, min(n_found, self.n_each)).round().astype(int).tolist():
                self.groups.append(clip.group)
                piece = clip.audio[:, place * n_samples : (place + 1) * n_samples]
                yield AudioClip(f"{clip.name}#{place}", clip.group, piece, clip.sample_rate_hz)


def _describe(traits: ClipTraits) -> ClipFigures:
    return ClipFigures(
        n_clips=len(traits.names),
        silent_clips_frac=float(traits.is_silent.mean()),
        silent_seconds_frac=float(traits.silent_frac.mean()),
        repetition=float(np.median(traits.repetition)),
    )


def _look_up(
    ours: ClipTraits, theirs: ClipTraits, reading: Reading
) -> tuple[CopySearch, NDArray[np.float64]]:
    """Search the generated clips in all recordings, and the excerpts of each half in the other half.

    Raises:
        UnscoredError: fewer than two recordings last two seconds.
    """
    names = [name for name, rows in reading.frames.items() if len(rows) >= SPAN]
    if len(names) < 2:
        raise UnscoredError(
            f"{len(names)} recording(s) of at least {MIN_CLIP_S:g} s; what is normal takes two or more"
        )
    [copies] = search_copies([ours], _gather(names, reading))
    control: list[NDArray[np.float64]] = []
    for own, other in ((names[::2], names[1::2]), (names[1::2], names[::2])):
        [found] = search_copies([theirs], _gather(other, reading))
        control.append(found.similarities[[group in own for group in reading.groups]])
    return copies, np.concatenate(control)


def _gather(names: Sequence[str], reading: Reading) -> TrainingSound:
    return TrainingSound(tuple(names), tuple(reading.frames[name] for name in names))
