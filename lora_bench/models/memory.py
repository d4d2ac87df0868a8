"""Memory: free, peak, and errors that mean that it ran out."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil
import torch

GIB = 1024**3
CPU_MESSAGES = ("can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a GPU or not."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or any(message in text for message in CPU_MESSAGES)
    )


def release_cached(device: torch.device) -> None:
    """Give unused GPU memory back after something large was dropped."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def available_bytes(device: torch.device) -> int:
    """Return the free memory of the GPU, or of the machine and this process's control group."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held
    allowed, free = _group_available(), psutil.virtual_memory().available
    return free if allowed is None else min(allowed, free)


def _group_available() -> int | None:
    """Return what the control group (a container) still allows; None without a limit."""
    for limit_file, usage_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limit = Path(limit_file).read_text(encoding="ascii").strip()
            usage = int(Path(usage_file).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        if limit != "max" and int(limit) < 2**60:
            return max(int(limit) - usage, 0)
    return None


def total_gib(device: torch.device) -> float:
    """Return the memory of the GPU or the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1] / GIB
    return psutil.virtual_memory().total / GIB


def reset_peak(device: torch.device) -> None:
    """Start a new measurement of `peak_gib`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM, see proc(5)
    except OSError:
        return


def peak_gib(device: torch.device) -> float:
    """Return the peak since `reset_peak`: memory allocated on the GPU, or resident in this process.

    If the kernel does not allow the reset, it is the process's peak since its start.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / GIB
    except (OSError, ValueError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
