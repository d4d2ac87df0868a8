"""Which device an encoder's own network runs on."""

from __future__ import annotations

import torch

from lora_bench.errors import ResourceError


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA if there is one.

    Raises:
        ResourceError: a device that does not exist was asked for.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            f"device {name!r} was asked for, but torch sees no CUDA device; use `cpu` or `auto`"
        )
    return device
