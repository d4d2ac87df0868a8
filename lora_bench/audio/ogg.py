"""Ogg: find the links of a chained file by a walk over its pages (RFC 3533)."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from lora_bench.audio.window import MAX_LOST_FRAC
from lora_bench.errors import AudioFileError

HEAD_BYTES = 27
BEGINS, ENDS = 2, 4  # flags of a page


@dataclass(frozen=True)
class Link:
    """One link of a chain: streams that start and end together.

    Attributes:
        start, end: its bytes in the file.
        codings: the first bytes of each of its streams.
    """

    start: int
    end: int
    codings: tuple[bytes, ...]


def read_links(path: Path, start: int = 0) -> list[Link]:
    """Return the links of a file; nearly all files have one.

    Raises:
        AudioFileError: the file is cut off, or more than a small part of it is not Ogg.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        links: list[Link] = []
        place, n_lost, was_begin, has_ended = start, 0, False, False
        while (found := data.find(b"OggS", place)) >= 0:
            n_lost += found - place
            n_segments = data[found + 26] if found + HEAD_BYTES <= len(data) else 0
            body = found + HEAD_BYTES + n_segments
            page_end = body + sum(data[found + HEAD_BYTES : body])
            if found + HEAD_BYTES > len(data) or page_end > len(data):
                raise AudioFileError(str(path), "is cut off (its last Ogg page is not whole)")
            flags = data[found + 5]
            if flags & BEGINS:
                coding = bytes(data[body : body + 8])
                if was_begin:
                    links[-1] = Link(links[-1].start, page_end, (*links[-1].codings, coding))
                else:
                    links.append(Link(found, page_end, (coding,)))
            elif links:
                links[-1] = Link(links[-1].start, page_end, links[-1].codings)
            was_begin, has_ended = bool(flags & BEGINS), bool(flags & ENDS)
            place = page_end
        if not has_ended:
            raise AudioFileError(str(path), "is cut off (the page that ends an Ogg stream is missing)")
        if n_lost > MAX_LOST_FRAC * (len(data) - start):
            raise AudioFileError(str(path), f"is damaged ({n_lost} bytes of it are no Ogg pages)")
        return links
