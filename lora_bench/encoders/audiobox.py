"""`audiobox-ce`, `-cu`, `-pc`, `-pq`: Audiobox Aesthetics (Tjandra et al., 2025), what people would say about a clip.

Four predicted ratings from 1 to 10: content enjoyment, content usefulness, production complexity, production quality.
The package `audiobox_aesthetics` has the network, the hub the weights.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from lora_bench.encoders.checkpoints import import_network, need_hub_folder
from lora_bench.models.model_files import hash_weights

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

WINDOW_S = 10.0
"""The package's windows; the last one is padded, and counts by its length."""


class AudioboxSettings(BaseModel):
    """Settings of the ratings."""

    model_config = ConfigDict(extra="forbid")

    weights: str = "facebook/audiobox-aesthetics"
    """Hub id, or a folder."""


@lru_cache(maxsize=1)
def _load_network(folder: Path, device: str) -> Any:
    """Return the network, one for all four ratings."""
    package = import_network("audiobox", "audiobox_aesthetics.model.aes", "audiobox_aesthetics")
    return package.AesMultiOutput.from_pretrained(folder).to(device).eval()


class Rating:
    """One predicted rating per clip."""

    Settings = AudioboxSettings
    sample_rate_hz = 16_000
    dim = 1
    batch_s = 64.0
    axis: str

    def __init__(self, settings: AudioboxSettings, device: str) -> None:
        import_network("audiobox", "audiobox_aesthetics.model.aes", "audiobox_aesthetics")
        folder = need_hub_folder("audiobox", settings.weights)
        self._network, self._device = _load_network(folder, device), device
        self.provenance = {
            "weights": settings.weights,
            "weights_hash": hash_weights(folder),
            "axis": self.axis,
            "window_s": WINDOW_S,
            "higher_is_better": 1,
        }

    @torch.inference_mode()
    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map clips [B, S] to ratings [B, 1]."""
        n_clips, n_samples = audio.shape
        window = int(WINDOW_S * self.sample_rate_hz)
        n_windows = -(-n_samples // window)
        padded = torch.nn.functional.pad(torch.from_numpy(audio), (0, n_windows * window - n_samples))
        valid = torch.arange(n_windows * window) < n_samples
        masks = valid.expand(n_clips, -1).reshape(n_clips * n_windows, 1, window)
        found = self._network(
            {
                "wav": padded.reshape(n_clips * n_windows, 1, window).to(self._device),
                "mask": masks.to(self._device),
            }
        )[self.axis]
        weights = valid.reshape(n_windows, window).float().mean(dim=1)
        ratings = found.float().cpu().reshape(n_clips, n_windows) @ (weights / weights.sum())
        scale = self._network.target_transform[self.axis]
        return (ratings * scale["std"] + scale["mean"]).numpy()[:, None]


class Enjoyment(Rating):
    """Content enjoyment."""

    axis = "CE"


class Usefulness(Rating):
    """Content usefulness."""

    axis = "CU"


class Complexity(Rating):
    """Production complexity: many components; more is not better for every genre."""

    axis = "PC"


class Quality(Rating):
    """Production quality."""

    axis = "PQ"
