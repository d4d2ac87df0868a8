"""Choose device and arithmetic; measure whether the hardware is fast in bfloat16."""

from __future__ import annotations

import time
from functools import cache
from typing import cast

import torch

from lora_bench.errors import ResourceError
from lora_bench.machine import gpus

_SIZE, _N_ROUNDS = 384, 5
_FASTER = 0.8
"""Time in bfloat16 over time in float32 below which bfloat16 counts as fast."""


def choose_device(device: str) -> torch.device:
    """Return the device of a name; `auto` is what `limit_gpus` says, or a GPU if there is one.

    The first GPU fixes its arithmetic for the process: see `_fix_arithmetic`.

    Raises:
        ResourceError: there is no such device.
    """
    if device == "auto":
        place = _choose_automatically()
    else:
        try:
            place = torch.device(device)
        except RuntimeError as error:
            raise ResourceError(
                f"device {device!r} is unknown, expected auto, cpu, cuda or cuda:<n>"
            ) from error
        if is_gpu(place):
            found = gpus.usable_gpus()
            if (place.index or 0) not in found.names:
                why = "" if found.problem is None else f" ({found.problem})"
                n = len(found.names)
                raise ResourceError(
                    f"device {device!r}: this machine has {n} usable GPUs{why}; choose another or use cpu"
                )
    if is_gpu(place):
        _fix_arithmetic()
    return place


def _choose_automatically() -> torch.device:
    n = gpus.limit()
    if n == 0:
        return torch.device("cpu")
    names = (gpus.usable_gpus() if n is None else gpus.require_gpus(n)).names
    if not names:
        return torch.device("cpu")
    first = min(names)
    return torch.device("cuda") if first == 0 else torch.device("cuda", first)


def _fix_arithmetic() -> None:
    """Let float32 be float32 on a GPU, and attention choose among kernels that were tested.

    torch would run the codec's and the encoders' convolutions in TF32 (10 bits), so that cached codes and embeddings
    would depend on the device; they take seconds either way.  On some cards it would also prefer cuDNN's attention.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.enable_cudnn_sdp(False)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the decoder's arithmetic; `auto` is bfloat16 on GPUs that support it, else float32."""
    if name == "auto":
        is_gpu = device.type == "cuda"
        return torch.bfloat16 if is_gpu and has_fast_bfloat16(device) else torch.float32
    return cast("torch.dtype", getattr(torch, name))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 products are faster than float32; on a CPU without support they are much slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _measure_bfloat16() < _FASTER


@cache
def _measure_bfloat16() -> float:
    """Measure the time of a bfloat16 product over that of a float32 one, best of some rounds, once per process."""
    sides = {dtype: torch.ones(_SIZE, _SIZE, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    best_s = dict.fromkeys(sides, float("inf"))
    with torch.inference_mode():
        for _ in range(_N_ROUNDS):  # in turn, so that a busy moment affects both
            for dtype, side in sides.items():
                begin_s = time.perf_counter()
                torch.mm(side, side)
                best_s[dtype] = min(best_s[dtype], time.perf_counter() - begin_s)
    return best_s[torch.bfloat16] / best_s[torch.float32]


def name_device(device: torch.device) -> str:
    """Return the name of a GPU, or `gpus.CPU`."""
    return torch.cuda.get_device_name(device) if is_gpu(device) else gpus.CPU


def is_gpu(device: torch.device) -> bool:
    """Return whether a device is a GPU."""
    return device.type == "cuda"
