"""The delay pattern: codebook k comes `delays[k]` positions later than codebook 0.

With delays 0, 1, 2, 3 and frames a, b, c the decoder's positions are (P is start and padding)::

    position    0   1   2   3   4   5
    codebook 0  a0  b0  c0  P   P   P
    codebook 1  P   a1  b1  c1  P   P
    codebook 2  P   P   a2  b2  c2  P
    codebook 3  P   P   P   a3  b3  c3

so that `F` frames take `F + max(delays)` positions and no frame of any codebook is lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def find_delays(n_codebooks: int, channels: int) -> tuple[int, ...]:
    """Return MusicGen's delays: 0, 1, 2, 3; a stereo pair (left, right) shares its delay: 0, 0, 1, 1, ..."""
    return tuple(codebook // channels for codebook in range(n_codebooks))


def delay_codes(codes: Tensor, valid_frames: Tensor, delays: Sequence[int], pad_id: int) -> Tensor:
    """Put codes into the delay pattern, with `pad_id` in place of padding frames.

    Args:
        codes: int64 [B, K, F].
        valid_frames: int64 [B].
        delays: K delays.
        pad_id: token before a codebook's first and after its last frame.

    Returns:
        int64 [B, K, F + max(delays)].
    """
    n_clips, _, n_frames = codes.shape
    frames = torch.arange(n_frames, device=codes.device)
    kept = torch.where(frames < valid_frames[:, None, None], codes, pad_id)
    delayed = codes.new_full((n_clips, len(delays), n_frames + max(delays)), pad_id)
    for codebook, delay in enumerate(delays):
        delayed[:, codebook, delay : delay + n_frames] = kept[:, codebook]
    return delayed


def undelay_codes(delayed: Tensor, delays: Sequence[int]) -> Tensor:
    """Return codes [B, K, F] from the delay pattern [B, K, F + max(delays)]."""
    n_frames = delayed.shape[-1] - max(delays)
    return torch.stack(
        [delayed[:, codebook, delay : delay + n_frames] for codebook, delay in enumerate(delays)], dim=1
    )


def decoder_inputs(delayed: Tensor, start_id: int) -> Tensor:
    """Return the decoder's inputs to predict `delayed`: the same one position later, `start_id` first."""
    return torch.cat([torch.full_like(delayed[..., :1], start_id), delayed[..., :-1]], dim=-1)
