"""Free memory of the machine, without torch."""

from __future__ import annotations

from pathlib import Path


def count_free_bytes() -> int:
    """Return the memory that is free on the machine, within this process's control group (a container)."""
    import psutil  # 0.1 s, which plans that do not ask save

    free, limit = psutil.virtual_memory().available, _count_free_in_group()
    return free if limit is None else min(free, limit)


def count_resident_bytes() -> int:
    """Return the memory that this process has now."""
    import psutil

    return psutil.Process().memory_info().rss


def _count_free_in_group() -> int | None:
    """Return what the control group still allows; None without a limit.  psutil knows no groups."""
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
