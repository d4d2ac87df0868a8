"""What `dataset.prepare` changed in the sound of the recordings, in the section about the dataset."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from lora_bench.report.cells import number_cell, number_columns, text_columns
from lora_bench.report.formatting import clean_text, count_noun, format_count
from lora_bench.report.writers.document import Block, Cell, Paragraph, Table
from lora_bench.results.run_files import ManifestEntry, PreparationEntry

_ROWS: tuple[tuple[str, Callable[[PreparationEntry], float | None], str], ...] = (
    ("gain (dB)", lambda made: made.gain_db, "{:+.1f}"),
    ("loudness after it (LUFS)", lambda made: made.loudness_lufs, "{:.1f}"),
    (
        "silence cut off at both ends (s)",
        lambda made: None if made.lead_s is None else made.lead_s + (made.tail_s or 0.0),
        "{:.2f}",
    ),
    ("offset subtracted (share of full scale)", lambda made: made.dc_offset, "{:+.4f}"),
    ("clipped samples (not repaired)", lambda made: made.clipped_samples, "{:.0f}"),
)


def build_preparation(manifest: ManifestEntry) -> Iterator[Block]:
    """Yield ranges of what was changed; nothing if nothing was."""
    made = [track.preparation for track in manifest.tracks if track.preparation is not None]
    if not made:
        return
    rows: list[tuple[Cell, ...]] = []
    for name, read, template in _ROWS:
        values = [value for each in made if (value := read(each)) is not None]
        if values:
            ranges = (min(values), statistics.median(values), max(values))
            cells = (number_cell(value, template.format) for value in ranges)
            n_changed = sum(value != 0 for value in values)
            rows.append((Cell(name), number_cell(n_changed, format_count), *cells))
    columns = (*text_columns("change"), *number_columns("tracks", "smallest", "median", "largest"))
    yield Table(
        f"Changes to the sound of {count_noun(len(made), 'track')} of {clean_text(str(manifest.name))}",
        columns,
        tuple(rows),
    )
    n_limited = sum(each.is_limited for each in made)
    limited = (
        f" {count_noun(n_limited, 'track')} stayed below the wanted loudness, because the peak would have risen above "
        "-1 dBFS."
        if n_limited
        else ""
    )
    yield Paragraph(f"Training, selection and held-out tracks were changed alike.{limited}", kind="meta")
