"""Memorisation to listen to: generated clips, each with the training passage that it resembles most."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from lora_bench.report.formatting import shorten
from lora_bench.report.view import RunView
from lora_bench.results.records import GuardRecord
from lora_bench.results.run_files import TrackEntry
from lora_bench.slugs import prompt_slug

MAX_PAIRS = 6
PASSAGE_S = 6.0
LEAD_S = 2.0  # before the passage, so that a listener hears it in its place
_NEAREST = re.compile(r"clip (\d+): (.+) at (\d+(?:\.\d+)?) s", re.DOTALL)


@dataclass(frozen=True)
class CopyPair:
    """A generated clip and the passage of a training track.

    Attributes:
        title: trial, prompt and similarity, in words.
        clip: the clip's file.
        source: the training track's file, as the dataset names it.
        at_s: where in the track the resembling window begins.
        passage: wav of the track around it; None if the prepared audio is no longer there.
    """

    title: str
    trial: str
    clip: Path
    source: str
    at_s: float
    passage: bytes | None


def find_copy_pairs(view: RunView) -> list[CopyPair]:
    """Return the clips that resemble the training set most, over fine-tuned trials and prompts."""
    tuned = {trial.id for trial in view.trials if not trial.is_zero_shot}
    records = [
        (record.copy_similarity_max, record)
        for record in view.results.guards
        if record.trial in tuned and record.prompt is not None
        if record.copy_similarity_max is not None and record.nearest_copy
    ]
    records.sort(key=lambda pair: -pair[0])
    tracks = {track.source: track for track in view.tracks if track.source}
    found = (_make_pair(view, record, similarity, tracks) for similarity, record in records[:MAX_PAIRS])
    return [pair for pair in found if pair is not None]


def _make_pair(
    view: RunView, record: GuardRecord, similarity: float, tracks: Mapping[str, TrackEntry]
) -> CopyPair | None:
    nearest = _NEAREST.fullmatch(record.nearest_copy or "")
    if nearest is None or record.trial is None or record.prompt is None:
        return None
    index, source, at_s = nearest[1], nearest[2], float(nearest[3])
    clip = view.folder.trial(record.trial).clips / prompt_slug(record.prompt) / f"{index}.wav"
    if not clip.is_file():
        return None
    name = view.name_trial(record.trial)
    title = f"{name}: {shorten(record.prompt, 60)}, clip {int(index)}; similarity {similarity:.3f}"
    return CopyPair(title, name, clip, source, at_s, _cut_passage(tracks.get(source), at_s, clip))


def _cut_passage(track: TrackEntry | None, at_s: float, clip: Path) -> bytes | None:
    """Return the passage at the rate of the prepared audio, which is the clip's."""
    path = Path(track.audio) if track is not None and track.audio else None
    if path is None or not path.is_absolute() or path.suffix != ".npy" or not path.is_file():
        return None
    try:
        rate_hz = soundfile.info(clip).samplerate
        audio = np.load(path, mmap_mode="r", allow_pickle=False)  # [C, S]
    except (soundfile.LibsndfileError, OSError, ValueError):
        return None
    begin = max(0, round((at_s - LEAD_S) * rate_hz))
    stream = io.BytesIO()
    passage = np.asarray(audio[:, begin : begin + round(PASSAGE_S * rate_hz)]).T
    soundfile.write(stream, passage, rate_hz, format="WAV", subtype="PCM_16")
    return stream.getvalue()
