"""`encodec`: the vectors of the model's own codec before its quantiser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lora_bench.audio import RESAMPLER
from lora_bench.encoders.assembly import batch_equal_lengths, cut_windows, join_vectors, prepare_clip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from lora_bench.artifacts import AudioClip, Embeddings
    from lora_bench.encoders.protocol import Provenance
    from lora_bench.models.protocol import MusicModel

WINDOW_S = 30  # longer files are cut, so that memory does not grow with the file
MIN_S = 0.1
BATCH_S = {
    "cpu": 8,
    "cuda": 64,
}  # seconds of audio per forward pass; on a CPU more is slower, it leaves the caches


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
        """Width of the codec's latents, asked of the codec itself."""
        if self._dim is None:
            silence = np.zeros((1, self._channels, self.sample_rate_hz), dtype=np.float32)
            self._dim = int(self.model.audio_latents(silence).shape[-1])
        return self._dim

    @property
    def provenance(self) -> Provenance:
        """The codec's own hash, wherever its model lies and whatever the rest of it is, and frame rate."""
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
        names: list[tuple[str, str]] = []
        parts: list[list[NDArray[np.float32]]] = []

        def windows() -> Iterator[tuple[int, NDArray[np.float32]]]:
            min_samples = int(MIN_S * self.sample_rate_hz)
            for index, clip in enumerate(clips):
                audio = prepare_clip(
                    clip,
                    sample_rate_hz=self.sample_rate_hz,
                    channels=self._channels,
                    min_samples=min_samples,
                )
                names.append((clip.name, clip.group))
                parts.append([])
                window = WINDOW_S * self.sample_rate_hz
                for piece in cut_windows(audio, window=window, min_samples=min_samples):
                    yield index, piece

        for indices, batch in batch_equal_lengths(windows(), max_samples=self._batch_samples):
            latents = self.model.audio_latents(batch)  # [B, F, D]
            for index, frames in zip(indices, latents, strict=True):
                parts[index].append(np.asarray(frames, dtype=np.float32))
        return join_vectors(names, [np.concatenate(part) for part in parts], self.provenance)
