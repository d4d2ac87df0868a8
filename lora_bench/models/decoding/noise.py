"""The random numbers of a clip, a function of seed, prompt, clip index, frame and codebook only.

A fine-tuned model and its base therefore get the same draws (paired comparisons), and batch size, order, resuming and
the number of clips do not change them.
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
    """Draw uniform numbers of one clip, strictly between 0 and 1.

    They come from the raw output of Philox (a counter-based generator), which is the same in all versions of numpy.  A
    longer clip starts with the numbers of a shorter one.

    Returns:
        [n_frames, n_codebooks].
    """
    digest = hashlib.sha256(f"{seed}\0{clip}\0{prompt}".encode()).digest()
    source = np.random.Philox(key=int.from_bytes(digest[:16], "big"))
    bits = source.random_raw(n_frames * n_codebooks) >> np.uint64(12)
    # 52 bits and a half: the largest is 1 - 2**-53, which float64 holds
    return ((bits + 0.5) * 2.0**-52).reshape(n_frames, n_codebooks)


def draw_noise(
    seed: int, prompt: str, clips: Sequence[int], n_frames: int, delays: Sequence[int], begin: int = 0
) -> NDArray[np.float64]:
    """Draw the numbers of several clips by decoding position, from frame `begin` on.

    Returns:
        [n_frames + max(delays), N, K]; 0.5 before a codebook's first and after its last frame.
    """
    noise = np.full((n_frames + max(delays), len(clips), len(delays)), 0.5)
    for row, clip in enumerate(clips):
        drawn = draw_clip_noise(seed, prompt, clip, begin + n_frames, len(delays))[begin:]
        for codebook, delay in enumerate(delays):
            noise[delay : delay + n_frames, row, codebook] = drawn[:, codebook]
    return noise
