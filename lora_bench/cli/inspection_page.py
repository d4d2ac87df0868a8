"""The page of `lora-bench inspect`: a summary, a map and a table of tracks, and players of excerpts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lora_bench.audio import list_folder, load_audio, resample, to_channels
from lora_bench.cli.inspection_map import name_group, write_map
from lora_bench.errors import AudioFileError
from lora_bench.report.audio.players import embed_sound
from lora_bench.report.cells import number_cell, number_columns, text_columns
from lora_bench.report.formatting import clean_text, count_noun
from lora_bench.report.writers.document import (
    Block,
    Bullets,
    Cell,
    Clip,
    Heading,
    Listening,
    Paragraph,
    Table,
    mark_code,
)
from lora_bench.report.writers.html import write_page
from lora_bench.slugs import spell_path
from lora_bench.stages.dataset.inspection import InspectedTrack, Inspection

EXCERPT_S, RATE_HZ = 6, 32_000
MAX_PLAYERS = 100


def write_inspection_page(found: Inspection) -> str:
    """Return the page as HTML; all text is escaped by the page's writer."""
    title = f"Inspection of {clean_text(spell_path(found.folder.resolve().name))}"
    return write_page(title, [Heading(1, title, "top"), *_list_blocks(found)])


def _list_blocks(found: Inspection) -> Iterator[Block]:
    yield Heading(2, "Summary", "summary")
    yield Bullets(tuple(f"{name}: {clean_text(value)}" for name, value in found.summarise().items()))
    if found.notes:
        yield Paragraph("Notes on captions:")
        yield Bullets(tuple(mark_code(clean_text(note)) for note in found.notes))
    left_out = [track for track in found.tracks if track.left_out is not None]
    if left_out:
        yield Heading(2, "Left out", "left-out")
        yield Bullets(
            tuple(f"{clean_text(track.source)}: {clean_text(track.left_out or '')}" for track in left_out)
        )
    chosen = _choose_tracks(found)
    anchors = {track.source: f"track-{place}" for place, track in enumerate(chosen)}
    groups: dict[str, str] = {}
    if found.map is not None and found.map.points:
        yield from write_map(found.map, anchors)
        groups = {point.source: name_group(found.map, point.group) for point in found.map.points}
    has_groups = len(set(groups.values())) > 1
    yield Heading(2, "Tracks", "tracks")
    columns = (
        *text_columns("file", *([found.map.grouped_by] if has_groups and found.map is not None else [])),
        *number_columns("s", "Hz", "channels", "LUFS", "peak dBFS", "silence %", "clipped %", "kHz"),
        *text_columns("odd", "caption"),
    )
    rows = tuple(_write_row(track, groups.get(track.source) if has_groups else None) for track in found.used)
    yield Table("Every track that is used", columns, rows)
    yield Heading(2, "Listen", "listen")
    if len(chosen) < len(found.used):
        yield Paragraph(
            f"{count_noun(len(chosen), 'track')}, odd ones and near-duplicates first; the table has all."
        )
    listing = list_folder(found.folder)
    paths = {listing.name(path): path for path in listing.files}
    clips = tuple(
        clip
        for track in chosen
        if (clip := _make_clip(track, paths.get(track.source), anchors[track.source])) is not None
    )
    yield Listening(f"The middle {EXCERPT_S} s of each track", "", clips)


def _choose_tracks(found: Inspection) -> list[InspectedTrack]:
    """Return the tracks that have a player."""
    near = found.map.near if found.map is not None else ()
    joined = {source for pair in near for source in (pair.first, pair.second)}

    def rank(track: InspectedTrack) -> bool:
        return not (track.faults or track.caption_fault or track.source in joined)

    return sorted(found.used, key=rank)[:MAX_PLAYERS]


def _write_row(track: InspectedTrack, group: str | None) -> tuple[Cell, ...]:
    facts = track.facts
    assert facts is not None  # it is used
    caption = track.caption or ""
    odd = "; ".join(track.faults)
    words = f"{caption} ({track.caption_fault})" if track.caption_fault else caption
    return (
        Cell(clean_text(track.source)),
        *([] if group is None else [Cell(clean_text(group))]),
        number_cell(facts.duration_s, lambda value: f"{value:.1f}"),
        number_cell(facts.sample_rate_hz, lambda value: f"{value:.0f}"),
        number_cell(facts.channels, lambda value: f"{value:.0f}"),
        number_cell(facts.loudness_lufs, lambda value: f"{value:.1f}"),
        number_cell(facts.peak_dbfs, lambda value: f"{value:.1f}"),
        number_cell(100 * facts.silent_frac, lambda value: f"{value:.0f}"),
        number_cell(100 * facts.clipped_frac, lambda value: f"{value:.2f}"),
        number_cell(facts.bandwidth_hz / 1000, lambda value: f"{value:.1f}"),
        Cell(odd, tone="worse" if odd else "plain"),
        Cell(clean_text(words), tone="worse" if track.caption_fault else "plain"),
    )


def _make_clip(track: InspectedTrack, path: Path | None, anchor: str) -> Clip | None:
    if path is None:
        return None
    try:
        audio, rate_hz = load_audio(path)
    except AudioFileError:  # it has changed since it was inspected
        return None
    start = max(0, (audio.shape[1] - EXCERPT_S * rate_hz) // 2)
    excerpt = audio[:, start : start + EXCERPT_S * rate_hz]
    excerpt = resample(to_channels(excerpt, min(2, len(excerpt))), rate_hz, RATE_HZ)
    return Clip(clean_text(track.source), None, embed_sound(excerpt.T, RATE_HZ), None, anchor=anchor)
