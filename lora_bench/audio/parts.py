"""Decode and measure one part of a file with libsndfile, or with FFmpeg if libsndfile does not open it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from lora_bench.audio.chunks import Samples
from lora_bench.audio.ffmpeg import decode_with_ffmpeg, measure_with_ffmpeg
from lora_bench.audio.window import MAX_LOST_FRAC, Window
from lora_bench.errors import AudioFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 1 << 18


@dataclass(frozen=True)
class AudioHeader:
    """Length, rate and channels of a file."""

    duration_s: float
    sample_rate_hz: int
    channels: int


@dataclass(frozen=True)
class Part:
    """Bytes of a file that one decoder reads: all of it, or one link of a chain.

    Attributes:
        samples: the uncompressed samples; None for other codings.
        kind: FFmpeg's name of the format, to skip libsndfile; "" tries libsndfile first; None lets FFmpeg detect it.
    """

    path: Path
    start: int = 0
    end: int | None = None
    head: bytes = b""
    samples: Samples | None = None
    kind: str | None = ""

    def open(self) -> Window:
        """Open the bytes as a file."""
        return Window(self.path, self.start, self.end, self.head)


def _open_sndfile(part: Part) -> soundfile.SoundFile:
    """Open with libsndfile; if it would cut uncompressed samples short, open them without their header."""
    is_whole = not part.start and part.end is None and not part.head
    name: Any = os.fsencode(part.path) if is_whole else part.open()  # bytes, because names need not be UTF-8
    samples = part.samples
    if samples is None:
        return soundfile.SoundFile(name)
    try:
        sound = soundfile.SoundFile(name)
        if sound.frames == samples.n_frames and sound.channels == samples.channels:
            return sound
        sound.close()
    except soundfile.SoundFileError:
        pass
    window: Any = Window(part.path, samples.start, samples.start + samples.n_bytes)
    return soundfile.SoundFile(
        window,
        samplerate=samples.sample_rate_hz,
        channels=samples.channels,
        subtype=samples.subtype,
        endian=samples.endian,
        format="RAW",
    )


def measure_part(part: Part) -> AudioHeader:
    """Measure length, rate and channels of a part; decode it only if its header cannot be right.

    Raises:
        AudioFileError: it cannot be read.
    """
    if part.kind == "":
        try:
            sound = _open_sndfile(part)
        except soundfile.SoundFileError as error:
            return _measure_rest(part, error)
        with sound:
            n_frames = sound.frames
            if part.samples is None and not _reaches_end(sound):
                n_frames = _read(part.path, sound).shape[1]
            return AudioHeader(n_frames / sound.samplerate, sound.samplerate, sound.channels)
    return _measure_rest(part, None)


def _measure_rest(part: Part, refusal: Exception | None) -> AudioHeader:
    with _explain_both(part.path, refusal), closing(part.open()) as source:
        return AudioHeader(*measure_with_ffmpeg(part.path, source, kind=part.kind or None))


def decode_part(part: Part) -> tuple[NDArray[np.float32], int]:
    """Decode all samples of a part, [C, S]; return them and their rate.

    Raises:
        AudioFileError: it cannot be read, or is damaged.
    """
    refusal: Exception | None = None
    if part.kind == "":
        try:
            sound = _open_sndfile(part)
        except soundfile.SoundFileError as error:
            refusal = error
        else:
            with sound:
                return _read(part.path, sound), int(sound.samplerate)
    with _explain_both(part.path, refusal), closing(part.open()) as source:
        return decode_with_ffmpeg(part.path, source, kind=part.kind or None)


@contextmanager
def _explain_both(path: Path, refusal: Exception | None) -> Iterator[None]:
    """Report the reasons of both decoders."""
    try:
        yield
    except AudioFileError:
        raise
    except (OSError, ValueError) as error:
        reasons = [] if refusal is None else [f"libsndfile: {_shorten(refusal)}"]
        reasons.append(f"FFmpeg: {getattr(error, 'strerror', None) or error}")
        raise AudioFileError(str(path), f"cannot be decoded ({'; '.join(reasons)})") from error


def _shorten(error: Exception) -> str:
    """Return the reason of a libsndfile error, without the file's name."""
    return str(error).rpartition(": ")[2].rstrip(".")


def _reaches_end(sound: soundfile.SoundFile) -> bool:
    """Return whether the last sample that the header promises exists."""
    if not 0 < sound.frames < 2**40:
        return False
    try:
        sound.seek(sound.frames - 1)
        found = len(sound.read(1, dtype="float32", always_2d=True)) == 1
        sound.seek(0)
    except soundfile.SoundFileError:
        return False
    return found


def _read(path: Path, sound: soundfile.SoundFile) -> NDArray[np.float32]:
    """Read all samples, [C, S], in blocks, because a header may promise more than memory holds."""
    blocks: list[NDArray[np.float32]] = []
    n_left = sound.frames
    try:
        while n_left > 0:
            block = sound.read(min(n_left, BLOCK), dtype="float32", always_2d=True)
            if not len(block):
                break
            blocks.append(np.asarray(block, np.float32))
            n_left -= len(block)
    except soundfile.SoundFileError as error:
        raise AudioFileError(str(path), f"is damaged (libsndfile: {str(error).rstrip('.')})") from error
    n_samples = sum(map(len, blocks))
    if n_samples < (1.0 - MAX_LOST_FRAC) * sound.frames:
        raise AudioFileError(
            str(path), f"is damaged (its header promises {sound.frames} samples, {n_samples} can be decoded)"
        )
    if not blocks:
        return np.zeros((sound.channels, 0), np.float32)
    return np.concatenate(blocks).T
