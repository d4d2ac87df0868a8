"""Memory: what is free, what was used at most, and which errors mean that it ran out."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

GIB = 1024**3
CPU_MESSAGES = ("can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or not."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or any(message in text for message in CPU_MESSAGES)
    )


def release_cached(device: torch.device) -> None:
    """Give unused GPU memory back, after something large was dropped."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def available_bytes(device: torch.device) -> int:
    """Memory that can still be taken: of the GPU, or of the machine and this process's group."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held
    found = [_machine_available(), _group_available()]
    return min(value for value in found if value is not None)


def _machine_available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = dict(line.split(":", 1) for line in lines)
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 * GIB  # unknown (not Linux): a modest guess, an error halves the batch


def _group_available() -> int | None:
    """What the control group (a container) still allows; None without a limit."""
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
    """Memory of the GPU or the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1] / GIB
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(lines[0].split()[1]) * 1024 / GIB
    except (OSError, IndexError, ValueError):
        return float("nan")


def reset_peak(device: torch.device) -> None:
    """Begin a new measurement of `peak_gib`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM, see proc(5)
    except OSError:
        return


def peak_gib(device: torch.device) -> float:
    """Most memory in use since `reset_peak`: allocated on the GPU, or resident in this process.

    Where the kernel does not let the mark be reset, it is the process's peak since it began.
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
