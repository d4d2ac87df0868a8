"""Uncompressed samples: read their description from each kind of header."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

Order = Literal["little", "big"]
PCM_BY_WIDTH = {1: "PCM_U8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}
SUBTYPES_OF_WAV = {3: {4: "FLOAT", 8: "DOUBLE"}, 6: {1: "ALAW"}, 7: {1: "ULAW"}, 1: PCM_BY_WIDTH}
SUBTYPES_OF_AIFF = {
    b"fl32": "FLOAT", b"FL32": "FLOAT", b"fl64": "DOUBLE", b"FL64": "DOUBLE",
    b"alaw": "ALAW", b"ALAW": "ALAW", b"ulaw": "ULAW", b"ULAW": "ULAW",
}  # fmt: skip
SUBTYPES_OF_AU = {1: ("ULAW", 1), 2: ("PCM_S8", 1), 3: ("PCM_16", 2), 4: ("PCM_24", 3), 5: ("PCM_32", 4),
                  6: ("FLOAT", 4), 7: ("DOUBLE", 8), 27: ("ALAW", 1)}  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """Uncompressed samples in a file.

    Attributes:
        start: offset of the first one.
        n_bytes: their size, whole frames only.
        frame_bytes: size of one sample in all channels.
        subtype, endian: libsndfile's names.
    """

    start: int
    n_bytes: int
    frame_bytes: int
    sample_rate_hz: int
    channels: int
    subtype: str
    endian: str

    @property
    def n_frames(self) -> int:
        """Samples per channel."""
        return self.n_bytes // self.frame_bytes


def describe_samples(magic: bytes, facts: dict[bytes, bytes]) -> Samples | None:
    """Describe the samples; None unless they are uncompressed."""
    order: Order = "little" if magic in {b"RIFF", b"RF64", b"BW64", b"riff"} else "big"
    if magic == b"FORM":
        return _describe_aiff(facts.get(b"COMM", b""))
    if magic == b"caff":
        return _describe_caf(facts.get(b"desc", b""))
    form = facts.get(b"fmt ", b"")
    if len(form) < 16:
        return None
    tag, channels = (int.from_bytes(form[at : at + 2], order) for at in (0, 2))
    rate_hz = int.from_bytes(form[4:8], order)
    if tag == 0xFFFE and len(form) >= 26:
        tag = int.from_bytes(form[24:26], order)
    frame_bytes = int.from_bytes(form[12:14], order)
    if not channels or not frame_bytes or frame_bytes % channels:
        return None
    subtype = SUBTYPES_OF_WAV.get(tag, {}).get(frame_bytes // channels)
    if subtype is None:
        return None
    return Samples(0, 0, frame_bytes, rate_hz, channels, subtype, order.upper())


def _describe_aiff(common: bytes) -> Samples | None:
    if len(common) < 18:
        return None
    channels, bits = (int.from_bytes(common[at : at + 2], "big") for at in (0, 6))
    exponent, mantissa = int.from_bytes(common[8:10], "big"), int.from_bytes(common[10:18], "big")
    shift = 16383 + 63 - exponent  # an 80-bit float
    rate_hz = mantissa >> shift if 0 <= shift < 64 else 0
    coding = common[18:22]
    width = (bits + 7) // 8
    endian = "LITTLE" if coding == b"sowt" else "BIG"
    subtype = SUBTYPES_OF_AIFF.get(coding)
    if subtype is not None:
        width = {"FLOAT": 4, "DOUBLE": 8}.get(subtype, 1)
    elif coding in {b"", b"NONE", b"twos", b"sowt", b"in24", b"in32"}:
        subtype = "PCM_S8" if width == 1 else PCM_BY_WIDTH.get(width)
    if subtype is None or not channels:
        return None
    return Samples(0, 0, width * channels, rate_hz, channels, subtype, endian)


def _describe_caf(description: bytes) -> Samples | None:
    if len(description) < 32:
        return None
    rate_hz, coding, flags, frame_bytes, per_packet, channels, _ = struct.unpack(
        ">d4sIIIII", description[:32]
    )
    if per_packet != 1 or not channels or not frame_bytes or not 0 < rate_hz < 2**31:
        return None
    width = frame_bytes // channels
    if coding == b"lpcm":
        subtype = (
            {4: "FLOAT", 8: "DOUBLE"}.get(width) if flags & 1 else (PCM_BY_WIDTH | {1: "PCM_S8"}).get(width)
        )
    else:
        subtype = {b"alaw": "ALAW", b"ulaw": "ULAW"}.get(coding)
    if subtype is None:
        return None
    return Samples(0, 0, frame_bytes, int(rate_hz), channels, subtype, "LITTLE" if flags & 2 else "BIG")
