"""Populations of embeddings with known distances, and samples from them with clips, windows and tracks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg

from lora_bench.artifacts import Embeddings
from lora_bench.metrics.kernel import KAD_SCALE


@dataclass(frozen=True)
class Design:
    """Numbers of clips, windows and tracks of a simulated experiment, and how correlated windows are.

    Attributes:
        clip_share: share of the variance that all windows of a generated clip have in common.
        pair_share: share of a clip's common part that base and tuned have in common (the same noise).
        track_share: share of the variance that all clips of a reference track have in common;
            `track_clip_share` what windows of one clip have in common beyond that.
    """

    n_clips: int = 150
    n_windows: int = 8
    n_tracks: int = 50
    n_track_clips: int = 3
    clip_share: float = 0.4
    pair_share: float = 0.5
    track_share: float = 0.3
    track_clip_share: float = 0.2


@dataclass(frozen=True)
class Gaussian:
    """Mean [D] and root [D, D] of the covariance."""

    mean: np.ndarray
    root: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """[D, D]."""
        return self.root @ self.root.T


class World:
    """Three populations: recordings, a base generator, and a tuned one on the way from base to recordings.

    The recordings' variances fall with the `decay`-th power of the rank.  The base differs in mean, scale
    and axes.  The tuned one has gone `progress` of the straight way of optimal transport, which leaves
    (1 - progress)^2 of the distance; a `spread` below 1 then takes variety from it.
    """

    def __init__(
        self, dim: int, progress: float, *, spread: float = 1.0, decay: float = 0.7, seed: int = 0
    ) -> None:
        rng = np.random.default_rng([dim, seed])
        scales = np.arange(1, dim + 1) ** (-decay / 2.0)
        axes = linalg.qr(rng.normal(size=(dim, dim)))[0]
        turned = linalg.qr(axes + 0.45 / np.sqrt(dim) * rng.normal(size=(dim, dim)))[0]
        own = turned * (scales * np.exp(0.3 * rng.normal(size=dim)) * np.sqrt(1.2))
        shift = rng.normal(size=dim)
        shift *= 0.3 / np.linalg.norm(shift)
        self.recordings = Gaussian(np.zeros(dim), axes * scales)
        self.base = Gaussian(shift, own)
        inner = linalg.sqrtm(own.T @ self.recordings.covariance @ own).real
        inverse = np.linalg.inv(own)
        carried = inverse.T @ inner @ inverse @ own  # the base's root, carried onto the recordings
        self.tuned = Gaussian((1 - progress) * shift, spread * ((1 - progress) * own + progress * carried))

    def frechet(self, generator: Gaussian) -> float:
        """True squared Frechet distance to the recordings."""
        other = self.recordings
        shift = generator.mean - other.mean
        overlap = linalg.svdvals(generator.root.T @ other.root).sum()
        return float(
            shift @ shift + np.trace(generator.covariance) + np.trace(other.covariance) - 2.0 * overlap
        )

    @cached_property
    def bandwidth(self) -> float:
        """Median distance of two independent recordings."""
        rng = np.random.default_rng(0)
        gaps = np.sqrt(2.0) * rng.normal(size=(200_000, len(self.recordings.mean)))
        return float(np.median(np.sqrt(gaps**2 @ (self.recordings.root**2).sum(axis=0))))

    def kernel(self, generator: Gaussian) -> float:
        """True 100 x squared maximum mean discrepancy at the population's bandwidth."""
        other = self.recordings
        within = self._mean_kernel(generator, generator) + self._mean_kernel(other, other)
        return KAD_SCALE * (within - 2.0 * self._mean_kernel(generator, other))

    def _mean_kernel(self, one: Gaussian, other: Gaussian) -> float:
        width = self.bandwidth**2
        spread = one.covariance + other.covariance + width * np.eye(len(one.mean))
        shift = one.mean - other.mean
        _, log_size = np.linalg.slogdet(spread / width)
        return float(np.exp(-0.5 * (log_size + shift @ np.linalg.solve(spread, shift))))

    def sample_generators(
        self, rng: np.random.Generator, design: Design, n_tuned: int = 1
    ) -> list[Embeddings]:
        """The same clips by the base and by `n_tuned` tuned generators."""
        dim, n = len(self.base.mean), design.n_clips
        common = rng.normal(size=(n, 1, dim))
        clips: list[Embeddings] = []
        for generator in (self.base, *[self.tuned] * n_tuned):
            own, window = rng.normal(size=(n, 1, dim)), rng.normal(size=(n, design.n_windows, dim))
            of_clip = np.sqrt(design.pair_share) * common + np.sqrt(1 - design.pair_share) * own
            unit = np.sqrt(design.clip_share) * of_clip + np.sqrt(1 - design.clip_share) * window
            clips.append(_wrap(generator.mean + unit @ generator.root.T, 1))
        return clips

    def sample_recordings(self, rng: np.random.Generator, design: Design) -> Embeddings:
        """Clips of tracks."""
        dim = len(self.base.mean)
        tracks, clips = design.n_tracks, design.n_track_clips
        track = rng.normal(size=(tracks, 1, 1, dim))
        clip = rng.normal(size=(tracks, clips, 1, dim))
        window = rng.normal(size=(tracks, clips, design.n_windows, dim))
        rest = 1 - design.track_share - design.track_clip_share
        unit = (
            np.sqrt(design.track_share) * track
            + np.sqrt(design.track_clip_share) * clip
            + np.sqrt(rest) * window
        )
        values = (unit @ self.recordings.root.T).reshape(tracks * clips, design.n_windows, dim)
        return _wrap(values, clips)


def _wrap(values: np.ndarray, clips_per_group: int) -> Embeddings:
    n_clips, n_windows, dim = values.shape
    return Embeddings(
        values=values.reshape(-1, dim),
        clip_index=np.repeat(np.arange(n_clips), n_windows),
        clip_names=tuple(f"{clip:03d}" for clip in range(n_clips)),
        groups=tuple(f"{clip // clips_per_group:03d}" for clip in range(n_clips)),
        provenance={"encoder": "simulated"},
    )
