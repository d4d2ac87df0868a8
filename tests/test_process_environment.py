"""Environment variables that the entry points set for the libraries they load."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lora_bench.process_environment import WAIT_SETTINGS, set_defaults

START = """
import os, sys
from lora_bench.cli import main
main(["schema"])
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAIT_SETTINGS:
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("unset")
def test_waiting_threads_sleep() -> None:
    set_defaults()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize("name", WAIT_SETTINGS)
def test_a_users_own_way_of_waiting_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "7")
    set_defaults()
    assert os.environ[name] == "7"
    assert [other for other in WAIT_SETTINGS if other in os.environ] == [name]


@pytest.mark.usefixtures("unset")
def test_the_command_line_sets_defaults_before_torch_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "PASSIVE False"


@pytest.mark.usefixtures("unset")
def test_torch_takes_the_default() -> None:
    code = "from lora_bench.process_environment import set_defaults; set_defaults(); import torch"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_DISPLAY_ENV": "TRUE"},
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
