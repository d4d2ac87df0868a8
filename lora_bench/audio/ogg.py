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
        begins: list[int] = []
        ends: list[int] = []
        codings: list[list[bytes]] = []
        n_bytes = len(data)
        place, n_lost, flags = start, 0, 0
        while (found := place if data[place : place + 4] == b"OggS" else data.find(b"OggS", place)) >= 0:
            n_lost += found - place
            head = data[found : found + HEAD_BYTES + 255]  # one copy of what is looked at
            if len(head) < HEAD_BYTES:
                raise AudioFileError(str(path), "is cut off (its last Ogg page is not whole)")
            body = HEAD_BYTES + head[26]
            place = found + body + sum(head[HEAD_BYTES:body])
            if place > n_bytes:
                raise AudioFileError(str(path), "is cut off (its last Ogg page is not whole)")
            was_begin, flags = flags & BEGINS, head[5]
            if flags & BEGINS:
                coding = bytes(data[found + body : found + body + 8])
                if was_begin:
                    codings[-1].append(coding)
                else:
                    begins.append(found)
                    ends.append(place)
                    codings.append([coding])
            if ends:
                ends[-1] = place
        if not flags & ENDS:
            raise AudioFileError(str(path), "is cut off (the page that ends an Ogg stream is missing)")
        if n_lost > MAX_LOST_FRAC * (len(data) - start):
            raise AudioFileError(str(path), f"is damaged ({n_lost} bytes of it are no Ogg pages)")
        return [
            Link(begin, end, tuple(found)) for begin, end, found in zip(begins, ends, codings, strict=True)
        ]
