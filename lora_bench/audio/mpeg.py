"""MPEG audio (mp3, mp2): count frames to get the length, because length headers are often wrong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

RATES_HZ = (44_100, 48_000, 32_000)
# ISO 11172-3 and 13818-3, kbit/s by (MPEG-1, layer)
KBITS: dict[tuple[bool, int], tuple[int, ...]] = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
KBITS[False, 3] = KBITS[False, 2]
N_SURE = 3
"""Frames in a row that make a chance match unlikely."""


@dataclass(frozen=True)
class Frame:
    """One frame header; `n_bytes` includes the header."""

    stream: tuple[int, int, int]  # version bits, layer, rate: the same in all frames of a stream
    n_bytes: int
    n_samples: int
    sample_rate_hz: int
    channels: int


@dataclass(frozen=True)
class Frames:
    """All frames of a file.

    Attributes:
        start: offset of the first frame.
        n_bytes: from the first frame to the end of the last one.
        promised_bytes: length of the file according to the first frame; None if it does not say.
        promised_samples: the same in samples.
    """

    start: int
    n_bytes: int
    n_samples: int
    sample_rate_hz: int
    channels: int
    promised_bytes: int | None
    promised_samples: int | None


@lru_cache(maxsize=4096)
def read_frame(header: bytes) -> Frame | None:
    """Read the four bytes of a frame header; None if they are not one, or have a free bitrate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in {0, 15} or rate == 3:
        return None
    is_first = version == 3
    rate_hz = RATES_HZ[rate] >> (0 if is_first else 1 if version == 2 else 2)
    n_samples = 384 if layer == 1 else 576 if layer == 3 and not is_first else 1152
    bits_per_s, padding = KBITS[is_first, layer][bitrate - 1] * 1000, header[2] >> 1 & 1
    n_bytes = (
        (12 * bits_per_s // rate_hz + padding) * 4
        if layer == 1
        else n_samples // 8 * bits_per_s // rate_hz + padding
    )
    channels = 1 if header[3] >> 6 == 3 else 2
    return Frame((version, layer, rate_hz), n_bytes, n_samples, rate_hz, channels)


def find_first_frame(data: bytes, begin: int = 0) -> int | None:
    """Return the offset of the first of three frames in a row (fewer at the end of the data)."""
    place = data.find(b"\xff", begin)
    while place >= 0:
        frame = read_frame(data[place : place + 4])
        if frame is not None and _follows(data, place, frame):
            return place
        place = data.find(b"\xff", place + 1)
    return None


def _follows(data: bytes, place: int, first: Frame) -> bool:
    frame: Frame | None = first
    for _ in range(N_SURE - 1):
        assert frame is not None
        place += frame.n_bytes
        if place == len(data):
            return True
        frame = read_frame(data[place : place + 4])
        if frame is None or frame.stream != first.stream:
            return False
    return True


def count_frames(data: bytes, begin: int = 0) -> Frames | None:
    """Count the samples of all frames, skipping anything between them; None if there are no frames."""
    start = find_first_frame(data, begin)
    if start is None:
        return None
    first = read_frame(data[start : start + 4])
    assert first is not None
    head = data[start : start + first.n_bytes]
    promised_frames, promised_bytes = _read_promise(head)
    has_promise = any(mark in head[:64] for mark in (b"Xing", b"Info", b"VBRI"))
    place, end, n_samples = start, start, 0
    while place + 4 <= len(data):
        frame = read_frame(data[place : place + 4])
        if frame is None or frame.stream != first.stream:
            found = find_first_frame(data, place + 1)
            if found is None:
                break
            place = found
            continue
        place += frame.n_bytes
        if place <= len(data):
            end = place
            n_samples += frame.n_samples
    if has_promise:
        n_samples -= first.n_samples
    return Frames(
        start,
        end - start,
        n_samples,
        first.sample_rate_hz,
        first.channels,
        promised_bytes,
        None if promised_frames is None else promised_frames * first.n_samples,
    )


def _read_promise(frame: bytes) -> tuple[int | None, int | None]:
    """Return frames and bytes from a Xing, Info or VBRI header in the first frame."""
    for mark in (b"Xing", b"Info"):
        place = frame.find(mark, 0, 64)
        if place >= 0:
            flags = int.from_bytes(frame[place + 4 : place + 8], "big")
            fields = [int.from_bytes(frame[place + at : place + at + 4], "big") for at in (8, 12)]
            n_frames = fields[0] if flags & 1 else None
            n_bytes = fields[flags & 1] if flags & 2 else None
            return n_frames, n_bytes
    place = frame.find(b"VBRI", 0, 64)
    if place >= 0:
        n_bytes, n_frames = (int.from_bytes(frame[place + at : place + at + 4], "big") for at in (10, 14))
        return n_frames, n_bytes
    return None, None
