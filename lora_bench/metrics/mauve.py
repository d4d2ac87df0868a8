"""`mad`: the MAUVE Audio Divergence, -ln of MAUVE (Pillutla et al., 2021; for music, Huang et al., 2025).

Both sets are binned together by k-means, and MAUVE is the area under the curve of exp(-c KL) between either histogram
and their mixtures.  It is 0 for equal histograms.  Steps and defaults are those of mauve-text 0.4: vectors of unit
length, principal components with 90 % of the variance, a bin per 10 vectors of the smaller set, c = 5, 25 mixtures.
K-means is another implementation, whose bins differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.cluster.vq import vq
from scipy.integrate import trapezoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

VARIANCE = 0.9
DECIMALS = 12
SCALE = 5.0
N_MIXTURES = 25
VECTORS_PER_BIN = 10
N_ATTEMPTS, N_ITERATIONS = 5, 100
SEED = 25


class MadSettings(BaseModel):
    """Settings of `mad`."""

    model_config = ConfigDict(extra="forbid")

    bins: int | None = Field(default=None, ge=2)
    """Bins; null is a tenth of the vectors of the smaller set, at least 2."""


class Mad:
    """-ln(MAUVE) of two sets of vectors; bins are those of the whole sets where clips or tracks are left out."""

    Settings = MadSettings

    def __init__(self, settings: MadSettings) -> None:
        self._bins = settings.bins
        self.provenance = {"binning": f"k-means, {N_ATTEMPTS} attempts, seed {SEED}"}

    def prepare(
        self, generated: NDArray[np.float64], reference: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the bin of each vector as a row of zeros and a one, [M, K] and [N, K]."""
        n_bins = self._bins or max(2, round(min(len(generated), len(reference)) / VECTORS_PER_BIN))
        labels = find_bins(reduce_vectors(np.concatenate([generated, reference])), n_bins)
        rows = np.eye(n_bins)[labels]
        return rows[: len(generated)], rows[len(generated) :]

    def measure(self, generated: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
        """Return the divergence of two sets of bins, [M, K] and [N, K]."""
        return float(-np.log(measure_mauve(generated.mean(axis=0), reference.mean(axis=0))))


def reduce_vectors(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors of unit length in the principal components that hold `VARIANCE`, [N, E]."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0.0)
    centred = units - units.mean(axis=0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    shares = np.cumsum(spread**2) / max(float((spread**2).sum()), np.finfo(float).tiny)
    n_kept = int(np.searchsorted(shares, VARIANCE)) + 1
    # units have length 1: what lies below this are rounding errors, which must not split equal vectors into bins
    return np.round(centred @ axes[:n_kept].T, DECIMALS)


def find_bins(vectors: NDArray[np.float64], n_bins: int) -> NDArray[np.int64]:
    """Return the bin of each vector by the best of several runs of k-means, [N]."""
    rng = np.random.default_rng(SEED)
    runs = [_run_kmeans(vectors, _spread_centres(vectors, n_bins, rng)) for _ in range(N_ATTEMPTS)]
    return min(runs, key=lambda run: run[0])[1]


def _spread_centres(
    vectors: NDArray[np.float64], n_bins: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return vectors to begin with: each is drawn by its squared distance from those before it (k-means++)."""
    centres = [vectors[rng.integers(len(vectors))]]
    nearest = ((vectors - centres[0]) ** 2).sum(axis=1)
    while len(centres) < n_bins:
        total = float(nearest.sum())
        place = rng.choice(len(vectors), p=nearest / total if total > 0.0 else None)
        centres.append(vectors[place])
        nearest = np.minimum(nearest, ((vectors - centres[-1]) ** 2).sum(axis=1))
    return np.stack(centres)


def _run_kmeans(
    vectors: NDArray[np.float64], centres: NDArray[np.float64]
) -> tuple[float, NDArray[np.int64]]:
    """Return the sum of squared distances and the bins; a bin that loses its vectors keeps its centre."""
    labels, distances = vq(vectors, centres)
    for _ in range(N_ITERATIONS):
        for place in np.unique(labels):
            centres[place] = vectors[labels == place].mean(axis=0)
        before = labels
        labels, distances = vq(vectors, centres)
        if (labels == before).all():
            break
    return float((distances**2).sum()), labels.astype(np.int64)


def measure_mauve(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Return MAUVE of two histograms [K], from 0 to 1: the mean of the areas over either axis of the curve."""
    weights = np.linspace(1e-6, 1.0 - 1e-6, N_MIXTURES)[:, None]
    mixtures = weights * p + (1.0 - weights) * q
    x = np.concatenate([[0.0], np.exp(-SCALE * _divergences(p, mixtures)), [1.0]])
    y = np.concatenate([[1.0], np.exp(-SCALE * _divergences(q, mixtures)), [0.0]])
    return 0.5 * (_area(x, y) + _area(y, x))


def _area(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    order = np.lexsort((-y, x))  # equal x by falling y, as the curve runs
    return float(trapezoid(y[order], x[order]))


def _divergences(p: NDArray[np.float64], mixtures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return KL(p || mixture) of each mixture, which is positive wherever p is."""
    inside = p > 0.0
    return (p[inside] * np.log(p[inside] / mixtures[:, inside])).sum(axis=1)
