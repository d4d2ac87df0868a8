"""Files made of chunks (wav, RF64, W64, aiff, caf, au): find the samples even if sizes in the header are wrong.

Sizes are wrong if a recorder crashed, a program streamed, or 32 bits were not enough.  The sound then ends with the
file, unless other chunks follow it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from lora_bench.audio.pcm import SUBTYPES_OF_AU, Order, Samples, describe_samples
from lora_bench.audio.window import MAX_LOST_FRAC
from lora_bench.errors import AudioFileError

MAX_LOST_BYTES = 256
MAX_CHUNKS = 10_000
W64_GUIDS = {b"fmt \xf3\xac\xd3\x11": b"fmt ", b"data\xf3\xac\xd3\x11": b"data"}
OFTEN_LAST = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"cue ", b"smpl", b"PEAK", b"iXML", b"_PMX", b"info")
MAGICS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"riff", b"caff", b".snd")
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")


@dataclass(frozen=True)
class _Family:
    """Layout of the chunks in one kind of file."""

    first: int
    id_bytes: int = 4
    size_bytes: int = 4
    order: Order = "little"
    sizes_count_heads: bool = False
    align: int = 2
    data_id: bytes = b"data"
    data_head: int = 0  # bytes of the data chunk before the sound


@dataclass(frozen=True)
class _Data:
    """The data chunk as declared; `size` is None if the header leaves it open."""

    start: int
    size: int | None
    is_last: bool


def locate_samples(path: Path, start: int = 0) -> Samples | None:
    """Find the uncompressed samples of a file.

    Returns:
        None for other codings, and for headers that cannot be parsed.

    Raises:
        AudioFileError: the file is cut off, contains a second file, or has a coding that needs correct sizes.
    """
    n_bytes = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(start)
        head = stream.read(40)
        if head[:4] == b".snd":
            return _locate_au(path, stream, start, n_bytes)
        family = _choose_family(head)
        if family is None:
            return None
        facts, data = _read_chunks(stream, family, start, n_bytes)
        if data is None:
            return None
        promised = _promise_whole(head, family, facts, start)
        found = describe_samples(head[:4], facts)
        length = _measure_data(path, stream, data, n_bytes, promised)
        if found is None:
            if length != data.size and data.size is not None and abs(length - data.size) > MAX_LOST_BYTES:
                raise AudioFileError(
                    str(path),
                    f"has a header that says {data.size} bytes of sound where {length} follow, and its coding "
                    "cannot be read without them; export it again",
                )
            return None
        return replace(found, start=data.start, n_bytes=length - length % found.frame_bytes)


def _choose_family(head: bytes) -> _Family | None:
    if head[8:12] == b"WAVE":
        return _Family(12, order="big" if head[:4] == b"RIFX" else "little")
    if head[:4] == b"FORM" and head[8:12] in {b"AIFF", b"AIFC"}:
        return _Family(12, order="big", data_id=b"SSND", data_head=8)
    if head[:4] == b"caff":
        return _Family(8, size_bytes=8, order="big", align=1, data_head=4)
    if head[:4] == b"riff":
        return _Family(40, id_bytes=16, size_bytes=8, sizes_count_heads=True, align=8)
    return None


def _read_chunks(
    stream: BinaryIO, family: _Family, start: int, n_bytes: int
) -> tuple[dict[bytes, bytes], _Data | None]:
    """Walk over the chunks; return the first bytes of each, and the data chunk."""
    facts: dict[bytes, bytes] = {}
    data: _Data | None = None
    place, head_bytes = start + family.first, family.id_bytes + family.size_bytes
    for _ in range(MAX_CHUNKS):
        stream.seek(place)
        head = stream.read(head_bytes)
        name = W64_GUIDS.get(head[:8], head[:8]) if family.id_bytes == 16 else head[:4]
        body = place + head_bytes
        size = int.from_bytes(head[family.id_bytes :], family.order)
        size -= head_bytes * family.sizes_count_heads
        fits = 0 <= size <= n_bytes - body
        if len(head) < head_bytes or not _is_name(name, fits=fits):
            break
        if data is not None:
            data = replace(data, is_last=False)
        if name == family.data_id and data is None:
            data = _read_data(facts, family, body, size)
            size = data.size + (data.start - body) if data.size is not None else n_bytes
        else:
            facts.setdefault(name, stream.read(min(max(size, 0), 64)))
        if size < 0 or body + size > n_bytes:
            break
        place = _step(stream, body + size, family, n_bytes)
    return facts, data


def _read_data(facts: dict[bytes, bytes], family: _Family, body: int, size: int) -> _Data:
    start = body + family.data_head
    size -= family.data_head
    if b"ds64" in facts and size == 2**32 - 1:
        size = int.from_bytes(facts[b"ds64"][8:16], "little")
    unknown = 2 ** (8 * family.size_bytes) - 1 - family.data_head
    # writers that cannot seek put the highest number there, or about half of it
    is_open = size >= unknown - 4096 or (family.size_bytes == 4 and abs(size - 2**31) <= 4096)
    return _Data(start, None if is_open else max(size, 0), is_last=True)


def _step(stream: BinaryIO, end: int, family: _Family, n_bytes: int) -> int:
    """Return the start of the next chunk; some writers omit the padding byte."""
    padded = end + -end % family.align
    if family.align != 2 or padded == end or padded + 4 > n_bytes:
        return padded
    stream.seek(end)
    near = stream.read(5)
    return end if near[:4] in OFTEN_LAST and near[1:] not in OFTEN_LAST else padded


def _is_name(name: bytes, *, fits: bool) -> bool:
    """Return whether four (or sixteen) bytes are the name of a chunk rather than sound."""
    is_text = all(32 <= byte < 127 for byte in name[:4])
    return is_text and (fits or name[:4] in {*OFTEN_LAST, b"data", b"SSND"})


def _promise_whole(head: bytes, family: _Family, facts: dict[bytes, bytes], start: int) -> int | None:
    """Return the length of the whole file according to its header; None if it does not say."""
    if head[:4] == b"caff":
        return None
    if head[:4] == b"riff":
        return start + int.from_bytes(head[16:24], "little")
    size = int.from_bytes(head[4:8], family.order)
    if size == 2**32 - 1 and b"ds64" in facts:
        size = int.from_bytes(facts[b"ds64"][:8], "little")
    return start + 8 + size


def _measure_data(path: Path, stream: BinaryIO, data: _Data, n_bytes: int, promised: int | None) -> int:
    """Return the number of bytes of sound.

    Raises:
        AudioFileError: more than a small part of them is missing.
    """
    there = n_bytes - data.start
    if data.size is None:
        return there
    missing = data.size - there
    if missing > max(MAX_LOST_BYTES, MAX_LOST_FRAC * data.size):
        if (
            promised is not None and abs(promised - n_bytes) <= 2
        ):  # the file is whole; only this size is wrong
            return there
        raise AudioFileError(
            str(path), f"is cut off (its header promises {data.size} bytes of sound, there are {there})"
        )
    if missing >= 0:
        return there
    stream.seek(data.start + data.size)
    rest = stream.read(17)
    if any(magic in {rest[at : at + 4] for at in (0, 1)} for magic in MAGICS):
        raise AudioFileError(str(path), "holds a second sound file behind the first one; split it")
    if not data.is_last or (data.size and -missing <= MAX_LOST_FRAC * data.size):
        return data.size
    if rest.startswith(TAGS) or (data.size and _is_zero(stream, data.start + data.size)):
        return data.size
    return there


def _is_zero(stream: BinaryIO, start: int) -> bool:
    stream.seek(start)
    while block := stream.read(1 << 20):
        if block.strip(b"\0"):
            return False
    return True


def _locate_au(path: Path, stream: BinaryIO, start: int, n_bytes: int) -> Samples | None:
    stream.seek(start + 4)
    fields = stream.read(20)
    offset, size, coding, rate_hz, channels = (
        int.from_bytes(fields[at : at + 4], "big") for at in range(0, 20, 4)
    )
    if coding not in SUBTYPES_OF_AU or not channels or not 24 <= offset <= n_bytes:
        return None
    subtype, width = SUBTYPES_OF_AU[coding]
    data = _Data(start + offset, None if size >= 2**32 - 4096 else size, is_last=True)
    length = _measure_data(path, stream, data, n_bytes, None)
    length -= length % (width * channels)
    return Samples(start + offset, length, width * channels, rate_hz, channels, subtype, "BIG")
