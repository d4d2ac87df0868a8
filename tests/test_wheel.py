"""The wheel and the source archive hold what they should, and nothing large."""

from __future__ import annotations

import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from support import ROOT

MIB = 2**20
MAX_WHEEL_BYTES = 25 * MIB


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(builders.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


@pytest.fixture(scope="module")
def source_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builders = pytest.importorskip("hatchling.builders.sdist", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("sdist")
    return Path(next(builders.SdistBuilder(str(ROOT)).build(directory=str(folder))))


def test_the_wheel_holds_every_file_of_the_package_and_every_shipped_spec(wheel: Path) -> None:
    code = {
        path
        for path in (ROOT / "lora_bench").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected = {path.relative_to(ROOT).as_posix() for path in code}
    expected |= {
        f"lora_bench/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "specs").rglob("*.yaml")
    }
    found = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in found if ".dist-info/" not in name} == expected
    assert {name.rpartition("/")[2] for name in found if "/licenses/" in name} == {"LICENSE", "LICENSE.md"}


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES


def test_the_wheel_describes_itself_to_a_package_index(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("Classifier")
    assert "# lora_bench" in metadata.get_payload()


def test_the_source_archive_holds_sources_and_no_reports(source_archive: Path) -> None:
    with tarfile.open(source_archive) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.partition("/")[0] for name in names}
    assert tops.isdisjoint({"reports", "runs", "site", "dist", "data", ".github", ".venv"})
    assert {
        "lora_bench/api.py",
        "tests/test_wheel.py",
        "docs/specs.md",
        "mkdocs.yml",
        "README.md",
        "LICENSE",
    } <= names
