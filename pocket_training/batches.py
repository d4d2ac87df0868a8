"""The codec's training batches: crops of music, and synthetic ones."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pocket_training.corpus import CropSampler, load_tracks
from pocket_training.patches import PatchSampler


class Batches(Dataset[Tensor]):
    """The batch of each step, decided by seed, process and step alone: there is nothing to save for a resumption."""

    def __init__(self, work: Path, crop: int, n: int, patches_frac: float, seed: tuple[int, ...]) -> None:
        """Args: `crop` is in samples; `n` crops make a batch, of which `patches_frac` are synthetic."""
        train = [track for track in load_tracks(work) if track.split == "train"]
        self.music, self.crop = CropSampler(work, train, crop), crop
        self.n, self.patches_frac, self.seed = n, patches_frac, seed

    def __getitem__(self, step: int) -> Tensor:
        """Return float32 of shape (n, 1, crop)."""
        return self.draw(self.n, step + 1)

    def draw(self, n: int, key: int = 0) -> Tensor:
        """Draw `n` crops; 0 is the key that no step has."""
        rng, n_patches = np.random.default_rng((*self.seed, key)), round(n * self.patches_frac)
        music = self.music.draw(n - n_patches, rng, augment=True)
        return torch.cat([music, PatchSampler(self.crop, rng).draw(n_patches)]) if n_patches else music

    def iterate(self, step: int, n_workers: int) -> Iterator[Tensor]:
        """Return the batches from a step on, made ahead by `n_workers` processes; by this one where that is 0."""
        return iter(DataLoader(self, batch_size=None, sampler=range(step, 10**9), num_workers=n_workers))
