from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.fake_hub import FakeHub, serve_hub
from support.tiny_run import TinyRun, build_tiny_run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A finished run of a tiny random model; tests leave it as it is."""
    return build_tiny_run(tmp_path_factory.mktemp("take-away"))


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serve_hub() as server:
        yield server
