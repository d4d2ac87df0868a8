"""Sound in files and arrays: load, resample, change channels, save.

All samples are float32 of shape [C, S] (channels, samples), full scale is 1.0.

libsndfile reads wav, flac, ogg, opus and aiff; FFmpeg (PyAV) reads m4a, aac and mp3.  mp3 is not left to
libsndfile because it takes the length of a variable-bitrate file without a Xing header from the bitrate of
the first frame and silently drops the rest.  A file that libsndfile opened and then failed on is never
tried again with FFmpeg, which would conceal the damage.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import av.error
import numpy as np
import soundfile
import soxr

from lora_bench.errors import AudioFileError, DatasetError
from lora_bench.store import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SNDFILE_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff"})
FFMPEG_SUFFIXES = frozenset({".mp3", ".m4a", ".aac"})
AUDIO_SUFFIXES = SNDFILE_SUFFIXES | FFMPEG_SUFFIXES

RESAMPLER = f"soxr-hq {soxr.__version__}"
"""Name and version of the one resampler, for provenance."""

SNDFILE_CONTAINERS = frozenset({"wav", "flac", "ogg", "aiff"})  # FFmpeg's names
MAX_OGG_PAGE_BYTES = 27 + 255 + 255 * 255
# An mp3 may hold junk between frames (tags, a cut first frame) that every player skips.
MAX_LOST_FRAC = 0.01


def list_audio_files(folder: Path) -> list[Path]:
    """Audio files below `folder` at any depth, sorted; hidden files and folders are skipped.

    Links are followed, each real folder once.

    Raises:
        DatasetError: `folder` is not a folder, or a folder below it cannot be read.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(f"{folder}: {found}; expected a folder of audio files ({_name_suffixes()})")
    return sorted(path for path in _walk_files(folder) if path.suffix.lower() in AUDIO_SUFFIXES)


def load_audio(path: Path) -> tuple[NDArray[np.float32], int]:
    """All samples of a file, float32 [C, S], and its sample rate in Hz.

    Raises:
        AudioFileError: the file is missing, empty, not audio, damaged (also: shorter than its header
            promises), or holds NaN or infinite samples.
    """
    _check_complete(path)
    if path.suffix.lower() in FFMPEG_SUFFIXES:
        audio, sample_rate_hz = _load_with_ffmpeg(path)
    else:
        audio, sample_rate_hz = _load_with_sndfile(path)
    if audio.shape[1] == 0:
        raise AudioFileError(str(path), "holds no samples")
    if not np.isfinite(audio).all():
        raise AudioFileError(str(path), "holds NaN or infinite samples; export it again")
    return np.ascontiguousarray(audio, dtype=np.float32), sample_rate_hz


def resample(audio: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Change the sample rate with soxr HQ; [C, S] to [C, round(S * to_hz / from_hz)].

    At equal rates the samples are returned unchanged.
    """
    if from_hz == to_hz:
        return audio
    resampled: NDArray[np.float32] = soxr.resample(audio.T, from_hz, to_hz, quality="HQ")
    return np.ascontiguousarray(resampled.T, dtype=np.float32)


def to_channels(audio: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """[C, S] to [channels, S]: the mean of all for mono; a mono sound is repeated.

    Of more channels than wanted (surround to stereo) the first are taken, which are the front pair.
    """
    n_given = audio.shape[0]
    if n_given == channels:
        return audio
    if channels == 1:
        return audio.mean(axis=0, keepdims=True, dtype=np.float32)
    if n_given == 1:
        return np.repeat(audio, channels, axis=0)
    if n_given > channels:
        return np.ascontiguousarray(audio[:channels])
    raise ValueError(f"{n_given} channels cannot become {channels}; expected 1, or {channels} or more")


def save_wav(path: Path, audio: NDArray[np.float32], sample_rate_hz: int) -> None:
    """Write [C, S] as 16-bit PCM, atomically; rounded without dither, clipped at full scale.

    Raises:
        AudioFileError: there are NaN or infinite samples; nothing is written.
        StoreError: the disk is full.
    """
    if not np.isfinite(audio).all():
        raise AudioFileError(str(path), "not written, because the samples hold NaN or infinite values")
    # libsndfile scales floats by 32767; by 32768 a 16-bit file that is loaded and saved stays equal.
    pcm = np.clip(np.rint(audio.T * np.float32(32768.0)), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, sample_rate_hz, format="WAV", subtype="PCM_16")
    write_bytes(path, buffer.getvalue())


def _name_suffixes() -> str:
    return ", ".join(sorted(suffix[1:] for suffix in AUDIO_SUFFIXES))


def _walk_files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise DatasetError(
            f"{error.filename}: the folder cannot be read ({error.strerror}); change its permissions or "
            "move it out of the dataset folder"
        ) from error

    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _check_complete(path: Path) -> None:
    """Refuse empty and cut-off files: libsndfile shortens a cut wav or ogg without a word."""
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
            n_bytes = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, n_bytes - MAX_OGG_PAGE_BYTES))
            tail = stream.read()
    except OSError as error:
        raise AudioFileError(str(path), f"cannot be read ({error.strerror})") from error
    if not head:
        raise AudioFileError(str(path), "is empty (0 bytes)")
    if head[:4] == b"RIFF" and len(head) == 12:
        n_promised = int.from_bytes(head[4:8], "little") + 8
        # 0 and 2**32 - 1 come from writers that stream; a padding byte at the end is often left out
        if n_promised not in {8, 2**32 + 7} and n_promised > n_bytes + 1:
            raise AudioFileError(
                str(path), f"is cut off (its header promises {n_promised} bytes, there are {n_bytes})"
            )
    if head[:4] == b"OggS" and not _ends_with_last_page(tail):
        raise AudioFileError(str(path), "is cut off (the page that ends an Ogg stream is missing)")


def _ends_with_last_page(tail: bytes) -> bool:
    # RFC 3533: byte 5 flags (4: end of stream), byte 26 the number of segment lengths that follow
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return False
    n_segments = page[26]
    return len(page) >= 27 + n_segments + sum(page[27 : 27 + n_segments])


def _load_with_sndfile(path: Path) -> tuple[NDArray[np.float32], int]:
    try:
        sound = soundfile.SoundFile(str(path))
    except soundfile.SoundFileError as error:
        reason = str(error).removeprefix(f"Error opening '{path}': ").rstrip(".")
        return _load_with_ffmpeg(path, sndfile_reason=f"libsndfile: {reason}")
    with sound:
        try:
            audio = sound.read(dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioFileError(str(path), f"is damaged (libsndfile: {str(error).rstrip('.')})") from error
        _check_length(path, n_samples=len(audio), n_promised=sound.frames)
        return np.asarray(audio, dtype=np.float32).T, int(sound.samplerate)


def _load_with_ffmpeg(path: Path, sndfile_reason: str = "") -> tuple[NDArray[np.float32], int]:
    """Decode with FFmpeg; `sndfile_reason` is why libsndfile, asked first, did not open the file."""
    try:
        with av.open(str(path)) as container:
            formats = set(container.format.name.split(","))
            if sndfile_reason and formats & SNDFILE_CONTAINERS:
                raise AudioFileError(str(path), f"cannot be decoded ({sndfile_reason})")
            if not container.streams.audio:
                raise AudioFileError(str(path), "holds no audio stream")
            stream = container.streams.audio[0]
            audio, sample_rate_hz = _decode_stream(path, container, stream)
            if stream.duration and stream.time_base and _declares_length(path, formats):
                n_promised = round(stream.duration * stream.time_base * sample_rate_hz)
                _check_length(path, n_samples=audio.shape[1], n_promised=n_promised)
            return audio, sample_rate_hz
    except (av.error.FFmpegError, OSError) as error:
        reasons = [sndfile_reason] if sndfile_reason else []
        reasons.append(f"FFmpeg: {error.strerror or error}")
        raise AudioFileError(str(path), f"cannot be decoded ({'; '.join(reasons)})") from error


def _decode_stream(path: Path, container: Any, stream: Any) -> tuple[NDArray[np.float32], int]:
    to_float = av.AudioResampler(format="fltp")
    blocks: list[NDArray[np.float32]] = []
    kinds: set[tuple[int, int]] = set()
    n_packets = n_lost = 0
    for packet in container.demux(stream):
        n_packets += 1
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            n_lost += 1
            continue
        for frame in frames:
            kinds.add((frame.sample_rate, frame.layout.nb_channels))
            if len(kinds) > 1:
                raise AudioFileError(str(path), f"changes rate or channels midway ({sorted(kinds)})")
            blocks.extend(np.asarray(part.to_ndarray(), np.float32) for part in to_float.resample(frame))
    if not blocks:
        raise AudioFileError(str(path), "holds no audio that can be decoded")
    # one bad packet may be a tag behind the last frame; more than that is missing music
    if n_lost > max(1, MAX_LOST_FRAC * n_packets):
        raise AudioFileError(str(path), f"is damaged ({n_lost} of {n_packets} packets cannot be decoded)")
    return np.concatenate(blocks, axis=1), kinds.pop()[0]


def _declares_length(path: Path, formats: set[str]) -> bool:
    """Whether FFmpeg's duration is what the file says, not an estimate from its bitrate."""
    if "mp3" not in formats:
        return "mp4" in formats
    with path.open("rb") as stream:
        head = stream.read(10)
        is_tagged = len(head) == 10 and head[:3] == b"ID3"
        tag_size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9] if is_tagged else 0  # 7 bits a byte
        stream.seek(10 + tag_size if is_tagged else 0)
        first_frame = stream.read(256)
    return b"Xing" in first_frame or b"Info" in first_frame


def _check_length(path: Path, *, n_samples: int, n_promised: int) -> None:
    if n_samples < (1.0 - MAX_LOST_FRAC) * n_promised:
        raise AudioFileError(
            str(path), f"is damaged (its header promises {n_promised} samples, {n_samples} can be decoded)"
        )
