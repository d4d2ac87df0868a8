"""Tempo, key and tags of a recording, measured from the middle of it and kept by content.

`benchmarks/caption_fields.py` measures how often tempo and key are right.  The tags come from musicnn: those of
MagnaTagATune name instruments and tempo, those of the Million Song Dataset genres and moods.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_bench.artifacts import AudioClip
from lora_bench.audio import RESAMPLER, load_audio, resample, to_channels
from lora_bench.audio.librosa_import import load_librosa
from lora_bench.errors import DatasetError, UnscoredError
from lora_bench.spec.captions import Measured
from lora_bench.stages.dataset.field_names import Value
from lora_bench.store import Store, hash_json, read_json, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_bench.encoders.musicnn import MusicnnEncoder

MEASURES_VERSION = 1
"""Part of the cache key; raise it when the same recording would be measured differently."""
EXCERPT_S = 60.0
TAGGED_S = 30.0  # musicnn takes about 4 s for it on one core
RATE_HZ = 22_050
ONSET_HOP = 256
CHROMA_HOP = 2048
TONICS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MIN_GENRE, MIN_TAG = 0.15, 0.15
N_GENRES, N_MOODS, N_INSTRUMENTS, N_TAGS = 1, 2, 3, 5
GENRES = frozenset(
    (
        "rock", "pop", "alternative", "indie", "electronic", "dance", "alternative rock", "jazz", "metal",
        "classic rock", "soul", "indie rock", "electronica", "folk", "punk", "blues", "hard rock", "ambient",
        "experimental", "hip-hop",
        "country", "funk", "electro", "heavy metal", "progressive rock", "rnb", "indie pop", "house", "classical",
        "techno", "new age", "opera",
    )
)  # fmt: skip
MOODS = frozenset(
    (
        "beautiful", "mellow", "chill", "chillout", "party", "easy listening", "sexy", "catchy", "sad", "happy", "slow",
        "fast", "loud", "quiet", "soft", "weird",
    )
)  # fmt: skip
INSTRUMENTS = frozenset(
    (
        "guitar", "strings", "drums", "piano", "violin", "synth", "harpsichord", "flute", "sitar", "harp", "cello",
        "choir", "vocals",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Measurements:
    """Measures recordings, and keeps what was measured in a store by the recording's content."""

    store: Store

    def measure(self, path: Path, content_hash: str, kinds: Collection[Measured]) -> dict[str, Value]:
        """Return the fields that measurements of some kinds give.

        Raises:
            AudioFileError: the file cannot be decoded.
            DatasetError: musicnn is not installed.
            StoreError: the disk is full.
        """
        fields: dict[str, Value] = {}
        read_excerpt = cache(partial(cut_middle, path))
        for kind in sorted(kinds):
            facts = {
                "version": MEASURES_VERSION,
                "content": content_hash,
                "kind": kind,
                **self._identify(kind),
            }

            def write(draft: Path, kind: Measured = kind) -> None:
                write_json(draft / "fields.json", self._measure(kind, read_excerpt()))

            place = self.store.get_or_make("fields", hash_json(facts, length=32), write)
            origin = "heard by musicnn" if kind == "tags" else "measured by librosa"
            found: Mapping[str, Any] = read_json(place / "fields.json")
            fields |= {name: Value(value, origin) for name, value in found.items()}
        return fields

    def _identify(self, kind: Measured) -> dict[str, str]:
        if kind != "tags":
            return {"librosa": metadata.version("librosa"), "resampler": RESAMPLER}
        return {str(encoder.name): str(encoder.provenance["weights_hash"]) for encoder in self._encoders}

    def _measure(self, kind: Measured, audio: NDArray[np.float32]) -> dict[str, str | float]:
        if kind == "bpm":
            bpm = estimate_bpm(audio)
            return {} if bpm is None else {"bpm": bpm}
        if kind == "key":
            key = estimate_key(audio)
            return {} if key is None else {"key": key}
        start = max(0, (len(audio) - round(TAGGED_S * RATE_HZ)) // 2)
        heard = audio[start : start + round(TAGGED_S * RATE_HZ)]
        clip = AudioClip("track", "track", heard[None], RATE_HZ)
        tags: dict[str, float] = {}
        for encoder in self._encoders:
            _, rows = encoder.embed_and_tag([clip])
            for tag, likely in zip(encoder.tags, rows[0].tolist(), strict=True):
                tags[tag.lower()] = max(likely, tags.get(tag.lower(), 0.0))
        return sort_tags(tags)

    @cached_property
    def _encoders(self) -> tuple[MusicnnEncoder, ...]:
        from lora_bench.encoders.musicnn import CHECKPOINTS, PACKAGE, MusicnnEncoder

        try:
            return tuple(MusicnnEncoder(name, device="cpu") for name in CHECKPOINTS)
        except UnscoredError as error:
            raise DatasetError(
                f"dataset.captions: genre, mood, instruments or tags have to be heard in the audio, which needs "
                f"musicnn ({error}); install it with `pip install --no-deps {PACKAGE}`, leave `tags` out of "
                "dataset.captions.measure, or give these fields in captions.csv"
            ) from error


def cut_middle(path: Path) -> NDArray[np.float32]:
    """Return the middle 60 s of a file: [S], mono.

    Raises:
        AudioFileError: the file cannot be decoded.
    """
    audio, rate_hz = load_audio(path)
    n_samples = round(EXCERPT_S * rate_hz)
    start = max(0, (audio.shape[1] - n_samples) // 2)
    excerpt = audio[:, start : start + n_samples]
    return resample(to_channels(excerpt, 1), rate_hz, RATE_HZ)[0]


def estimate_bpm(audio: NDArray[np.float32]) -> float | None:
    """Return beats per minute; None without onsets.  `audio` is [S]."""
    librosa = load_librosa()

    onsets = librosa.onset.onset_strength(y=audio, sr=RATE_HZ, hop_length=ONSET_HOP)
    if not np.any(onsets > 0):
        return None
    bpm = float(librosa.feature.tempo(onset_envelope=onsets, sr=RATE_HZ, hop_length=ONSET_HOP)[0])
    return round(bpm, 1) if bpm > 0 else None


def estimate_key(audio: NDArray[np.float32]) -> str | None:
    """Return the major or minor key whose profile the pitch classes fit best; None for silence.  `audio` is [S]."""
    librosa = load_librosa()

    from lora_bench.encoders.musical import find_key

    if not np.any(audio) or len(audio) < RATE_HZ:
        return None
    chroma = librosa.feature.chroma_cqt(y=audio, sr=RATE_HZ, hop_length=CHROMA_HOP).mean(axis=1)
    if not np.ptp(chroma) > 0:
        return None
    tonic, mode = find_key(chroma)
    return f"{TONICS[tonic]} {mode}"


def sort_tags(tags: Mapping[str, float]) -> dict[str, str | float]:
    """Return tags, genre, mood and instruments from the probability of each tag."""
    fields: dict[str, str | float] = {}
    for name, words, n, least in (
        ("genre", GENRES, N_GENRES, MIN_GENRE),
        ("mood", MOODS, N_MOODS, MIN_TAG),
        ("instruments", INSTRUMENTS, N_INSTRUMENTS, MIN_TAG),
        ("tags", frozenset(tags), N_TAGS, MIN_TAG),
    ):
        likely = sorted(
            (tag for tag in tags if tag in words and tags[tag] >= least), key=lambda tag: -tags[tag]
        )
        if likely:
            fields[name] = ", ".join(likely[:n])
    return fields
