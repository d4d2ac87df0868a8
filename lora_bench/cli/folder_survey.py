"""Survey of a folder of audio: lengths, sample rates, captions and unusable files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lora_bench.audio import AudioHeader, Listing, list_folder, read_header
from lora_bench.cli.field_survey import FieldSurvey, survey_fields
from lora_bench.errors import AudioFileError, DatasetError, UsageError
from lora_bench.report.formatting import count_noun
from lora_bench.slugs import spell_path
from lora_bench.spec.schema import CaptionSpec
from lora_bench.stages.dataset.captions import read_metadata, search_captions

MIN_TRACKS = 3
MAX_LISTED = 5


@dataclass(frozen=True)
class Survey:
    """The contents of a folder.

    Attributes:
        sounds: files that can be read.
        left_out: files that cannot be read, with the reason.
        captions: source of the captions: `metadata`, `sidecar`, `both` or `text`.
        example: one of the captions.
        notes: remarks about the captions.
        fields: what is known about the tracks.
    """

    folder: Path
    sounds: tuple[AudioHeader, ...]
    left_out: Mapping[str, str]
    captions: str
    example: str | None
    notes: tuple[str, ...] = ()
    fields: FieldSurvey = field(default_factory=FieldSurvey)

    @property
    def total_s(self) -> float:
        """Return the total length of the readable files in seconds."""
        return sum(sound.duration_s for sound in self.sounds)


def survey_folder(folder: Path) -> Survey:
    """Read the headers of all audio files, and find their captions.

    Raises:
        UsageError: no such folder.
        DatasetError: fewer than three files that can be read.
    """
    if not folder.is_dir():
        raise UsageError(f"{spell_path(folder)}: expected a folder of audio files")
    listing = list_folder(folder)
    sounds: dict[Path, AudioHeader] = {}
    left_out = dict(listing.dropped)
    for path in listing.files:
        try:
            sounds[path] = read_header(path)
        except AudioFileError as error:
            left_out[listing.name(path)] = error.reason
    if len(sounds) < MIN_TRACKS:
        listed = "".join(f"\n  {line}" for line in list_left_out(left_out))
        raise DatasetError(
            f"{spell_path(folder)}: {len(sounds)} audio files that can be read; expected at least {MIN_TRACKS} (some "
            "to train on, two as references): wav, flac, ogg, opus, mp3 or m4a at any depth" + listed
        )
    captions, example, notes = _survey_captions(listing, tuple(sounds))
    paths = [path.relative_to(folder).as_posix() for path in sounds]
    fields = survey_fields(listing, paths, make_caption(folder.absolute().name))
    return Survey(
        folder.absolute(),
        tuple(sounds.values()),
        left_out,
        captions,
        example,
        (*notes, *fields.notes),
        fields,
    )


def make_caption(folder: str) -> str:
    """Return a caption made of the folder's name."""
    words = " ".join(re.sub(r"[_\W]+", " ", folder).split())
    if words.lower() in {"", "music"}:
        return "background music"
    return words if words.lower().endswith("music") else f"{words} music"


def list_left_out(left_out: Mapping[str, str]) -> list[str]:
    """Return lines that name unusable files and the reasons."""
    lines = [f"left out: {name}: {reason}" for name, reason in list(left_out.items())[:MAX_LISTED]]
    n_more = len(left_out) - MAX_LISTED
    return lines if n_more <= 0 else [*lines, f"left out: and {n_more} more"]


def _survey_captions(listing: Listing, files: Sequence[Path]) -> tuple[str, str | None, tuple[str, ...]]:
    """Return the source of the captions of all files, one caption, and notes.

    Raises:
        DatasetError: captions are there and cannot be read.
    """
    spec = CaptionSpec()
    metadata = read_metadata(listing.folder, CaptionSpec(template="{caption}"))
    if not metadata or any(line.caption is not None for line in metadata.values()):
        metadata = read_metadata(listing.folder, spec)
    else:  # tables of other fields, which a template uses
        metadata.clear()
    names = {path.relative_to(listing.folder).as_posix(): listing.name(path) for path in files}
    others = [*(path.relative_to(listing.folder).as_posix() for path in listing.files), *listing.dropped]
    found = search_captions(listing.folder, names, spec, metadata, others)
    if found.unusable:
        listed = "".join(
            f"\n  {names[name]}: {text}" for name, text in [*found.unusable.items()][:MAX_LISTED]
        )
        raise DatasetError(
            f"{spell_path(listing.folder)}: the captions of {len(found.unusable)} files cannot be read; correct "
            f"these files or move them away{listed}"
        )
    notes = [f"captions: {text}" for text in found.unmatched[:MAX_LISTED]]
    if found.missing:
        if found.captions:
            first = names[next(iter(found.missing))]
            notes.append(
                f"captions: only {len(found.captions)} of {len(names)} files have one (not {first}, for "
                "example), so the spec uses one text for all"
            )
        return "text", None, tuple(notes)
    example = next((text for text in map(_clean_caption, found.captions.values()) if text), None)
    source = "sidecar"
    if metadata:
        alone = search_captions(listing.folder, names, CaptionSpec(source="metadata"), metadata, others)
        source = "both" if alone.missing else "metadata"
    return source, example, tuple(notes)


def _clean_caption(text: str) -> str | None:
    """Return a caption as one line of at most 200 printable characters; None if it is empty."""
    line = " ".join(re.sub(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]", " ", text).split())
    return line[:200] or None


def describe_survey(survey: Survey) -> str:
    """`41 files, 118 minutes, 44100 Hz, 2 channels`."""
    rates = Counter(sound.sample_rate_hz for sound in survey.sounds)
    channels = Counter(sound.channels for sound in survey.sounds)
    sides = {1: "mono", 2: "stereo"}
    named = Counter({sides.get(n, f"{n} channels"): count for n, count in channels.items()})
    return (
        f"{len(survey.sounds)} files, {survey.total_s / 60:.1f} minutes, "
        f"{_list_counts(Counter({f'{rate} Hz': n for rate, n in rates.items()}))}, {_list_counts(named)}"
    )


def _list_counts(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return " and ".join(f"{value} ({count_noun(n, 'file')})" for value, n in counts.most_common(3))
