"""Melodies as MusicGen Melody reads them: the strongest of twelve pitch classes in every eighth of a second.

transformers' `MusicgenMelodyFeatureExtractor` computes them, with the settings that Meta published.  Instruments are
not separated: drums and bass of a melody's file count too.

A clip of one window follows the first 30 s of its melody; the model repeats what is shorter.  Each window of a longer
clip follows its own 30 s of the melody, which is repeated as often as needed, as audiocraft does it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_bench.audio import load_audio, resample, to_channels
from lora_bench.audio.melodies import list_melodies, place_melody
from lora_bench.models.quiet import quiet_transformers
from lora_bench.spec.clip_windows import WINDOW_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE_HZ = 32_000
WINDOW_SAMPLES, HOP_SAMPLES = 16_384, 4_096
MAX_SAMPLES = round(WINDOW_S * SAMPLE_RATE_HZ)
SILENT_RMS = 1e-3
"""-60 dBFS; the pitch class of a more silent frame means nothing."""


@cache
def _load_extractor() -> Any:
    with quiet_transformers():
        from transformers import MusicgenMelodyFeatureExtractor

        return MusicgenMelodyFeatureExtractor()


def extract_chroma(audio: NDArray[np.float32]) -> Tensor:
    """Return one-hot pitch classes float32 [T, 12], C first, of a sound [S] at 32 kHz; T is 1 + S // 4096.

    A silent frame counts as C, as published.  A sound of less than half a second is padded to that.
    """
    found = _load_extractor()(audio, sampling_rate=SAMPLE_RATE_HZ, max_length=len(audio), return_tensors="pt")
    return found["input_features"][0]


def find_sounding(audio: NDArray[np.float32]) -> Tensor:
    """Return which frames of `extract_chroma` are not silent, bool [T]."""
    missing = max(0, WINDOW_SAMPLES - len(audio))
    power = F.pad(torch.from_numpy(audio) ** 2, (missing // 2, missing - missing // 2))
    half = WINDOW_SAMPLES // 2
    padded = F.pad(power[None, None], (half, half), mode="reflect")
    return F.avg_pool1d(padded, WINDOW_SAMPLES, HOP_SAMPLES)[0, 0].sqrt() > SILENT_RMS


class Melodies:
    """The melodies of a folder, or a file, and what clips read of them.

    Args:
        path: see `lora_bench.audio.melodies`.

    Raises:
        DatasetError: nothing is there, or the folder holds no audio.
    """

    def __init__(self, path: Path) -> None:
        self.files = list_melodies(path)
        self._chroma: dict[tuple[int, float | None], Tensor] = {}
        self._loaded: tuple[int, NDArray[np.float32]] | None = None

    def load(self, index: int) -> NDArray[np.float32]:
        """Load a melody, float32 [S] at 32 kHz, the mean of its channels.

        Raises:
            AudioFileError: the file cannot be read; names it.
        """
        if self._loaded is None or self._loaded[0] != index:
            audio, rate_hz = load_audio(self.files[index])
            self._loaded = index, resample(to_channels(audio, 1), rate_hz, SAMPLE_RATE_HZ)[0]
        return self._loaded[1]

    def place(self, clip: int) -> int:
        """Return the index of the melody that a clip follows."""
        return place_melody(clip, len(self.files))

    def read(self, index: int, begin_s: float | None = None) -> Tensor:
        """Return what a clip reads of a melody, one-hot [T, 12].

        Args:
            index: of the melody.
            begin_s: where the clip's window begins; None for a clip of one window.

        Raises:
            AudioFileError: the file cannot be read; names it.
        """
        if (index, begin_s) not in self._chroma:
            audio = self.load(index)
            self._chroma[index, begin_s] = extract_chroma(
                audio[:MAX_SAMPLES] if begin_s is None else repeat_sound(audio, MAX_SAMPLES, begin_s)
            )
        return self._chroma[index, begin_s]


def repeat_sound(audio: NDArray[np.float32], n_samples: int, begin_s: float = 0.0) -> NDArray[np.float32]:
    """Return `n_samples` of a sound [S] that repeats for ever, from `begin_s` on."""
    return audio[(round(begin_s * SAMPLE_RATE_HZ) + np.arange(n_samples)) % len(audio)]
