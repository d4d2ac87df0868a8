"""What the hardware computes fast."""

from __future__ import annotations

import time
from functools import cache

import torch

_SIZE, _N_ROUNDS = 384, 5
_FASTER = 0.8
"""Time in bfloat16 over time in float32 below which bfloat16 is called fast."""


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32; on a CPU without them they are many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _measure_bfloat16() < _FASTER


@cache
def _measure_bfloat16() -> float:
    """Time of a product in bfloat16 over that in float32, best of some rounds, once per process."""
    sides = {dtype: torch.ones(_SIZE, _SIZE, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    best_s = dict.fromkeys(sides, float("inf"))
    with torch.inference_mode():
        for _ in range(_N_ROUNDS):  # in turn, so that a busy moment meets both
            for dtype, side in sides.items():
                begin_s = time.perf_counter()
                side @ side
                best_s[dtype] = min(best_s[dtype], time.perf_counter() - begin_s)
    return best_s[torch.bfloat16] / best_s[torch.float32]
