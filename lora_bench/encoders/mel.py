"""Log-mel features for the guards: frames for repetition, window vectors for memorisation.

A window vector holds how each mel band moves over two seconds, its own mean taken away: loudness, tilt and
steady timbre cancel, the course of the music stays.  The cosine of two of them is near 1 only where one
sound is a copy of the other, which is what the search for copied training material needs (plain log mel is
alike for all music).  Mel features find copies more robustly than learned embeddings (Bralios et al.,
"Generation or Replication: Auscultating Audio Latent Diffusion Models", ICASSP 2024).
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.audio import RESAMPLER
from lora_bench.encoders.assembly import join_vectors, prepare_clip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lora_bench.artifacts import AudioClip, Embeddings
    from lora_bench.encoders.protocol import Provenance

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 1600  # 0.1 s
FFT_SAMPLES = 3200
N_MELS = 32
WINDOW_FRAMES = 20  # 2 s
FLOOR_DB = -80.0  # below full scale; quieter bands count as this
MIN_NORM_DB = 1.0  # a window that moves by less over all its bands is flat: its vector is zero


def compute_mel_frames(clip: AudioClip) -> NDArray[np.float32]:
    """Log-mel power of a clip in dB, one frame per 0.1 s: [F, 32].

    Raises:
        ScoreError: the clip is shorter than 0.2 s or holds values that are not finite; names it.
    """
    import librosa

    audio = prepare_clip(clip, sample_rate_hz=SAMPLE_RATE_HZ, channels=1, min_samples=FFT_SAMPLES)
    mel = librosa.feature.melspectrogram(
        y=audio[0],
        sr=SAMPLE_RATE_HZ,
        n_fft=FFT_SAMPLES,
        hop_length=HOP_SAMPLES,
        n_mels=N_MELS,
    )
    power = mel.T[: audio.shape[1] // HOP_SAMPLES]  # the frame centred on the end is half padding
    return np.maximum(10.0 * np.log10(np.maximum(power, 1e-10)), FLOOR_DB).astype(np.float32)


class MelEncoder:
    """One vector per window of two seconds.

    Give the training side a short `hop_s` (0.1 s: copies are found at any offset) and the clips that are
    looked up a long one.
    """

    name = "mel"
    dim = WINDOW_FRAMES * N_MELS
    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, hop_s: float = 1.0) -> None:
        self.hop_frames = max(round(hop_s * SAMPLE_RATE_HZ / HOP_SAMPLES), 1)

    @property
    def provenance(self) -> Provenance:
        """Window, hop and resampler."""
        return {
            "encoder": self.name,
            "weights": "none",
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "resampler": RESAMPLER,
            "n_mels": N_MELS,
            "window_s": WINDOW_FRAMES * HOP_SAMPLES / SAMPLE_RATE_HZ,
            "window_hop_s": self.hop_frames * HOP_SAMPLES / SAMPLE_RATE_HZ,
            "librosa": metadata.version("librosa"),
        }

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """Unit vectors (zero where nothing moves); see `Encoder.embed`."""
        names: list[tuple[str, str]] = []
        vectors: list[NDArray[np.float32]] = []
        for clip in clips:
            frames = compute_mel_frames(clip)
            starts = range(0, len(frames) - WINDOW_FRAMES + 1, self.hop_frames)
            vectors.append(
                np.stack([describe_window(frames[start : start + WINDOW_FRAMES]) for start in starts])
                if starts
                else np.zeros((0, self.dim), np.float32)
            )
            names.append((clip.name, clip.group))
        return join_vectors(names, vectors, self.provenance)


def describe_window(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vector of a window's movement [frames * mels], zero for a flat window."""
    moved = (frames - frames.mean(axis=0)).ravel()
    norm = float(np.linalg.norm(moved))
    return moved / norm if norm > MIN_NORM_DB else np.zeros_like(moved)
