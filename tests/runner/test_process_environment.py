"""Environment variables that the entry points set for the libraries they load."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

import lora_bench
from lora_bench.errors import UsageError
from lora_bench.runner.process_environment import WAIT_SETTINGS, choose_waiting, set_defaults

START = """
import os, sys
import psutil
psutil.cpu_percent = lambda seconds: 100.0
from lora_bench.cli.main import main
main([{verb!r}, "none.yaml"])
print(os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules)
"""


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAIT_SETTINGS:
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize(
    ("busy_percent", "n_cores", "n_own", "expected"),
    [
        (0.0, 2, 2, None),
        (10.0, 2, 2, None),
        (50.0, 2, 2, "PASSIVE"),
        (60.0, 64, 16, None),  # 25 cores are free, and this process may run on 16
        (80.0, 64, 16, "PASSIVE"),
    ],
)
def test_waiting_threads_sleep_where_other_programs_use_their_cores(
    monkeypatch: pytest.MonkeyPatch, busy_percent: float, n_cores: int, n_own: int, expected: str | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: busy_percent)
    monkeypatch.setattr(os, "cpu_count", lambda: n_cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(n_own)))
    choose_waiting()
    assert os.environ.get("OMP_WAIT_POLICY") == expected
    if expected:
        monkeypatch.delenv("OMP_WAIT_POLICY")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a single thread waits for none
        choose_waiting()
        assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize("name", WAIT_SETTINGS)
def test_a_users_own_way_of_waiting_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: 100.0)
    monkeypatch.setenv(name, "7")
    choose_waiting()
    assert os.environ[name] == "7"
    assert [other for other in WAIT_SETTINGS if other in os.environ] == [name]


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize(("verb", "expected"), [("export", "PASSIVE"), ("validate", "None")])
def test_verbs_that_compute_choose_before_torch_is_loaded(
    monkeypatch: pytest.MonkeyPatch, verb: str, expected: str
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    done = subprocess.run(
        [sys.executable, "-c", START.format(verb=verb)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{expected} False"


@pytest.mark.usefixtures("unset")
def test_a_run_from_python_chooses_unless_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = lora_bench.plan_experiment(lora_bench.load_spec("quickstart"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: 100.0)
    for torch, expected in ((object(), None), (None, "PASSIVE")):
        if torch is None:
            monkeypatch.delitem(sys.modules, "torch")
        else:
            monkeypatch.setitem(sys.modules, "torch", torch)
        with pytest.raises(UsageError, match="the executor `local` does not use one"):
            lora_bench.run_experiment(plan, executor="local", ray_address="10.0.0.1:6379")
        assert os.environ.get("OMP_WAIT_POLICY") == expected


@pytest.mark.usefixtures("unset")
def test_torch_takes_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = (
        "import psutil; psutil.cpu_percent = lambda seconds: 100.0\n"
        "from lora_bench.runner.process_environment import choose_waiting; choose_waiting(); import torch"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_DISPLAY_ENV": "TRUE"},
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No home, a temporary folder of the test's own, nothing set."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "OMP_WAIT_POLICY", "LOGNAME"):
        monkeypatch.setenv(name, "")  # so that what is set is taken back
        monkeypatch.delenv(name)
    return tmp_path


def test_numba_keeps_its_cache_in_the_users(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(homeless))
    set_defaults()
    assert os.environ["NUMBA_CACHE_DIR"] == str(homeless / ".cache" / "lora-bench" / "numba")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/mine")
    set_defaults()
    assert os.environ["NUMBA_CACHE_DIR"] == "/mine"


@pytest.mark.parametrize("home", [None, "relative"])
def test_without_a_home_numba_keeps_its_cache_in_a_folder_of_this_user_alone(
    home: str | None, homeless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if home is not None:
        monkeypatch.setenv("HOME", home)
    set_defaults()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder == homeless / f"lora-bench-numba-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("trap", ["writable", "link", "file"])
def test_a_folder_that_others_can_write_is_not_taken(trap: str, homeless: Path) -> None:
    folder = homeless / f"lora-bench-numba-{os.getuid()}"
    if trap == "writable":
        folder.mkdir()
        folder.chmod(0o777)
    elif trap == "link":
        folder.symlink_to(homeless)
    else:
        folder.touch()
    set_defaults()
    assert Path(os.environ["NUMBA_CACHE_DIR"]).parent == homeless
    assert Path(os.environ["NUMBA_CACHE_DIR"]) != folder


def test_a_user_without_a_name_gets_one(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    set_defaults()
    assert os.environ["LOGNAME"] == "uid987654"


def test_doctor_says_whether_numba_can_keep_its_cache(
    homeless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_bench.cli.commands.doctor import look_at_machine

    for place, ok in ((homeless / "new", True), (homeless / "file" / "x", False)):
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(place))
        [finding] = [item for item in look_at_machine() if item.name == "numba's cache"]
        assert (finding.ok, finding.detail) == (ok, str(place))
        assert "NUMBA_CACHE_DIR" in finding.mend
