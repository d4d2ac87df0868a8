"""`encodec`: the vectors of the model's own codec before its quantiser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lora_bench.audio import RESAMPLER
from lora_bench.encoders.assembly import cut_windows, embed_pieces, prepare_clip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lora_bench.artifacts import AudioClip, Embeddings
    from lora_bench.encoders.protocol import Provenance
    from lora_bench.models.base import MusicModel

WINDOW_S = 30  # longer files are cut, so that memory does not grow with the file
MIN_S = 0.1
# Seconds of audio per forward pass; on a CPU more is slower, because it leaves the caches.
BATCH_S = {"cpu": 8, "cuda": 64}


class EncodecEncoder:
    """One vector per codec frame, of the codec that the music model itself uses."""

    name = "encodec"

    def __init__(self, model: MusicModel, *, batch_s: float | None = None) -> None:
        self.model = model
        self.sample_rate_hz = model.info.audio_format.sample_rate_hz
        self._channels = model.info.audio_format.channels
        self._dim: int | None = None
        seconds = BATCH_S.get(model.device.type, BATCH_S["cpu"]) if batch_s is None else batch_s
        self._batch_samples = int(seconds * self.sample_rate_hz) * self._channels

    @property
    def dim(self) -> int:
        """Width of the codec's latents, measured on a second of silence."""
        if self._dim is None:
            silence = np.zeros((1, self._channels, self.sample_rate_hz), dtype=np.float32)
            self._dim = int(self.model.audio_latents(silence).shape[-1])
        return self._dim

    @property
    def provenance(self) -> Provenance:
        """Hash and frame rate of the codec; the hash does not depend on the rest of the model."""
        info = self.model.info
        return {
            "encoder": self.name,
            "weights": "the music model's codec",
            "weights_hash": info.codec_hash or info.weights_hash,
            "sample_rate_hz": self.sample_rate_hz,
            "channels": self._channels,
            "resampler": RESAMPLER,
            "frame_rate_hz": info.frame_rate_hz,
            "window_s": WINDOW_S,
        }

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """One vector per codec frame; see `Encoder.embed`."""
        return embed_pieces(
            clips,
            self._cut,
            self.model.audio_latents,
            self.provenance,
            max_samples=self._batch_samples,
            device=self.model.device,
        )

    def _cut(self, clip: AudioClip) -> list[NDArray[np.float32]]:
        rate_hz, min_samples = self.sample_rate_hz, int(MIN_S * self.sample_rate_hz)
        audio = prepare_clip(clip, sample_rate_hz=rate_hz, channels=self._channels, min_samples=min_samples)
        return cut_windows(audio, window=WINDOW_S * rate_hz, min_samples=min_samples)
