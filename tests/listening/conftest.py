"""A run with a listening page, made once and copied for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.listening_run import ListeningRun, make_listening_run

from lora_bench.listening.create import WrittenPage


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> ListeningRun:
    return make_listening_run(tmp_path_factory.mktemp("listening"))


@pytest.fixture
def run(_made: ListeningRun, tmp_path: Path) -> ListeningRun:
    folder = shutil.copytree(_made.folder, tmp_path / "runs" / _made.folder.name)
    return ListeningRun(folder, WrittenPage(folder / _made.page.path.name, _made.study, _made.page.notes))
