"""Interrupted trainings, and whether two of them ended in the same adapter."""

from __future__ import annotations

import json
from pathlib import Path

from lora_bench.progress import SilentProgress

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


class StopAt(SilentProgress):
    """Raises when step `n` has been done."""

    def __init__(self, n: int, error: BaseException) -> None:
        self.left = n
        self.error = error

    def advance(self, n: int = 1, *, note: str = "") -> None:
        self.left -= n
        if self.left <= 0:
            raise self.error


def assert_same_adapter(one: Path, other: Path) -> None:
    for name in ADAPTER_FILES:
        assert (one / "adapter" / name).read_bytes() == (other / "adapter" / name).read_bytes()


def without_times(folder: Path) -> list[dict[str, object]]:
    notes = json.loads((folder / "adapter" / "lora_bench.json").read_text())
    return [{**point, "wall_s": 0} for point in notes["result"]["curve"]]
