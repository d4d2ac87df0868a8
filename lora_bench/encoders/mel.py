"""Log-mel features for the guards: frames for repetition, window vectors for memorisation.

A window vector describes how each mel band moves over two seconds, less its own mean and less the movement that
all bands share: loudness, tilt, steady timbre, fades and beats cancel, and the course of the music remains.  The
cosine of two such vectors is near 1 only if one sound is a copy of the other, as the search for copied training
material requires (plain log mel is similar for all music).  Mel features find copies more robustly than learned
embeddings (Bralios et al., "Generation or Replication: Auscultating Audio Latent Diffusion Models",
ICASSP 2024).
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.audio import RESAMPLER
from lora_bench.audio.librosa_import import load_librosa
from lora_bench.encoders.assembly import embed_each, prepare_clip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lora_bench.artifacts import AudioClip, Embeddings
    from lora_bench.encoders.protocol import Provenance

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 1600  # 0.1 s from one frame of a vector to the next
FINE_SAMPLES = 800  # windows may start at every 0.05 s, so that a copy is never far from a frame's phase
FFT_SAMPLES = 3200
N_MELS = 32
WINDOW_FRAMES = 20  # 2 s
STRIDE = HOP_SAMPLES // FINE_SAMPLES
SPAN = WINDOW_FRAMES * STRIDE
FLOOR_DB = -80.0  # below full scale; quieter bands count as this
MIN_NORM_DB = 1.0  # a window that moves less, over all its bands, is flat: its vector is zero


def compute_mel_frames(clip: AudioClip, hop_samples: int = HOP_SAMPLES) -> NDArray[np.float32]:
    """Compute the log-mel power of a clip in dB, one frame per 0.1 s (or per `hop_samples` at 16 kHz): [F, 32].

    Raises:
        ScoreError: the clip is shorter than 0.2 s or holds values that are not finite; names it.
    """
    librosa = load_librosa()

    audio = prepare_clip(clip, sample_rate_hz=SAMPLE_RATE_HZ, channels=1, min_samples=FFT_SAMPLES)
    mel = librosa.feature.melspectrogram(
        y=audio[0],
        sr=SAMPLE_RATE_HZ,
        n_fft=FFT_SAMPLES,
        hop_length=hop_samples,
        n_mels=N_MELS,
    )
    power = mel.T[: audio.shape[1] // hop_samples]  # the frame centred on the end is half padding
    return np.maximum(10.0 * np.log10(np.maximum(power, 1e-10)), FLOOR_DB).astype(np.float32)


class MelEncoder:
    """One vector per window of two seconds.

    Give the training side a short `hop_s` (0.05 finds copies at any offset), and the clips that are looked up a
    long one.
    """

    name = "mel"
    dim = WINDOW_FRAMES * N_MELS
    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, hop_s: float = 1.0) -> None:
        self.hop_frames = max(round(hop_s * SAMPLE_RATE_HZ / FINE_SAMPLES), 1)

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
            "window_hop_s": self.hop_frames * FINE_SAMPLES / SAMPLE_RATE_HZ,
            "librosa": metadata.version("librosa"),
        }

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """Unit vectors (zero where nothing moves); see `Encoder.embed`."""

        def measure(clip: AudioClip) -> NDArray[np.float32]:
            return describe_windows(compute_mel_frames(clip, FINE_SAMPLES), self.hop_frames)

        return embed_each(clips, measure, self.provenance)


def describe_windows(frames: NDArray[np.float32], hop_frames: int) -> NDArray[np.float32]:
    """Return unit vectors of the movement in windows of two seconds, zero for a flat window.

    Args:
        frames: [F, mels] every `FINE_SAMPLES`; fewer than `SPAN` give no window.
        hop_frames: from one window's start to the next.

    Returns:
        [windows, WINDOW_FRAMES * mels].
    """
    if len(frames) < SPAN:
        return np.zeros((0, WINDOW_FRAMES * frames.shape[1]), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(frames, SPAN, axis=0)[::hop_frames, :, ::STRIDE]
    moved = windows - windows.mean(axis=2, keepdims=True)
    moved = (moved - moved.mean(axis=1, keepdims=True)).reshape(len(windows), -1)
    norms = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.where(norms > MIN_NORM_DB, moved / np.maximum(norms, MIN_NORM_DB), 0.0).astype(np.float32)
