"""A function in a process of its own: its caller hears how it ends, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support import TESTS, child_calls

from lora_bench.errors import ResourceError
from lora_bench.runner.jobs.child_process import call_apart

CALL = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {folder!r})
from support import child_calls
from lora_bench.runner.jobs.child_process import call_apart
try:
    call_apart(child_calls.leave_and_wait, Path(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(3)
"""


def is_alive(pid: int) -> bool:
    """Whether a process lives; one that is dead and not yet buried does not."""
    try:
        return psutil.Process(pid).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return False


def wait_until_dead(pids: list[int], limit_s: float = 30.0) -> bool:
    end_s = time.monotonic() + limit_s
    while any(map(is_alive, pids)) and time.monotonic() < end_s:
        time.sleep(0.05)
    return not any(map(is_alive, pids))


def read_pids(notes: Path) -> list[int]:
    return [int(word) for word in notes.read_text(encoding="ascii").split()]


def call_elsewhere(notes: Path) -> subprocess.Popen[bytes]:
    """A process that makes a call which waits, once it waits."""
    code = CALL.format(folder=str(TESTS))
    caller = subprocess.Popen([sys.executable, "-c", code, str(notes)])
    while not notes.is_file() and caller.poll() is None:
        time.sleep(0.05)
    return caller


def test_the_value_comes_back_and_what_is_printed_goes_to_the_log(tmp_path: Path) -> None:
    answer = call_apart(child_calls.double, 21, log=tmp_path / "log")
    assert (answer.value, answer.raised, answer.died, answer.last_note) == (42, None, None, "half way")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "printed by the other process\n"


def test_an_error_comes_back_with_where_it_was_raised() -> None:
    error = call_apart(child_calls.fail, "plain").raised
    assert isinstance(error, ResourceError)
    assert str(error) == "no such GPU"
    assert "child_calls.py" in error.__notes__[0]


def test_an_error_that_cannot_travel_comes_back_in_words() -> None:
    error = call_apart(child_calls.fail, "stubborn").raised
    assert isinstance(error, RuntimeError)
    assert "Stubborn: hard to send" in str(error)


@pytest.mark.parametrize(("number", "words"), [(signal.SIGABRT, "signal SIGABRT"), (None, "exit code 1")])
def test_a_death_is_survived_and_described(number: int | None, words: str) -> None:
    answer = call_apart(child_calls.die, number)
    assert (answer.died, answer.last_note, answer.raised) == (words, "about to die", None)


@pytest.mark.parametrize("call", [child_calls.leave_and_return, child_calls.leave_and_die])
def test_what_the_function_started_is_gone_when_the_call_is_over(call, tmp_path: Path) -> None:
    call_apart(call, tmp_path / "pids")
    assert not any(map(is_alive, read_pids(tmp_path / "pids")))


def test_a_killed_caller_takes_the_function_and_what_it_started_with_it(tmp_path: Path) -> None:
    caller = call_elsewhere(tmp_path / "pids")
    pids = read_pids(tmp_path / "pids")
    assert all(map(is_alive, pids))
    caller.kill()
    caller.wait()
    assert wait_until_dead(pids)


def test_an_interrupted_caller_lets_the_function_tidy_up_first(tmp_path: Path) -> None:
    caller = call_elsewhere(tmp_path / "pids")
    os.kill(caller.pid, signal.SIGINT)
    assert caller.wait(timeout=60) == 3
    assert (tmp_path / "tidied").is_file()
    assert not any(map(is_alive, read_pids(tmp_path / "pids")))


def test_every_note_is_heard_in_order() -> None:
    heard: list[str] = []
    assert call_apart(child_calls.count_aloud, 3, hear=heard.append).value == 3
    assert heard == ["0", "1", "2"]
