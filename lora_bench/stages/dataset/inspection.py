"""Inspection of a folder before training: facts and faults of each track, duplicates, captions that say nothing."""

from __future__ import annotations

import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter

from lora_bench.artifacts import ABSENT_IF_NONE, AudioFormat, Excluded, Preparation
from lora_bench.audio import Listing, list_folder
from lora_bench.errors import AudioFileError, DatasetError
from lora_bench.progress import Progress
from lora_bench.spec.caption_template import parse_template
from lora_bench.spec.captions import CaptionSpec
from lora_bench.spec.prepare import is_unset
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.dataset.captions import search_captions
from lora_bench.stages.dataset.composing import Fields, compose
from lora_bench.stages.dataset.metadata import match_lines, read_metadata
from lora_bench.stages.dataset.near_duplicates import read_fingerprint
from lora_bench.stages.dataset.recordings import SourceFile, prepare_recording
from lora_bench.stages.dataset.track_facts import FACTS_VERSION, TrackFacts, measure_samples
from lora_bench.stages.dataset.track_map import TrackMap, map_tracks, read_timbre
from lora_bench.store import Store, hash_json, read_json, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_WORKERS = 4  # each holds one whole track
_EMPTY_WORDS = re.compile(
    r"(?i)(un)?(titled|known|named)|n/?a|none|null|todo|tbd|test|music|song|audio|track|sound|\W*|\d+|(track|song|audio)[\s_]*\d+"
)


@dataclass(frozen=True)
class InspectedTrack:
    """A file with what was found about it.

    Attributes:
        source: printable path relative to the folder.
        facts: None if the file cannot be decoded.
        left_out: why a run does not use it; None if it does.
        faults: what is odd about the sound.
        caption: None if there is none.
        caption_fault: why the caption says nothing; None if it does, or if captions are composed from measurements.
        preparation: what a run changes in the sound; None, and absent in JSON, if nothing or if it is not known.
    """

    source: str
    facts: TrackFacts | None
    left_out: str | None
    faults: tuple[str, ...]
    caption: str | None
    caption_fault: str | None
    preparation: Preparation | None = field(default=None, metadata=ABSENT_IF_NONE)


@dataclass(frozen=True)
class Inspection:
    """What was found in a folder; `notes` are about captions as a whole, and `map` is None if nobody asked for it."""

    folder: Path
    tracks: tuple[InspectedTrack, ...]
    notes: tuple[str, ...]
    map: TrackMap | None = None

    @property
    def used(self) -> tuple[InspectedTrack, ...]:
        """Return the tracks that a run uses."""
        return tuple(track for track in self.tracks if track.left_out is None)

    def summarise(self) -> dict[str, str]:
        """Return totals and ranges of the used tracks, in words."""
        facts = [track.facts for track in self.used if track.facts is not None]
        if not facts:
            return {"tracks": f"0 used, {len(self.tracks)} left out"}
        durations = [fact.duration_s for fact in facts]
        loud = sorted(fact.loudness_lufs for fact in facts if fact.loudness_lufs is not None)
        return {
            "tracks": f"{len(facts)} used, {len(self.tracks) - len(facts)} left out",
            "minutes": f"{sum(durations) / 60:.1f}",
            "durations": f"{min(durations):.1f} to {max(durations):.1f} s, median {statistics.median(durations):.1f} s",
            "rates": _count(f"{fact.sample_rate_hz} Hz" for fact in facts),
            "channels": _count(
                {1: "mono", 2: "stereo"}.get(fact.channels, str(fact.channels)) for fact in facts
            ),
            "loudness": f"{loud[0]:.1f} to {loud[-1]:.1f} LUFS, median {statistics.median(loud):.1f}"
            if loud
            else "-",
            "odd sound": _count_tracks(bool(track.faults) for track in self.used),
            "captions that say nothing": _count_tracks(
                track.caption_fault is not None for track in self.used
            ),
        }


def inspect_folder(
    folder: Path,
    spec: DatasetSpec,
    store: Store,
    progress: Progress,
    audio_format: AudioFormat | None = None,
    *,
    map_by: Literal["side", "folder"] | None = None,
) -> Inspection:
    """Decode and judge every file of a folder; what was measured once is taken from the store.

    Args:
        folder: of recordings.
        spec: what a run does with them.
        store: keeps facts, and prepared sound.
        progress: told about files.
        audio_format: of the model, to prepare the sound as a run does; None leaves this out.
        map_by: make a map of the tracks, in groups by side as a run splits them or by folder; None makes none.

    Raises:
        DatasetError: the folder cannot be read, or two captions contradict each other.
        StoreError: the disk is full.
    """
    listing = list_folder(folder)
    progress.start("inspect", len(listing.files))

    timbres: dict[Path, NDArray[np.float32]] = {}

    def inspect(path: Path) -> tuple[str, TrackFacts | str, Preparation | None]:
        file = SourceFile(path)
        try:
            content_hash = file.content_hash
            facts = _measure(file, store)
            if map_by is not None:  # while it is decoded
                timbres[path] = read_timbre(file, store)
                read_fingerprint(path, content_hash, store, lambda _: file.sound)
        except AudioFileError as error:
            return "", error.reason, None
        if audio_format is None or is_unset(spec.prepare):
            return content_hash, facts, None
        made = prepare_recording(
            file, listing.name(path), audio_format, spec.min_track_s, store, spec.prepare
        )
        if isinstance(made, Excluded):
            return content_hash, made.reason, None
        return content_hash, facts, made.preparation

    found: dict[Path, tuple[str, TrackFacts | str, Preparation | None]] = {}
    pool = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1))
    try:
        for path, result in zip(listing.files, pool.map(inspect, listing.files), strict=True):
            found[path] = result
            progress.advance(note=listing.name(path))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    captions, notes, is_judged = _read_captions(listing, spec.captions)
    counts = Counter(captions.values())
    firsts: dict[str, str] = {}
    tracks = [InspectedTrack(name, None, reason, (), None, None) for name, reason in listing.dropped.items()]
    for path, (content_hash, facts, preparation) in found.items():
        name = listing.name(path)
        caption = captions.get(path.relative_to(listing.folder).as_posix())
        fault = judge_caption(caption, name, counts, spec.captions) if is_judged else None
        if isinstance(facts, str):
            tracks.append(InspectedTrack(name, None, facts, (), caption, None))
            continue
        first = firsts.setdefault(content_hash, name)
        reason = (
            f"has the same content as {first}" if first != name else facts.find_exclusion(spec.min_track_s)
        )
        faults = tuple(facts.list_faults()) if reason is None else ()
        tracks.append(InspectedTrack(name, facts, reason, faults, caption, fault, preparation))
    chart = None
    if map_by is not None:
        used = {track.source for track in tracks if track.left_out is None}
        names = {
            path: path.relative_to(listing.folder).as_posix() for path in found if listing.name(path) in used
        }
        chart = map_tracks(
            listing.folder,
            {name: found[path][0] for path, name in names.items()},
            {name: timbres[path] for path, name in names.items()},
            spec,
            store,
            progress,
            with_sides=map_by == "side",
        )
    return Inspection(folder, tuple(tracks), tuple(notes), chart)


def _measure(file: SourceFile, store: Store) -> TrackFacts:
    key = hash_json({"version": FACTS_VERSION, "content": file.content_hash}, length=32)
    place = store.get_or_make(
        "facts", key, lambda draft: write_json(draft / "facts.json", measure_samples(*file.sound))
    )
    return TypeAdapter(TrackFacts).validate_python(read_json(place / "facts.json"))


def _read_captions(listing: Listing, spec: CaptionSpec) -> tuple[dict[str, str], list[str], bool]:
    """Return captions by path, notes, and whether each track's caption can be judged.

    A template is filled with what is written down, not with measurements, so its captions are not judged.
    """
    paths = [path.relative_to(listing.folder).as_posix() for path in listing.files]
    try:
        metadata = read_metadata(listing.folder, spec)
        if spec.resolved_template is None:
            found = search_captions(listing.folder, paths, spec, metadata, listing.dropped)
            if found.captions:
                return found.captions, found.unmatched, True
            return (
                {},
                [*found.unmatched, "no track has a caption; `lora-bench captions` composes them"],
                False,
            )
        template = parse_template(spec.resolved_template)
        fields = Fields(listing.folder, spec, match_lines(metadata, paths, []))
        composed = {track.path: compose(template, track)[0] for track in fields.gather(paths, ())}
    except DatasetError as error:
        return {}, [f"captions cannot be read: {error}"], False
    notes = [
        "captions are composed by a template; measured fields are left out here (see `lora-bench captions`)"
    ]
    return {path: text for path, text in composed.items() if text}, [*notes, *fields.notes], False


def judge_caption(caption: str | None, name: str, counts: Mapping[str, int], spec: CaptionSpec) -> str | None:
    """Return why a caption says nothing about its track; None if it says something."""
    if caption is None:
        return "no caption"
    if spec.text is not None:
        return None  # one text for all is a choice
    if _EMPTY_WORDS.fullmatch(caption.strip()):
        return "says nothing"
    if _letters(caption) == _letters(PurePosixPath(name).stem):
        return "is the file's name"
    if re.search(r"https?://|</?\w+[^>]*>", caption):
        return "holds a link or markup"
    if 1 < counts[caption] == sum(counts.values()):
        return "is the same for all tracks"
    return None


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


def _count_tracks(are_meant: Iterable[bool]) -> str:
    n = sum(are_meant)
    return "1 track" if n == 1 else f"{n} tracks"


def _count(values: Iterable[str]) -> str:
    counts = Counter(values)
    return ", ".join(f"{value} ({n})" if len(counts) > 1 else value for value, n in counts.most_common(5))
