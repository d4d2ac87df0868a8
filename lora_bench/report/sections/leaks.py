"""The section about near-duplicates: recordings of the same music, and on which sides of the split they are."""

from __future__ import annotations

from collections.abc import Iterator

from lora_bench.report.cells import number_cell, number_columns, text_columns
from lora_bench.report.formatting import clean_text, count_noun
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Block, Cell, Heading, Paragraph, Table
from lora_bench.results.run_files import ManifestEntry

MAX_PAIRS = 100
_SIDES = {"train": "training", "selection": "selection", "eval": "held out"}


def build_leaks(view: RunView) -> Iterator[Block]:
    """Yield pairs of near-duplicates with their sides; nothing if the run did not search for them."""
    searched = [manifest for manifest in view.manifests if manifest.near_duplicates is not None]
    if not searched:
        return
    yield Heading(2, "Near-duplicates", "near-duplicates")
    for manifest in searched:
        yield from _describe(manifest)


def _describe(manifest: ManifestEntry) -> Iterator[Block]:
    sides = {track.source: _SIDES.get(track.split or "", "unknown") for track in manifest.tracks}
    pairs = sorted(
        (
            (sides.get(pair.first, "unknown"), sides.get(pair.second, "unknown"), pair)
            for pair in manifest.near_duplicates or ()
        ),
        key=lambda row: (row[0] == row[1], -row[2].correlation),
    )
    n_leaks = sum(first != second for first, second, _ in pairs)
    found = (
        f"{clean_text(str(manifest.name))}: {count_noun(len(pairs), 'pair')} of recordings of the same music"
    )
    if n_leaks:
        yield Paragraph(
            f"{found}, {n_leaks} of them on different sides: held-out scores are too good by as much. Set "
            "dataset.split.near_duplicates to together.",
            is_warning=True,
        )
    else:
        yield Paragraph(f"{found}, none on different sides.")
    if not pairs:
        return
    rows = tuple(
        (
            Cell(clean_text(pair.first)),
            Cell(first, tone="worse" if first != second else "plain"),
            Cell(clean_text(pair.second)),
            Cell(second, tone="worse" if first != second else "plain"),
            number_cell(pair.correlation, lambda value: f"{value:.2f}"),
        )
        for first, second, pair in pairs[:MAX_PAIRS]
    )
    columns = (*text_columns("recording", "side", "recording", "side"), *number_columns("correlation"))
    yield Table("Near-duplicates, those on different sides first", columns, rows)
