"""Synthetic sets of clips for the tests of metrics: windows of one clip resemble one another."""

from __future__ import annotations

import numpy as np

from lora_bench.artifacts import Embeddings
from lora_bench.metrics.clusters import Clusters, cluster_embeddings
from lora_bench.metrics.kernel import prepare_blocks


def make_embeddings(
    n_clips, n_windows, dim, *, seed=0, shift=0.0, scale=1.0, clip_share=0.4, clips_per_group=1, **about
):
    rng = np.random.default_rng(seed)
    of_clip = rng.normal(size=(n_clips, 1, dim)) * np.sqrt(clip_share)
    of_window = rng.normal(size=(n_clips, n_windows, dim)) * np.sqrt(1.0 - clip_share)
    values = shift + scale * (of_clip + of_window).reshape(-1, dim)
    return wrap(values, n_windows, clips_per_group=clips_per_group, **about)


def wrap(values, n_windows=1, *, clips_per_group=1, names=None, **about):
    values = np.asarray(values)
    n_clips = len(values) // n_windows
    names = tuple(names or (f"{clip:03d}" for clip in range(n_clips)))
    groups = (
        tuple(f"track{clip // clips_per_group}" for clip in range(n_clips)) if clips_per_group > 1 else names
    )
    index = np.repeat(np.arange(n_clips), n_windows)
    return Embeddings(values, index, names, groups, {"encoder": "test", **about})


def make_clusters(*args, **kwargs) -> Clusters:
    return cluster_embeddings(make_embeddings(*args, **kwargs), "generated")


def kernel_distance(generated: Clusters, reference: Clusters) -> float:
    """100 x unbiased squared MMD of two clustered sets."""
    blocks = prepare_blocks(generated, reference)
    return float(blocks.of_generated().distances(np.ones((1, len(blocks.generated.sizes))))[0])
