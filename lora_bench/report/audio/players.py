"""Players and spectrograms of clips, cached in the run's folder.

The key of a cached player is a hash of the clip's bytes and of the encoder, so a cached player equals a new one.
A run folder that cannot be written to has no cache.
"""

from __future__ import annotations

import base64
import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from lora_bench.errors import StoreError
from lora_bench.report.audio import spectrogram
from lora_bench.store import hash_json, read_json, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = ".players"
VERSION = 2  # raise it when the same clip gives another player or picture
SILENT_LUFS = -100.0
# MPEG audio is defined at these rates only; other clips are embedded as wav.
MP3_RATES_HZ = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})


@dataclass(frozen=True)
class EmbeddedClip:
    """A clip as the page holds it.

    Attributes:
        sound: data URI; empty if the clip holds no sample.
        picture: data URI of its spectrogram.
        level_lufs: loudness by ITU-R BS.1770.
    """

    sound: str
    picture: str
    level_lufs: float

    @property
    def n_bytes(self) -> int:
        """Length of its text in the page."""
        return len(self.sound) + len(self.picture)


@dataclass
class SoundCache:
    """Embedded clips of one run.

    Attributes:
        folder: where they are kept.
        used: files that this report took; `prune` removes all others.
    """

    folder: Path
    used: set[str] = field(default_factory=set)

    def embed(self, path: Path) -> EmbeddedClip | None:
        """Return a clip as the page holds it; None if its file is damaged."""
        return self.embed_bytes(path.read_bytes())

    def embed_bytes(self, data: bytes) -> EmbeddedClip | None:
        """Return a clip given by the bytes of its file; None if they are damaged."""
        name = f"{_key_of(data)}.json"
        self.used.add(name)
        kept = _read_kept(self.folder / name)
        if kept is not None:
            return kept
        made = _make(data)
        if made is not None:
            with suppress(OSError):
                write_json(self.folder / name, made)
        return made

    def prune(self) -> None:
        """Remove what this report did not take."""
        for path in self.folder.glob("*.json"):
            if path.name not in self.used:
                with suppress(OSError):
                    path.unlink()


def _key_of(data: bytes) -> str:
    """Return the key of a player: the clip's bytes, the encoder, and its options."""
    tools = (VERSION, soundfile.__libsndfile_version__, np.__version__)
    shape = (spectrogram.WIDTH, spectrogram.HEIGHT, spectrogram.N_COLOURS, spectrogram.RANGE_DB)
    return hash_json([hashlib.sha256(data).hexdigest(), tools, shape], length=32)


def _read_kept(path: Path) -> EmbeddedClip | None:
    if not path.is_file():
        return None
    try:
        return EmbeddedClip(**read_json(path))
    except (StoreError, TypeError, OSError):
        return None  # damaged: encode the clip again


def _make(data: bytes) -> EmbeddedClip | None:
    from lora_bench.audio.loudness import measure_loudness

    try:
        samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        return None
    audio = np.asarray(samples, dtype=np.float32)  # [S, C]
    if len(audio) == 0:
        return EmbeddedClip("", "", SILENT_LUFS)
    picture = spectrogram.draw_spectrogram(audio, rate_hz)
    level = max(measure_loudness(audio, rate_hz), SILENT_LUFS)
    return EmbeddedClip(embed_sound(audio, rate_hz), _embed("image/png", picture), level)


def embed_sound(audio: NDArray[np.float32], rate_hz: int) -> str:
    """Return the data URI of compressed sound [S, C]."""
    return _embed(*_compress(audio, rate_hz))


def _compress(audio: NDArray[np.float32], rate_hz: int) -> tuple[str, bytes]:
    """Return MP3 where its rates allow: every browser plays it, and unlike Ogg it holds no random serial number."""
    stream = io.BytesIO()
    if rate_hz in MP3_RATES_HZ and audio.shape[1] <= 2:
        soundfile.write(
            stream, audio, rate_hz, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE",
            compression_level=0.4,
        )  # fmt: skip
        return "audio/mpeg", stream.getvalue()
    soundfile.write(stream, audio, rate_hz, format="WAV", subtype="PCM_16")
    return "audio/wav", stream.getvalue()


def _embed(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
