"""Read audio files: length, rate and channels, or all samples.

The first bytes of a file, not its name, decide how it is read.  libsndfile decodes what it opens.  FFmpeg decodes
everything else, and mp3, whose length libsndfile guesses from the first frame.  A file that libsndfile opened and then
failed on is never retried with FFmpeg, which would hide the damage.  Lengths in headers are checked against the file.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.audio.chunks import locate_samples
from lora_bench.audio.content import Content, identify
from lora_bench.audio.ffmpeg import find_end_with_ffmpeg
from lora_bench.audio.mpeg import Frames, count_frames
from lora_bench.audio.ogg import read_links
from lora_bench.audio.parts import AudioHeader, Part, decode_part, measure_part
from lora_bench.audio.window import MAX_LOST_FRAC, Window
from lora_bench.errors import AudioFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATES_HZ = range(1_000, 1_000_001)
MAX_CHANNELS = 64
FLAC_TOTAL = slice(21, 26)  # bytes of `fLaC`, a block head and STREAMINFO that hold the number of samples


def read_header(path: Path) -> AudioHeader:
    """Measure length, rate and channels; decode sound only if headers cannot be trusted.

    Raises:
        AudioFileError: as `load_audio`, for faults that are visible without decoding.
    """
    with _as_audio_errors(path):
        content = identify(path)
        if content.kind == "mpeg":
            frames = _count_mpeg(path, content)
            headers = [
                AudioHeader(frames.n_samples / frames.sample_rate_hz, frames.sample_rate_hz, frames.channels)
            ]
        else:
            headers = [measure_part(part) for part in _list_parts(path, content)]
        for header in headers:
            _check_sane(path, header.sample_rate_hz, header.channels)
        _check_same(path, [(header.sample_rate_hz, header.channels) for header in headers])
        duration_s = sum(header.duration_s for header in headers)
        if duration_s <= 0.0:
            raise AudioFileError(str(path), "holds no samples")
        return AudioHeader(duration_s, headers[0].sample_rate_hz, headers[0].channels)


def load_audio(path: Path) -> tuple[NDArray[np.float32], int]:
    """Load all samples of a file, float32 [C, S], and its sample rate in Hz.

    Raises:
        AudioFileError: the file is missing, empty, not audio, damaged (or shorter than its header promises), or
            contains NaN or infinite samples.
    """
    with _as_audio_errors(path):
        content = identify(path)
        if content.kind == "flac":
            _refuse_second_flac(path, content.start)
        decoded = [decode_part(part) for part in _list_parts(path, content)]
        _check_same(path, [(rate_hz, len(audio)) for audio, rate_hz in decoded])
        rate_hz = decoded[0][1]
        _check_sane(path, rate_hz, len(decoded[0][0]))
        audio = decoded[0][0] if len(decoded) == 1 else np.concatenate([part for part, _ in decoded], axis=1)
    if audio.shape[1] == 0:
        raise AudioFileError(str(path), "holds no samples")
    if not np.isfinite(audio).all():
        raise AudioFileError(str(path), "holds NaN or infinite samples; export it again")
    return np.ascontiguousarray(audio, dtype=np.float32), rate_hz


@contextmanager
def _as_audio_errors(path: Path) -> Iterator[None]:
    """Turn any error of a decoder into one that names the file."""
    try:
        yield
    except AudioFileError:
        raise
    except MemoryError as error:
        raise AudioFileError(str(path), "needs more memory than there is") from error
    except Exception as error:  # decoders raise errors of any type for damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise AudioFileError(
            str(path), f"cannot be decoded ({type(error).__name__}: {reason or 'no reason given'})"
        ) from error


def _list_parts(path: Path, content: Content) -> list[Part]:
    """List the parts of a file to decode, in order."""
    if content.kind == "ogg":
        links = read_links(path, content.start)
        # a part that is the whole file is opened by its name, which is faster than through a window
        return [
            Part(
                path,
                link.start,
                None if link.end == content.n_bytes else link.end,
                kind="ogg" if _needs_ffmpeg(link.codings) else "",
            )
            for link in links
        ]
    if content.kind == "mpeg":
        return [Part(path, _count_mpeg(path, content).start, kind="mp3")]
    if content.kind == "flac":
        return [Part(path, content.start, head=_mend_flac(path, content.start))]
    if content.kind == "chunks":
        samples = locate_samples(path, content.start)
        return [
            Part(path, content.start, samples=samples, kind="wav" if _holds_mpeg(path, content.start) else "")
        ]
    return [Part(path, content.start, kind=None)]


def _holds_mpeg(path: Path, start: int) -> bool:
    """Return whether a wav contains mp3, whose length libsndfile guesses."""
    with path.open("rb") as stream:
        stream.seek(start)
        head = stream.read(4096)
    tag = head.find(b"fmt ") + 8
    return head[8:12] == b"WAVE" and head[tag : tag + 2] in {b"\x50\0", b"\x55\0"}


def _needs_ffmpeg(codings: Sequence[bytes]) -> bool:
    return len(codings) > 1 or not codings[0].startswith((b"\x01vorbis", b"OpusHead", b"Speex"))


def _count_mpeg(path: Path, content: Content) -> Frames:
    """Count the frames of an mp3.

    Raises:
        AudioFileError: there are none, or fewer than the first frame promises.
    """
    data = path.read_bytes()
    frames = count_frames(data, content.start) or count_frames(data)
    if frames is None:
        raise AudioFileError(str(path), "cannot be decoded (it holds no frames of MPEG audio)")
    there = len(data) - frames.start
    if frames.promised_bytes is not None:
        is_cut = there < (1.0 - MAX_LOST_FRAC) * frames.promised_bytes
    else:
        is_cut = frames.n_samples < (1.0 - MAX_LOST_FRAC) * (frames.promised_samples or 0)
    if is_cut:
        figures = (
            f"{frames.promised_samples} samples, there are {frames.n_samples}"
            if frames.promised_bytes is None
            else f"{frames.promised_bytes} bytes, there are {there}"
        )
        raise AudioFileError(str(path), f"is cut off (its header promises {figures})")
    return frames


def _mend_flac(path: Path, start: int) -> bytes:
    """Return the first bytes of a FLAC with the true number of samples.

    Raises:
        AudioFileError: more than a small part of the promised samples is missing.
    """
    with path.open("rb") as stream:
        stream.seek(start)
        head = stream.read(42)
    if len(head) < 42:
        raise AudioFileError(str(path), "is cut off (its header is not whole)")
    with closing(Window(path, start)) as source:
        n_samples = find_end_with_ffmpeg(path, source, "flac")
    promised = int.from_bytes(head[FLAC_TOTAL], "big") & (2**36 - 1)
    if n_samples < (1.0 - MAX_LOST_FRAC) * promised:
        raise AudioFileError(
            str(path), f"is cut off (its header promises {promised} samples, there are {n_samples})"
        )
    if n_samples == promised:
        return b""
    mended = bytes([head[21] & 0xF0 | n_samples >> 32]) + (n_samples & (2**32 - 1)).to_bytes(4, "big")
    return head[:21] + mended + head[26:]


def _refuse_second_flac(path: Path, start: int) -> None:
    """Refuse joined files: the second one's frames count from zero, and decoders stop there."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if any(data.find(b"fLaC" + kind + b"\0\0\x22", start + 4) > 0 for kind in (b"\0", b"\x80")):
            raise AudioFileError(str(path), "holds a second sound file behind the first one; split it")


def _check_sane(path: Path, sample_rate_hz: int, channels: int) -> None:
    if sample_rate_hz not in RATES_HZ or not 0 < channels <= MAX_CHANNELS:
        raise AudioFileError(
            str(path),
            f"has a header that says {sample_rate_hz} Hz and {channels} channels; expected {RATES_HZ.start} to "
            f"{RATES_HZ.stop - 1} Hz and at most {MAX_CHANNELS} channels, so export it again",
        )


def _check_same(path: Path, kinds: list[tuple[int, int]]) -> None:
    if not kinds:
        raise AudioFileError(str(path), "holds no audio that can be decoded")
    if len(set(kinds)) > 1:
        raise AudioFileError(str(path), f"changes rate or channels midway ({sorted(set(kinds))})")
