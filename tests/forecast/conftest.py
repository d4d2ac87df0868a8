"""What tests of forecasts share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def empty_hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No published model lies on this machine: shapes come from the sizes that are known without one."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path_factory.getbasetemp() / "empty_hub"))
