"""The wheel holds what an installation needs: code, weights, pages and the shipped specs."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import ROOT

MIB = 2**20


def test_the_wheel_holds_every_file_of_the_package_and_every_shipped_spec() -> None:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    found = list(builders.WheelBuilder(str(ROOT)).recurse_included_files())
    files = {Path(file.distribution_path).as_posix(): Path(file.path) for file in found}
    code = {
        path
        for path in (ROOT / "lora_bench").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected = {path.relative_to(ROOT).as_posix() for path in code}
    expected |= {
        f"lora_bench/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "specs").rglob("*.yaml")
    }
    assert set(files) == expected
    assert sum(path.stat().st_size for path in files.values()) < 28 * MIB  # 22 MiB once compressed
