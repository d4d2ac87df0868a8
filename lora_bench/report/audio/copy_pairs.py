"""Memorisation to listen to: generated clips beside the training passage that they resemble most."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from lora_bench.report.formatting import shorten
from lora_bench.report.view import RunView
from lora_bench.results.trial import read_object
from lora_bench.slugs import prompt_slug

Json = dict[str, Any]
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
    """The clips that resemble the training set most, over fine-tuned trials and prompts."""
    tuned = {trial["id"] for trial in view.trials if trial["kind"] != "zero-shot"}
    records = [
        record
        for record in view.part("guards")
        if record.get("trial") in tuned and record.get("prompt") is not None
        and isinstance(record.get("copy_similarity_max"), float) and record.get("nearest_copy")
    ]  # fmt: skip
    records.sort(key=lambda record: -record["copy_similarity_max"])
    tracks = {str(track["source"]): track for track in _read_tracks(view)}
    return [pair for record in records[:MAX_PAIRS] for pair in _make_pair(view, record, tracks)]


def _make_pair(view: RunView, record: Json, tracks: dict[str, Json]) -> Iterator[CopyPair]:
    found = _NEAREST.fullmatch(str(record["nearest_copy"]))
    if found is None:
        return
    index, source, at_s = found[1], found[2], float(found[3])
    trial_id, prompt = str(record["trial"]), str(record["prompt"])
    clip = view.run_folder / "trials" / trial_id / "clips" / prompt_slug(prompt) / f"{index}.wav"
    if not clip.is_file():
        return
    name = view.names_of_trials[trial_id]
    title = (
        f"{name}: {shorten(prompt, 60)}, clip {int(index)}; similarity {record['copy_similarity_max']:.3f}"
    )
    yield CopyPair(title, name, clip, source, at_s, _cut_passage(tracks.get(source), at_s, clip))


def _read_tracks(view: RunView) -> list[Json]:
    found: list[Json] = []
    for folder in dict.fromkeys(view.source_folders):
        described = read_object(folder / "dataset.json", []) or {}
        found += (described.get("manifest") or described).get("tracks") or []
    return found


def _cut_passage(track: Json | None, at_s: float, clip: Path) -> bytes | None:
    """The passage at the rate of the prepared audio, which is the clip's."""
    path = Path(str(track["audio"])) if track is not None else None
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
