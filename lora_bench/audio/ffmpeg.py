"""Decode and measure with FFmpeg (PyAV)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import av.error
import numpy as np

from lora_bench.audio.window import MAX_LOST_FRAC, Window
from lora_bench.errors import AudioFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TAIL_S = 2.0
# raw streams: FFmpeg guesses their length from the bitrate
WITHOUT_LENGTH = frozenset({"mp3", "aac", "ac3", "eac3", "dts", "amr", "loas", "mpeg", "mpegts"})


def decode_with_ffmpeg(
    path: Path, source: Window, *, kind: str | None = None
) -> tuple[NDArray[np.float32], int]:
    """Decode the first audio stream to [C, S].

    Args:
        path: for messages.
        source: the bytes.
        kind: FFmpeg's name of the format; None detects it.

    Raises:
        AudioFileError: there is no audio, or part of it is missing or damaged.
    """
    with _open(path, source, kind) as (container, stream):
        blocks, n_packets, n_lost = _decode_packets(path, container, stream)
        if n_lost > max(1, MAX_LOST_FRAC * n_packets):
            raise AudioFileError(str(path), f"is damaged ({n_lost} of {n_packets} packets cannot be decoded)")
        rate_hz = blocks[0][1]
        audio = np.concatenate([block for block, _ in blocks], axis=1)
        _check_promise(path, container, stream, n_packets - n_lost, audio.shape[1] / rate_hz)
        return audio, rate_hz


def measure_with_ffmpeg(path: Path, source: Window, *, kind: str | None = None) -> tuple[float, int, int]:
    """Return seconds, rate and channels; if the header is right, only the packets at the end are read.

    Raises:
        AudioFileError: as `decode_with_ffmpeg`, for faults that are visible without decoding.
    """
    with _open(path, source, kind) as (container, stream):
        frame = _decode_first(path, container, stream)
        rate_hz, channels = int(frame.sample_rate), int(frame.layout.nb_channels)
        declared_s = _declare_s(container, stream)
        if declared_s is not None:
            end_s = _find_end_s(container, stream, declared_s)
            if end_s is not None and abs(end_s - declared_s) <= MAX_LOST_FRAC * declared_s:
                return end_s, rate_hz, channels
    source.seek(0)
    with _open(path, source, kind) as (container, stream):
        n_packets, units = 0, 0
        for packet in _demux(container, stream):
            n_packets += 1
            units += packet.duration or 0
        length_s = float(units * stream.time_base) if stream.time_base else 0.0
        if not length_s:  # a container that does not time its packets
            source.seek(0)
            audio, rate_hz = decode_with_ffmpeg(path, source, kind=kind)
            return audio.shape[1] / rate_hz, rate_hz, audio.shape[0]
        _check_promise(path, container, stream, n_packets, length_s)
        return length_s, rate_hz, channels


def find_end_with_ffmpeg(path: Path, source: Window, kind: str) -> int:
    """Return the number of samples in a FLAC, from its last frame.

    Raises:
        AudioFileError: there is no frame.
    """
    with _open(path, source, kind) as (container, stream):
        end_s = _find_end_s(container, stream, 1e6)
        rate_hz = int(stream.rate or 0)
        if end_s is None or not rate_hz:
            raise AudioFileError(str(path), "is damaged (no sound follows its header)")
        return round(end_s * rate_hz)


@contextmanager
def _open(path: Path, source: Window, kind: str | None) -> Iterator[tuple[Any, Any]]:
    with av.open(source, format=kind, metadata_errors="replace") as container:
        if not container.streams.audio:
            raise AudioFileError(str(path), "holds no audio stream")
        yield container, container.streams.audio[0]


def _demux(container: Any, stream: Any, *, with_flush: bool = False) -> Iterator[Any]:
    """Yield the packets up to the end, or until FFmpeg fails."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.InvalidDataError, av.error.EOFError):
            return
        if packet.size or with_flush:
            yield packet


def _decode_packets(
    path: Path, container: Any, stream: Any
) -> tuple[list[tuple[NDArray[np.float32], int]], int, int]:
    to_float = av.AudioResampler(format="fltp")
    blocks: list[tuple[NDArray[np.float32], int]] = []
    kinds: set[tuple[int, int]] = set()
    n_packets = n_lost = 0
    for packet in _demux(container, stream, with_flush=True):
        n_packets += bool(packet.size)
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            n_lost += 1
            continue
        for frame in frames:
            kinds.add((frame.sample_rate, frame.layout.nb_channels))
            if len(kinds) > 1:
                raise AudioFileError(str(path), f"changes rate or channels midway ({sorted(kinds)})")
            rate_hz = int(frame.sample_rate)
            blocks.extend(
                (np.asarray(part.to_ndarray(), np.float32), rate_hz) for part in to_float.resample(frame)
            )
    if not blocks:
        raise AudioFileError(str(path), "holds no audio that can be decoded")
    return blocks, n_packets, n_lost


def _decode_first(path: Path, container: Any, stream: Any) -> Any:
    for packet in _demux(container, stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        if frames:
            return frames[0]
    raise AudioFileError(str(path), "holds no audio that can be decoded")


def _declare_s(container: Any, stream: Any) -> float | None:
    """Return the declared length of the file; FFmpeg's estimates from a bitrate do not count."""
    if WITHOUT_LENGTH & set(container.format.name.split(",")):
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _find_end_s(container: Any, stream: Any, declared_s: float) -> float | None:
    """Return the end of the last packet, found by a jump to near the declared end; None if there is no packet."""
    if not stream.time_base:
        return None
    start = stream.start_time or 0
    try:
        container.seek(int(max(0.0, declared_s - TAIL_S) / stream.time_base) + start, stream=stream)
    except av.error.FFmpegError:
        return None
    end: int | None = None
    for packet in _demux(container, stream):
        if packet.pts is not None:
            end = max(end or 0, packet.pts + (packet.duration or 0))
    return None if end is None else float((end - start) * stream.time_base)


def _check_promise(path: Path, container: Any, stream: Any, n_packets: int, length_s: float) -> None:
    """Refuse a file with a missing part.

    An mp4's table of packets counts more than its durations, which cutting tools leave unchanged.
    """
    if "mp4" in container.format.name.split(",") and stream.frames:
        if n_packets < (1.0 - MAX_LOST_FRAC) * stream.frames:
            raise AudioFileError(
                str(path),
                f"is damaged (its header promises {stream.frames} packets, {n_packets} can be read)",
            )
        return
    declared_s = _declare_s(container, stream)
    if declared_s is not None and length_s < (1.0 - MAX_LOST_FRAC) * declared_s - 0.1:
        raise AudioFileError(
            str(path), f"is damaged (its header promises {declared_s:.2f} s, {length_s:.2f} s can be decoded)"
        )
