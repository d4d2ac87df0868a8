"""The GPUs of this machine that torch can use, by one rule for all parts; and how many of them a trial may use.

The driver may count a GPU that torch cannot use: the driver is too old for torch's CUDA, or torch is not built for the
card.  Such a GPU does not count, and the reason is kept for the message.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_bench.errors import ResourceError

CPU = "cpu"
UNKNOWN = "gpu"
"""A GPU whose name is not known."""
DRIVER_VERSION = Path("/proc/driver/nvidia/version")
GPU_FOLDERS = Path("/proc/driver/nvidia/gpus")
OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
"""By CUDA's major version, the oldest driver that runs it."""
_limit: float | None = None


@dataclass(frozen=True)
class Gpus:
    """GPUs that torch can use.

    Attributes:
        names: by index.
        problem: why a GPU of this machine cannot be used, and the mend, as a clause; None if all can.
    """

    names: Mapping[int, str]
    problem: str | None = None


def usable_gpus() -> Gpus:
    """Return the GPUs that torch can use here."""
    import torch

    with warnings.catch_warnings(action="ignore"):  # what torch warns of is in `problem`
        if not torch.cuda.is_available():
            return Gpus({}, _explain_unavailable(torch))
        names: dict[int, str] = {}
        problem = None
        for index in range(torch.cuda.device_count()):
            name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
            if torch.version.hip is not None or is_supported(capability, torch.cuda.get_arch_list()):
                names[index] = name
                continue
            built_for = ", ".join(torch.cuda.get_arch_list())
            problem = (
                f"GPU {index} ({name}) has compute capability {capability[0]}.{capability[1]}, but torch "
                f"{torch.__version__} is built for {built_for}; use another GPU, or a torch that is built for it"
            )
    return Gpus(names, problem)


def is_supported(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Return whether code for some of the architectures runs on a card.

    Machine code (`sm_80`) runs on the same major version from its minor version on, and code that the driver
    translates (`compute_80`) on everything later.
    """
    for architecture in architectures:
        kind, _, digits = architecture.partition("_")
        number = re.match(r"\d+", digits)
        if number is None:
            continue
        major, minor = divmod(int(number[0]), 10)
        if kind == "sm" and capability[0] == major and capability[1] >= minor:
            return True
        if kind == "compute" and capability >= (major, minor):
            return True
    return False


def _explain_unavailable(torch: Any) -> str | None:
    """Say why torch uses no GPU although there is one; None if there is none, or it is hidden."""
    driver = read_driver_version()
    if torch.version.cuda is None:
        if driver is None:
            return None
        return f"torch {torch.__version__} is built without CUDA; install a build with CUDA"
    n_counted = int(torch.cuda.device_count())
    if n_counted == 0:
        return None
    cuda = str(torch.version.cuda)
    oldest = OLDEST_DRIVERS.get(int(cuda.partition(".")[0]))
    needs = f"torch {torch.__version__} is built for CUDA {cuda}" + (
        "" if oldest is None else f", which needs NVIDIA driver {oldest} or later"
    )
    if driver is not None and oldest is not None and int(driver.partition(".")[0]) < oldest:
        mend = "update the driver"
        suitable = [
            major for major, first in OLDEST_DRIVERS.items() if first <= int(driver.partition(".")[0])
        ]
        if suitable:
            mend += f", or install a torch for CUDA {max(suitable)}"
            mend += " (`make cuda12` does it in a checkout)" if max(suitable) == 12 else ""
        return f"driver {driver} is too old: {needs}; {mend}"
    try:
        torch.cuda.init()
        reason = "no reason was given"
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split()).partition(" Please ")[0][:200].rstrip(".")
    installed = "" if driver is None else f" (driver {driver})"
    return (
        f"the driver counts {n_counted}{installed}, but CUDA does not start: {reason}; {needs}: check the driver, or "
        "install a torch for an older CUDA"
    )


def read_driver_version() -> str | None:
    """Return the version of the loaded NVIDIA driver; None without one."""
    try:
        found = re.search(
            r"\b(\d{3,}(?:\.\d+)+)\b", DRIVER_VERSION.read_text(encoding="utf-8", errors="replace")
        )
    except OSError:
        return None
    return None if found is None else found[1]


def list_names() -> tuple[str, ...]:
    """Return the names of the GPUs that the NVIDIA driver lists, without torch; empty where it lists none (WSL)."""
    names: list[str] = []
    for place in sorted(GPU_FOLDERS.glob("*/information")):
        with suppress(OSError):
            found = re.search(r"^Model:\s*(\S.*?)\s*$", place.read_text("utf-8", "replace"), re.MULTILINE)
            names += [found[1]] if found else []
    return tuple(names)


def require_gpus(n: float) -> Gpus:
    """Return the usable GPUs if they are enough for a trial that takes `n`; for 0, none are looked for.

    Raises:
        ResourceError: there are fewer.
    """
    found = usable_gpus() if n > 0 else Gpus({})
    if len(found.names) >= n:
        return found
    why = "; run on a machine with enough GPUs, or" if found.problem is None else f": {found.problem}; or run"
    raise ResourceError(
        f"resources.gpu is {n:g}, but torch sees {len(found.names)} GPUs on this machine{why} on the CPU with "
        "`-o resources.gpu=0`"
    )


def count_sharing(n: float) -> int:
    """Return how many trials share a GPU if each takes `n` of them."""
    return max(1, math.floor(1 / n + 1e-9)) if n > 0 else 1


def limit() -> float | None:
    """Return the number of GPUs that the present work may use; None if nothing was said."""
    return _limit


@contextmanager
def limit_gpus(n: float | None) -> Iterator[None]:
    """Let `auto` mean the CPU (0), a GPU that must exist (more), or a GPU if there is one (None), in this process."""
    global _limit  # noqa: PLW0603 (threads of the work must see it)
    before, _limit = _limit, n
    try:
        yield
    finally:
        _limit = before
