"""melody-agreement: the share of a clip's frames whose strongest pitch class is that of the melody it follows.

Pitch classes are those that the model reads (`lora_bench.models.melodies`), eight per second.  Frames in which the
melody is silent do not count; those in which only the clip is silent count as misses.  This is the cosine of one-hot
chroma, averaged over time.  Chance is about 1/12.  A clip in another key than its melody scores less than that, because
its pitch classes differ frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lora_bench.artifacts import AudioClip, Embeddings
from lora_bench.audio import RESAMPLER
from lora_bench.audio.melodies import hash_melodies
from lora_bench.encoders.assembly import prepare_clip
from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.names import MELODY_AGREEMENT
from lora_bench.models.melodies import (
    HOP_SAMPLES,
    MAX_SAMPLES,
    SAMPLE_RATE_HZ,
    WINDOW_SAMPLES,
    Melodies,
    extract_chroma,
    find_sounding,
    repeat_sound,
)
from lora_bench.slugs import spell_path
from lora_bench.store import hash_json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from lora_bench.encoders.protocol import Provenance


class MelodyAgreement:
    """Compares clips, which are named by their index, with the melodies that they follow.

    Args:
        path: of the melodies, see `lora_bench.audio.melodies`.

    Raises:
        DatasetError: nothing is there, or the folder holds no audio.
    """

    name = MELODY_AGREEMENT
    dim = 1
    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, path: Path) -> None:
        self._melodies = Melodies(path)
        self._hashes = hash_melodies(path)
        self._read: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    @property
    def provenance(self) -> Provenance:
        """The melodies, and the extractor of pitch classes."""
        return {
            "encoder": self.name,
            "weights": "none",
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "resampler": RESAMPLER,
            "melodies_hash": hash_json(self._hashes),
            "transformers": metadata.version("transformers"),
            "higher_is_better": 1,
        }

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """Return the agreement of each clip, [N, 1].

        Raises:
            ScoreError: a clip is empty, not finite, or not named by its index; names it.
            UnscoredError: a melody is silent.
            AudioFileError: a melody cannot be read.
        """
        names: list[str] = []
        values: list[float] = []
        for clip in clips:
            if not clip.name.isdecimal():
                raise ScoreError(f"clip {clip.name}: expected its index as its name, which tells its melody")
            audio = prepare_clip(clip, sample_rate_hz=SAMPLE_RATE_HZ, channels=1, min_samples=1)[0]
            names.append(clip.name)
            values.append(self._compare(audio, self._melodies.place(int(clip.name))))
        return self._pack(values, names)

    def embed_melodies(self) -> Embeddings:
        """Return what the melodies themselves would score, named by their contents: comparisons need equal ones."""
        return self._pack([1.0] * len(self._hashes), self._hashes)

    def _compare(self, audio: NDArray[np.float32], index: int) -> float:
        wanted, counts = self._find_wanted(index, len(audio))
        found, sounds = extract_chroma(audio).argmax(dim=1), find_sounding(audio)
        return float(((found == wanted) & sounds)[counts].float().mean())

    def _find_wanted(self, index: int, n_samples: int) -> tuple[Tensor, Tensor]:
        """Return the pitch classes [T] that a clip reads along its length, and which of them count."""
        if (index, n_samples) not in self._read:
            melody = self._melodies.load(index)
            # each window of a long clip reads its own part of the melody
            melody = repeat_sound(melody, n_samples) if n_samples > MAX_SAMPLES else melody[:n_samples]
            wanted, counts = extract_chroma(melody).argmax(dim=1), find_sounding(melody)
            # shorter sounds are padded to one window of the extractor
            frames = torch.arange(1 + max(n_samples, WINDOW_SAMPLES) // HOP_SAMPLES) % len(wanted)
            if not bool(counts[frames].any()):
                file = spell_path(self._melodies.files[index].name)
                raise UnscoredError(f"{self.name}: the melody {file} is silent where clips follow it")
            self._read[index, n_samples] = wanted[frames], counts[frames]
        return self._read[index, n_samples]

    def _pack(self, values: Iterable[float], names: Iterable[str]) -> Embeddings:
        rows, named = np.array([*values], dtype=np.float32)[:, None], tuple(names)
        return Embeddings(rows, np.arange(len(rows)), named, named, self.provenance)
