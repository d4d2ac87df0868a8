"""Paths and names in documents exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "design").glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
CODE = re.compile(r"`([\w./-]+)`")
TOP = {path.name for path in ROOT.iterdir()} - {"runs", "data"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_and_path_in_a_document_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    if document.name == "CHANGELOG.md":  # tells of files that are gone
        pytest.skip("history")
    missing = [target for target in LINK.findall(text) if not (document.parent / target).exists()]
    for name in CODE.findall(text):
        is_path = "/" in name.strip("/") and name.split("/")[0] in TOP
        is_module = name.endswith(".py")
        if (is_path and not (ROOT / name).exists()) or (
            is_module and not is_path and not any(ROOT.glob(f"*/**/{name}"))
        ):
            missing.append(name)
    assert not missing, f"{document.name} names {missing}"
