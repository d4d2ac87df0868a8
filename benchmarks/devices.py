"""The device of a benchmark: `--device` and `--dtype`, clocks that wait for a GPU, its memory, how fast it copies.

On a GPU `peak memory` and `before work` are what torch has allocated there (`torch.cuda.max_memory_allocated`, from
the end of loading on), not the memory of the process.
"""

from __future__ import annotations

import argparse
import time

import torch
from side_by_side import resident_gib

from lora_bench.errors import ResourceError
from lora_bench.models.device import choose_device, has_fast_bfloat16
from lora_bench.models.memory import GIB

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COPIED_BYTES = 2**30
N_COPIES = 10


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add `--device` and `--dtype`."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<n>")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32", help="of the decoder")


def check_device(arguments: argparse.Namespace) -> None:
    """Check that the device exists and computes in the dtype.

    Raises:
        ResourceError: no such device, or bfloat16 without hardware for it on a GPU.
    """
    device = choose_device(arguments.device)
    if arguments.dtype == "bfloat16" and device.type == "cuda" and not has_fast_bfloat16(device):
        raise ResourceError(f"--dtype bfloat16: {device} has no products in it; use float32")


def find_device(arguments: argparse.Namespace) -> torch.device:
    """The device of `--device`."""
    return choose_device(arguments.device)


def find_dtype(arguments: argparse.Namespace) -> torch.dtype:
    """The type of `--dtype`."""
    return DTYPES[arguments.dtype]


def read_clock_s(device: torch.device) -> float:
    """Time, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def begin_work(device: torch.device) -> float:
    """GiB that are taken before the work; on a GPU a new peak begins."""
    if device.type != "cuda":
        return resident_gib()
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device) / GIB


def read_peak(device: torch.device) -> dict[str, float]:
    """`peak_gib` of a GPU; nothing on a CPU, where the contender's process is measured as a whole."""
    if device.type != "cuda":
        return {}
    return {"peak_gib": torch.cuda.max_memory_allocated(device) / GIB}


def measure_copy_bytes_per_s(device: torch.device) -> float:
    """Bytes per second that a copy within the device's memory reads and writes, best of `N_COPIES`."""
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times_s: list[float] = []
    for _ in range(N_COPIES + 1):
        begin_s = read_clock_s(device)
        target.copy_(source)
        times_s.append(read_clock_s(device) - begin_s)
    return 2 * COPIED_BYTES / min(times_s[1:])


def describe_device(arguments: argparse.Namespace) -> str:
    """The device's name and the dtype, for below a table."""
    device = find_device(arguments)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{name}, {arguments.dtype}, torch {torch.__version__}"
