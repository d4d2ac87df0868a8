"""One process works on a run; it says who it is, and clears away what killed ones left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_bench.errors import StoreError
from lora_bench.runner.jobs import ray_temp_dirs as sessions
from lora_bench.runner.jobs.locks import hold_cache, hold_run
from lora_bench.runner.jobs.ray_temp_dirs import Session, remove_dead_sessions

HOLD = """
import sys, time
from pathlib import Path
from lora_bench.runner.jobs.locks import hold_run
with hold_run(Path(sys.argv[1]), Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(300)
"""


def hold_elsewhere(run: Path, store: Path) -> subprocess.Popen[str]:
    """A process that holds the run."""
    command = [sys.executable, "-c", HOLD, str(run), str(store)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_of_two_runs_is_told_who_holds_it_and_may_go_on_when_that_one_is_killed(
    tmp_path: Path,
) -> None:
    run, store = tmp_path / "t", tmp_path / ".cache"
    process = hold_elsewhere(run, store)
    with (
        pytest.raises(
            StoreError, match=rf"another process \(pid {process.pid} on .*\) is working on this run"
        ),
        hold_run(run, store),
    ):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (run / ".holder").is_file()  # stale, and so is the lock's file: neither keeps anybody out
    with hold_run(run, store):
        assert (run / ".holder").read_text(encoding="utf-8").startswith(f"pid {os.getpid()} on ")
    assert not (run / ".holder").exists()


def test_what_killed_processes_left_half_written_goes_but_not_in_trials_that_others_may_hold(
    tmp_path: Path,
) -> None:
    run = tmp_path / "t"
    for name in (
        ".results.json.abcd1234",
        ".ray-abcdefgh/x",
        "trials/a/.state.json.abcd1234",
        "data/m/.f.json.zzzzzzz9",
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("half", encoding="utf-8")
    with hold_run(run, tmp_path / ".cache"):
        left = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert left == {".holder", ".lock", "trials/a/.state.json.abcd1234"}


def test_a_run_waits_for_a_cleaning_that_began_before(tmp_path: Path) -> None:
    run, store = tmp_path / "t", tmp_path / ".cache"
    store.mkdir()
    order: list[str] = []

    def work() -> None:
        with hold_run(run, store):
            order.append("run")

    thread = threading.Thread(target=work)
    with hold_cache(store, []):
        thread.start()
        time.sleep(0.3)
        order.append("cleaned")
    thread.join()
    assert order == ["cleaned", "run"]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A temporary folder with a path short enough for Ray's sockets, which pytest's own need not have."""
    with tempfile.TemporaryDirectory(prefix="lb-", dir="/tmp") as folder:
        yield Path(folder)


def test_temporary_folders_of_dead_clusters_go_and_those_of_living_ones_stay(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions.tempfile, "tempdir", str(short_folder))
    code = "import os; from lora_bench.runner.jobs.ray_temp_dirs import Session; s = Session(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "TMPDIR": str(short_folder)})
    alive = Session()
    made_again = short_folder / "lora-ray-again"
    (made_again / "session").mkdir(parents=True)
    os.utime(made_again, (0, 0))
    just_made = short_folder / "lora-ray-fresh"
    just_made.mkdir()
    assert len(list(short_folder.iterdir())) == 4
    remove_dead_sessions()
    assert set(short_folder.iterdir()) == {alive.folder, just_made}
    alive.remove()
    assert list(short_folder.iterdir()) == [just_made]
