"""The package of `docs/plugins.md`, built as a wheel and installed into a folder."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

from support import ROOT


def build_package(project: str, code: str, place: Path) -> Path:
    """Build a package of one module, `my_package.py`, and install it into a folder of its own; return that folder."""
    source, site = place / "source", place / "site"
    source.mkdir(parents=True)
    (source / "pyproject.toml").write_text(project, encoding="utf-8")
    (source / "my_package.py").write_text(code, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    [wheel] = place.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)  # what installing a wheel of pure Python does
    return site


def read_documented_package() -> tuple[str, str, str]:
    """Return `pyproject.toml`, the module, and the part of a spec in the documentation."""
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    code = "\n".join(body for kind, body in blocks if kind == "python" and "# my_package.py" in body)
    [project] = [body for kind, body in blocks if kind == "toml"]
    [spec] = [body for kind, body in blocks if kind == "yaml" and "plugin:tones" in body]
    return project, code, spec
