"""The section about training captions: where their fields come from, and examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from lora_bench.report.cells import number_cell, number_columns, text_columns
from lora_bench.report.formatting import clean_text, count_noun, format_count
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Block, Bullets, Cell, Code, Heading, Paragraph, Table

N_EXAMPLES = 5


def build_captions(view: RunView) -> Iterator[Block]:
    """Yield the origins of the captions' fields with numbers of tracks; nothing for runs that recorded none."""
    tracks = [track for track in view.tracks if track.caption_origins]
    if not tracks:
        return
    yield Heading(2, "Captions", "captions")
    origins = Counter(
        (field, name_origin(origin)) for track in tracks for field, origin in track.caption_origins.items()
    )
    fields = list(dict.fromkeys(field for field, _ in origins))
    rows = tuple(
        (Cell(clean_text(field)), Cell(clean_text(origin)), number_cell(n, format_count))
        for field in fields
        for (name, origin), n in origins.most_common()
        if name == field
    )
    columns = (*text_columns("field", "from"), *number_columns("tracks"))
    caption = f"Where the captions of {count_noun(len(tracks), 'track')} come from"
    yield Table(caption, columns, rows)
    examples = dict.fromkeys(track.caption for track in tracks if track.caption)
    yield Paragraph(f"{count_noun(len(examples), 'different caption')}, such as:")
    yield Bullets(tuple((Code(clean_text(text)),) for text in list(examples)[:N_EXAMPLES]))
    varied = [track.variants for track in tracks if track.variants]
    if varied:
        counts = [len(variants) for variants in varied]
        yield Paragraph(
            f"Training chose at random among {min(counts)} to {max(counts)} captions of each of "
            f"{count_noun(len(varied), 'track')}, such as:"
        )
        yield Bullets(tuple((Code(clean_text(text)),) for text in varied[0][:N_EXAMPLES]))


def name_origin(origin: str) -> str:
    """Return an origin without what is each track's own: the line of a table, the name of a sidecar."""
    without_line = re.sub(r":\d+$", "", origin)
    suffix = re.fullmatch(r".*(\.(?:txt|json))", origin, re.IGNORECASE)
    return f"{suffix[1].lower()} file next to the recording" if suffix else without_line
