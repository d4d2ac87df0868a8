"""The choices of one training step as pure functions of seed and step, independent of earlier steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.spec.schema import TrainSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

# one stream of random numbers per purpose, so that a change of one does not shift the others
ORDER, CAPTIONS, NOISE, CHOICES = 0, 1, 2, 3


def pick_slices(seed: int, step: int, n_slices: int, n_per_step: int) -> NDArray[np.int64]:
    """Return the slices of a step: all slices, epoch after epoch, each in its own random order.

    Args:
        seed: training seed.
        step: from 0.
        n_slices: slices to choose from.
        n_per_step: batch size times accumulation; may exceed `n_slices`.

    Returns:
        [n_per_step] indices below `n_slices`.
    """
    first = step * n_per_step
    places = np.arange(first, first + n_per_step)
    epochs = np.unique(places // n_slices)
    orders = {epoch: np.random.default_rng((seed, ORDER, epoch)).permutation(n_slices) for epoch in epochs}
    return np.array([orders[place // n_slices][place % n_slices] for place in places], dtype=np.int64)


def drop_captions(seed: int, step: int, n_per_step: int, dropout: float) -> NDArray[np.bool_]:
    """[n_per_step] True where the caption is replaced by the null condition."""
    return np.random.default_rng((seed, CAPTIONS, step)).random(n_per_step) < dropout


def draw_captions(seed: int, step: int, n_per_step: int) -> NDArray[np.float64]:
    """[n_per_step] numbers from 0 to 1 that choose one of the captions of each slice's track."""
    return np.random.default_rng((seed, CHOICES, step)).random(n_per_step)


def noise_seed(seed: int, step: int, part: int) -> int:
    """Return the seed of the adapter's dropout in one forward pass of a step."""
    return int(np.random.default_rng((seed, NOISE, step, part)).integers(2**63))


def learning_rate(step: int, train: TrainSpec) -> float:
    """Return the rate of step `step` (from 0): linear warm-up to the peak, then constant or a half cosine to 0.

    The first step already has a rate above 0, and so has the last.
    """
    n_warmup = round(train.warmup_frac * train.steps)
    if step < n_warmup:
        return train.peak_lr * (step + 1) / n_warmup
    if train.schedule == "constant":
        return train.peak_lr
    done = (step - n_warmup) / max(train.steps - n_warmup, 1)
    return train.peak_lr * 0.5 * (1.0 + math.cos(math.pi * done))
