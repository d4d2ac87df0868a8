"""Versions and hardware of a run, for the provenance of its numbers; nothing personal."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

from lora_bench.machine.gpus import usable_gpus
from lora_bench.results.run_records import Environment

PACKAGES = (
    "lora-bench", "torch", "torchaudio", "transformers", "peft", "numpy", "scipy", "librosa", "scikit-learn",
    "soxr", "soundfile", "ray", "optuna", "audiocraft", "frechet-audio-distance",
)  # fmt: skip


def package_versions() -> dict[str, str | None]:
    """Return the version of every package that can affect a number; None if it is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def cpu_name() -> str:
    """Return the model name of the processor, which psutil does not know, or else the architecture."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def count_cpus() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """Return the main memory."""
    return round(psutil.virtual_memory().total / 2**30, 1)


def describe_environment() -> Environment:
    """Describe versions, processor, memory and usable GPUs of this machine."""
    import torch

    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        instruction_set=torch.backends.cpu.get_cpu_capability(),
        n_cpu=count_cpus(),
        memory_gib=memory_gib(),
        gpus=tuple(usable_gpus().names.values()),
        packages=package_versions(),
    )
