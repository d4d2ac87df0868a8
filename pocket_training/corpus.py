"""Read tracks and crops from the working folder of `data.py`."""

import json
from pathlib import Path

import numpy as np
import torch

from pocket_training.data import Track


def load_tracks(work: Path) -> list[Track]:
    """Load the index of all tracks.

    Raises:
        FileNotFoundError: The data stage has not run there.
    """
    index = work / "tracks.json"
    if not index.is_file():
        raise FileNotFoundError(
            f"{index} does not exist: run python -m pocket_training.data --out {work} first"
        )
    return [Track(**entry) for entry in json.loads(index.read_text())]


def open_audio(work: Path) -> np.ndarray:
    """Map all samples, int16, shape (samples,), without reading them."""
    return np.memmap(work / "audio.i16", np.int16, mode="r")


class CropSampler:
    """Random crops of the training tracks, each second of music equally likely."""

    def __init__(self, work: Path, tracks: list[Track], crop: int) -> None:
        """Args: `crop` is in samples; tracks shorter than it are left out."""
        self.audio = open_audio(work)
        self.tracks = [track for track in tracks if track.length > crop]
        self.crop = crop
        room = np.array([track.length - crop for track in self.tracks], np.float64)
        self.ends = np.cumsum(room)

    def draw(self, n: int, rng: np.random.Generator, augment: bool = False) -> torch.Tensor:
        """Draw `n` crops: float32, shape (n, 1, crop).

        Args:
            n: How many.
            rng: Decides which.
            augment: Random gain of -12 to +4 dB; one crop in six is a mix of two.
        """
        batch = np.stack([self._draw_one(rng) for _ in range(n)])
        if augment:
            gains = 10 ** (rng.uniform(-12, 4, size=(n, 1)) / 20)
            other = batch[rng.permutation(n)]
            mixed = rng.random((n, 1)) < 1 / 6
            batch = np.where(mixed, 0.6 * (batch + other), batch) * gains
        return torch.from_numpy(np.clip(batch, -1, 1).astype(np.float32))[:, None]

    def _draw_one(self, rng: np.random.Generator) -> np.ndarray:
        spot = rng.uniform(0, self.ends[-1])
        i = int(np.searchsorted(self.ends, spot, side="right"))
        offset = int(spot - (self.ends[i - 1] if i else 0.0))
        start = self.tracks[i].start + offset
        return self.audio[start : start + self.crop].astype(np.float32) / 32768


def cut_held_out(work: Path, tracks: list[Track], crop: int, n: int) -> torch.Tensor:
    """Cut fixed, evenly spread crops of held-out tracks: float32, shape (n, 1, crop)."""
    audio = open_audio(work)
    held_out = [t for t in tracks if t.split == "heldout" and t.length > crop]
    crops = []
    for i in range(n):
        track = held_out[i % len(held_out)]
        frac = ((i // len(held_out)) * 0.31 + 0.37) % 1.0
        start = track.start + int(frac * (track.length - crop))
        crops.append(audio[start : start + crop].astype(np.float32) / 32768)
    return torch.from_numpy(np.stack(crops))[:, None]
