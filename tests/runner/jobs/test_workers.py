"""Worker processes: tasks are done, a death is told by name, and no process stays behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support import TESTS, worker_tasks
from support.fake_trials import Recorder

from lora_bench.errors import AudioFileError, Problem, ResourceError, SpecError
from lora_bench.runner.jobs.workers import Workers
from lora_bench.spec.schema import ResourcesSpec

SCRIPT = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {folder!r})
from support import worker_tasks
from lora_bench.progress import SilentProgress
from lora_bench.runner.jobs.workers import Workers
with Workers(2) as workers:  # at the top of a script that does not ask for its name
    for _ in range(3):
        workers.submit("sleep", 1, worker_tasks.sleep, Path(sys.argv[1]))
    workers.finish("features", SilentProgress())
"""


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, limit_s: float = 60.0) -> bool:
    end_s = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.05)
    return condition()


def list_sleepers(folder: Path) -> list[int]:
    return [int(file.name.removeprefix("asleep")) for file in folder.glob("asleep*")]


def test_tasks_are_done_by_processes_of_one_thread_without_a_gpu(tmp_path: Path) -> None:
    progress = Recorder()
    with Workers(2) as workers:
        for n in range(5):
            workers.submit("numbers", 10, worker_tasks.note, tmp_path, str(n))
        workers.finish("features", progress)
        pids = {int((tmp_path / str(n)).read_text(encoding="ascii").split()[0]) for n in range(5)}
        assert (tmp_path / "0").read_text(encoding="ascii").split()[1:] == ["1", "False"]
        assert len(workers.spans) == 5
        assert 1 <= len(pids) <= 2
        assert os.getpid() not in pids
    assert progress.stages == [("features", 50)]
    assert progress.n_steps == 50
    assert not any(map(is_alive, pids))


def test_a_death_names_clip_and_measure_and_the_other_tasks_are_done(tmp_path: Path) -> None:
    with Workers(1) as workers:
        workers.submit("mfcc20 of 'a waltz'", 1, worker_tasks.die)
        workers.submit("numbers", 1, worker_tasks.note, tmp_path, "after")
        with pytest.raises(
            ResourceError,
            match=r"ended with signal SIGKILL while it computed mfcc20 of 'a waltz' of clip 017; finished work",
        ):
            workers.finish("features", Recorder())
        assert (tmp_path / "after").is_file()


def test_of_several_errors_the_first_task_s_is_raised() -> None:
    damaged = AudioFileError("clips/001.wav", "cannot be decoded")
    with Workers(2) as workers:
        workers.submit("one", 1, worker_tasks.fail, damaged)
        workers.submit("two", 1, worker_tasks.fail, ValueError("the second"))
        with pytest.raises(AudioFileError, match=r"^clips/001\.wav: cannot be decoded$"):
            workers.finish("features", Recorder())


def test_a_dropped_task_is_not_waited_for(tmp_path: Path) -> None:
    with Workers(1) as workers:
        workers.submit("one", 1, worker_tasks.fail, ValueError("of a trial that failed"))
        workers.drop()
        workers.submit("numbers", 1, worker_tasks.note, tmp_path, "of the next trial")
        workers.finish("features", Recorder())
    assert (tmp_path / "of the next trial").is_file()


def test_errors_travel_between_processes() -> None:
    error = SpecError([Problem("a.yaml:1:1", "lora.rank", "0 is too small")])
    again = pickle.loads(pickle.dumps(error))
    assert (again.problems, str(again)) == (error.problems, str(error))


def test_leaving_the_block_ends_what_is_under_way(tmp_path: Path) -> None:
    with Workers(1) as workers:
        workers.submit("sleep", 1, worker_tasks.sleep, tmp_path)
        workers.submit("sleep", 1, worker_tasks.sleep, tmp_path)
        assert wait_for(lambda: list_sleepers(tmp_path))
    assert len(list_sleepers(tmp_path)) == 1
    assert not any(map(is_alive, list_sleepers(tmp_path)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, number: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(TESTS)), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert wait_for(lambda: len(list_sleepers(tmp_path)) == 2)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # Ctrl-C reaches the whole group
    _, errors = process.communicate(timeout=60)
    assert errors.count("Traceback") == (1 if number == signal.SIGINT else 0)
    assert wait_for(lambda: not any(map(is_alive, list_sleepers(tmp_path))))


def test_without_workers_nothing_is_started() -> None:
    with Workers(0) as workers:
        workers.finish("features", progress := Recorder())
    assert progress.stages == []


@pytest.mark.parametrize(("gpu", "cpu", "n"), [(0, 8, 0), (1, 1, 0), (1, 4, 3), (0.5, 2.5, 1), (1, 0.5, 0)])
def test_the_number_follows_from_the_resources_of_a_trial(gpu: float, cpu: float, n: int) -> None:
    assert ResourcesSpec(gpu=gpu, cpu=cpu).n_workers == n
