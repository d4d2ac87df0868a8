"""Free memory, peak memory, and the errors that mean that memory ran out."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from lora_bench.errors import OutOfMemoryError
from lora_bench.machine.memory import count_free_bytes, count_resident_bytes

GIB = 1024**3
Result = TypeVar("Result")
_MESSAGES = re.compile(
    # of torch; of the system; of CUDA's libraries, whose handles need memory too
    r"out of memory|(can't|cannot) allocate memory|not enough memory|"
    r"(cublas|cudnn|cufft|cusolver|cusparse)\w*_alloc|cublas_status_not_initialized",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a GPU or not."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _MESSAGES.search(str(error)) is not None


def release_cached(device: torch.device) -> None:
    """Return unused GPU memory to the system."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Halving:
    """Runs work on batches, and halves them when memory runs out.

    Memory is freed after the error is gone: its traceback holds what the failed work had allocated.

    Args:
        device: where the work runs.
        what: a batch of one, for the error.
        mend: for the error.
        limit: largest batch; None leaves it to the work.
        tell: called with the batch that did not fit, and its half.
        free: called before memory is returned.
    """

    def __init__(
        self,
        device: torch.device,
        what: str,
        mend: str,
        *,
        limit: int | None = None,
        tell: Callable[[int, int], None] | None = None,
        free: Callable[[], None] | None = None,
    ) -> None:
        self._device, self._what, self._mend = device, what, mend
        self._tell, self._free = tell, free
        self.limit = limit

    def run(self, n: int, work: Callable[[int], Result]) -> Result:
        """Return `work(size)` for the largest size up to `n` that fits.

        Raises:
            OutOfMemoryError: not even a batch of one fits.
        """
        while True:
            size = n if self.limit is None else min(n, self.limit)
            try:
                return work(size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise OutOfMemoryError(
                        f"{self._what} did not fit into the memory of {self._device} "
                        f"({total_gib(self._device):.1f} GiB); {self._mend}"
                    ) from error
            if self._free is not None:
                self._free()
            release_cached(self._device)
            self.limit = size // 2
            if self._tell is not None:
                self._tell(size, self.limit)


def available_bytes(device: torch.device) -> int:
    """Return the memory that is free on the GPU, or on the machine within this process's control group."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held
    return count_free_bytes()


def find_budget_gib(device: torch.device, n_sharing: int) -> float:
    """Return the memory that a training may take: a share of the GPU, or what is free and what this process holds.

    Args:
        device: it trains on.
        n_sharing: trials that share the GPU.
    """
    if device.type == "cuda":
        return total_gib(device) / n_sharing
    return (available_bytes(device) + count_resident_bytes()) / GIB


def total_gib(device: torch.device) -> float:
    """Return the memory of the GPU or the machine."""
    is_gpu = device.type == "cuda"
    return (torch.cuda.mem_get_info(device)[1] if is_gpu else psutil.virtual_memory().total) / GIB


def reset_peak(device: torch.device) -> None:
    """Begin a new measurement of `peak_gib`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # psutil neither resets nor reads the peak; see clear_refs in proc(5)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_gib(device: torch.device) -> float:
    """Return the most memory in use since `reset_peak`: allocated on the GPU, or resident in this process.

    Where the kernel cannot reset the peak, it is that of the process since its start.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    # VmHWM is reset by clear_refs; ru_maxrss is not
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
