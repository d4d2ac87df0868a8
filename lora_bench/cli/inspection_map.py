"""The map of the tracks on the page of `lora-bench inspect`: a plot whose dots lead to players."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from lora_bench.report.formatting import clean_text
from lora_bench.report.plots.scores import count_legend_rows, draw_legend
from lora_bench.report.writers.document import Block, Bullets, Code, Figure, Heading, Paragraph
from lora_bench.report.writers.svg import SERIES_COLOURS, Canvas
from lora_bench.stages.dataset.track_map import TrackMap

WIDTH, HEIGHT = 760.0, 440.0
LEFT, RIGHT, TOP, BOTTOM = 24.0, 736.0, 16.0, 380.0
MAX_GROUPS = 6
MAX_NEAR = 40
OTHERS = "other folders"
SIDES = {"train": "to train on", "selection": "to select by", "eval": "held out"}
TOP_FOLDER = "no subfolder"


def write_map(found: TrackMap, anchors: Mapping[str, str]) -> Iterator[Block]:
    """Yield the plot and what it shows in words.

    Args:
        found: the map.
        anchors: of the players on the page, by source.
    """
    yield Heading(2, "Map", "map")
    if found.note is not None:
        yield Paragraph(f"The sides of the split are not known: {clean_text(found.note)}")
    yield _draw(found, anchors)
    if found.near:
        mend = Code("dataset.split.near_duplicates: together")
        yield Paragraph(("Near-duplicates (", mend, " keeps them on one side):"))
        items = [
            f"{clean_text(pair.first)} and {clean_text(pair.second)} (correlation {pair.correlation:.2f})"
            for pair in found.near[:MAX_NEAR]
        ]
        n_more = len(found.near) - MAX_NEAR
        yield Bullets((*items, *([f"and {n_more} more"] if n_more > 0 else [])))


def name_group(found: TrackMap, group: str) -> str:
    """Return a side or a folder in words."""
    if found.grouped_by == "side":
        return SIDES.get(group, group)
    return TOP_FOLDER if group == "." else group


def _draw(found: TrackMap, anchors: Mapping[str, str]) -> Figure:
    title = f"Map of {len(found.points)} tracks by timbre"
    names = _choose_names(found)
    rows_below = 20.0 * (count_legend_rows(names) - 1) if len(names) > 1 else 0.0
    canvas = Canvas(WIDTH, HEIGHT + rows_below, title)
    colours = {name: SERIES_COLOURS[1 + place] for place, name in enumerate(names) if name != OTHERS}
    held_out = SIDES["eval"] if found.grouped_by == "side" else ""
    places = _place_points(found)
    for pair in found.near:
        if pair.first in places and pair.second in places:
            canvas.line((*places[pair.first], *places[pair.second]), kind="lb-floor")
    for point in found.points:
        name = name_group(found, point.group)
        canvas.series = name if name in colours else OTHERS if len(names) > 1 else ""
        canvas.dot(
            *places[point.source],
            colours.get(name, SERIES_COLOURS[0]),
            hollow=name == held_out,
            hint=clean_text(f"{point.source} ({name})" if len(names) > 1 else point.source),
            href=f"#{anchors[point.source]}" if point.source in anchors else None,
        )
    if len(names) > 1:
        others = {OTHERS: SERIES_COLOURS[0]} if OTHERS in names else {}
        draw_legend(canvas, colours | others, top=HEIGHT - 14, hollow=held_out)
    canvas.series = ""
    first, second = (f"{share:.0%} of the variance" for share in found.explained)
    canvas.text(
        (LEFT + RIGHT) / 2, BOTTOM + 20, f"across: {first}; up: {second}", anchor="middle", kind="lb-soft"
    )
    colouring = {
        "side": "Colours are the sides of the split; held-out tracks are hollow.",
        "folder": "Colours are folders.",
    }
    words = (
        "Tracks near each other have a similar timbre: mean and spread of MFCC 2 to 20, in two principal components.",
        colouring[found.grouped_by] if len(names) > 1 else "",
        "Dashed lines join near-duplicates." if found.near else "",
        "Choose a dot to hear its track." if anchors else "",
    )
    return Figure("map", title, " ".join(filter(None, words)), canvas.render())


def _choose_names(found: TrackMap) -> list[str]:
    """Return the groups that have a colour, the largest first (sides in their order), and whether there are others."""
    counts = Counter(name_group(found, point.group) for point in found.points)
    if found.grouped_by == "side":
        return [name for name in SIDES.values() if name in counts]
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return names if len(names) <= MAX_GROUPS + 1 else [*names[:MAX_GROUPS], OTHERS]


def _place_points(found: TrackMap) -> dict[str, tuple[float, float]]:
    """Return places on the drawing by source; both dimensions have one scale, so distances are those of the map."""
    xs, ys = [point.x for point in found.points], [point.y for point in found.points]
    if not xs:
        return {}
    middle = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    room = (RIGHT - LEFT - 24) / (max(xs) - min(xs) or 1.0), (BOTTOM - TOP - 24) / (max(ys) - min(ys) or 1.0)
    scale = min(room)
    return {
        point.source: (
            (LEFT + RIGHT) / 2 + scale * (point.x - middle[0]),
            (TOP + BOTTOM) / 2 - scale * (point.y - middle[1]),
        )
        for point in found.points
    }
