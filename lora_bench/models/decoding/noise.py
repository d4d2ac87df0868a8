"""The random numbers of a clip: a function of seed, prompt, clip index, frame and codebook, nothing else.

So a fine-tuned model and its base get the same draws (paired comparisons), and batch size, order, resuming
and the number of clips change none of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def draw_clip_noise(
    seed: int, prompt: str, clip: int, n_frames: int, n_codebooks: int
) -> NDArray[np.float64]:
    """Uniform numbers of one clip, strictly between 0 and 1.

    They are taken from Philox (a counter-based generator) by its raw output, which no version of numpy
    changes.  A longer clip begins with the numbers of a shorter one.

    Returns:
        [n_frames, n_codebooks].
    """
    digest = hashlib.sha256(f"{seed}\0{clip}\0{prompt}".encode()).digest()
    source = np.random.Philox(key=int.from_bytes(digest[:16], "big"))
    bits = source.random_raw(n_frames * n_codebooks) >> np.uint64(12)
    # 52 bits and a half: the largest is 1 - 2**-53, which float64 holds
    return ((bits + 0.5) * 2.0**-52).reshape(n_frames, n_codebooks)


def draw_noise(
    seed: int, prompt: str, clips: Sequence[int], n_frames: int, delays: Sequence[int]
) -> NDArray[np.float64]:
    """Numbers of several clips by decoding position.

    Returns:
        [n_frames + max(delays), N, K]; 0.5 where a codebook has not begun or is over.
    """
    noise = np.full((n_frames + max(delays), len(clips), len(delays)), 0.5)
    for row, clip in enumerate(clips):
        drawn = draw_clip_noise(seed, prompt, clip, n_frames, len(delays))
        for codebook, delay in enumerate(delays):
            noise[delay : delay + n_frames, row, codebook] = drawn[:, codebook]
    return noise
