"""Survey of what is known about the tracks of a folder: a template for captions, and what to split by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lora_bench.audio import Listing
from lora_bench.errors import DatasetError
from lora_bench.spec.caption_template import parse_template
from lora_bench.spec.captions import CaptionSpec
from lora_bench.stages.dataset.composing import Described, Fields, compose
from lora_bench.stages.dataset.field_names import Value
from lora_bench.stages.dataset.metadata import match_lines, read_metadata

DESCRIBING = ("genre", "mood", "bpm", "key", "instruments")
"""Fields that describe the sound, in the order of a caption."""
GROUPS = ("artist", "album")
MIN_FRAC, MIN_GROUPED_FRAC = 1 / 3, 0.8
"""Share of the tracks that have a field for it to be in the template, or to be split by."""
MIN_GROUPS, MAX_GROUP_FRAC = 6, 0.3
"""Enough groups, and none so large that a side of the split could not be filled."""


@dataclass(frozen=True)
class FieldSurvey:
    """What is known about the tracks of a folder.

    Attributes:
        counts: tracks that have each describing field, of those that the template uses.
        template: None if no describing field is common enough.
        example: a caption by the template.
        split_by: `artist`, `album` or `track`.
        n_groups: artists or albums.
        notes: what could not be read.
    """

    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    template: str | None = None
    example: str | None = None
    split_by: str = "track"
    n_groups: int = 0
    notes: tuple[str, ...] = ()


def survey_fields(listing: Listing, paths: Sequence[str], words: str) -> FieldSurvey:
    """Read tables, sidecars and tags of tracks.

    Args:
        listing: of the folder.
        paths: of the tracks, relative to it.
        words: what every caption begins with.
    """
    spec = CaptionSpec(template="{name}")
    try:
        fields = Fields(listing.folder, spec, match_lines(read_metadata(listing.folder, spec), [*paths], []))
        tracks = fields.gather(paths, ())
    except DatasetError as error:
        return FieldSurvey(notes=(f"captions: {error}",))
    counts = Counter(name for track in tracks for name in DESCRIBING if name in track.fields)
    used = {name: counts[name] for name in DESCRIBING if counts[name] >= MIN_FRAC * len(tracks)}
    split_by, n_groups = _choose_split(tracks)
    if not used:
        return FieldSurvey(split_by=split_by, n_groups=n_groups)
    template = ", ".join([words, *(_write_field(name, tracks) for name in used)])
    fullest = max(tracks, key=lambda track: sum(name in track.fields for name in used))
    example, _ = compose(parse_template(template), fullest)
    return FieldSurvey(used, template, example, split_by, n_groups)


def _write_field(name: str, tracks: Sequence[Described]) -> str:
    if name != "bpm":
        return f"{{{name}}}"
    values = [track.fields[name] for track in tracks if name in track.fields]
    return "{bpm:.0f} bpm" if all(map(_is_number, values)) else "{bpm} bpm"


def _is_number(value: Value) -> bool:
    try:
        float(value.value)
    except ValueError:
        return False
    return True


def _choose_split(tracks: Sequence[Described]) -> tuple[str, int]:
    """Return the first kind of group that nearly every track has, with enough groups; else `track`."""
    for name in GROUPS:
        values = [str(track.fields[name].value).casefold() for track in tracks if name in track.fields]
        groups = Counter(values)
        is_common = len(values) >= MIN_GROUPED_FRAC * len(tracks)
        if is_common and len(groups) >= MIN_GROUPS and max(groups.values()) <= MAX_GROUP_FRAC * len(tracks):
            return name, len(groups)
    return "track", 0
