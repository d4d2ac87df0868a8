"""A function call in a child process, whose death the caller survives.

Ray's core ends its own process when it loses its cluster.  The code that talks to Ray therefore runs in a child
process, and the process that keeps locks, states and the exit code learns how it ended.  The child dies with its
caller, and everything it started dies with it, since all of them are one session of the operating system.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import psutil

from lora_bench.machine.programs import describe_exit

END_PATIENCE_S = 60.0
KILL_PATIENCE_S = 10.0
ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Answer:
    """The outcome of a call.

    Attributes:
        value: what the function returned; None if it did not return.
        raised: what it raised; None if it did not raise.
        died: how its process ended without an answer, such as `signal SIGABRT`; None if it answered.
        last_note: the last note that the function sent while it ran.
    """

    value: Any = None
    raised: BaseException | None = None
    died: str | None = None
    last_note: str = ""


def call_apart(
    function: Callable[..., Any], *arguments: Any, log: Path | None = None, hear: Tell | None = None
) -> Answer:
    """Call `function(tell, *arguments)` in a fresh process and wait for it.

    Args:
        function: importable by name; `tell` sends a note to the caller.
        arguments: anything that can be pickled.
        log: file for the output of the process and its descendants; None leaves it on the screen.
        hear: called here with every note.

    Returns:
        The outcome.  All processes that the call started have ended.

    Raises:
        KeyboardInterrupt, SystemExit: in this process; the child was interrupted and has ended.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, log, function, arguments))
    with hold_back_interrupts():
        process.start()
    theirs.close()
    try:
        answer = _listen(ours, process, hear=hear)
        process.join(END_PATIENCE_S)
    except (KeyboardInterrupt, SystemExit):
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGINT)
        _listen(ours, process, END_PATIENCE_S)
        wait([process.sentinel], END_PATIENCE_S)
        raise
    finally:
        _end(process)
        ours.close()
    return answer


def _listen(
    answers: Connection, process: SpawnProcess, limit_s: float | None = None, hear: Tell | None = None
) -> Answer:
    """Wait for the answer, or for the end of the process."""
    note = ""
    while wait([answers, process.sentinel], limit_s):
        try:
            word: Answer | str | None = answers.recv() if answers.poll() else None
        except EOFError:
            word = None
        if isinstance(word, Answer):
            return replace(word, last_note=note)
        if word is None:
            return Answer(died=describe_end(process), last_note=note)
        note = word
        if hear is not None:
            hear(note)
    return Answer(died="no answer", last_note=note)


def describe_end(process: SpawnProcess) -> str:
    """Describe how a process ended, such as `signal SIGABRT`."""
    process.join(END_PATIENCE_S)  # its pipes close a moment before it has an exit code
    return "no exit code" if process.exitcode is None else describe_exit(process.exitcode)


def _end(process: SpawnProcess) -> None:
    """Kill the rest of the process's session, and the process."""
    if process.pid is not None:
        end_session(process.pid)
    process.kill()
    process.join()
    process.close()


@contextmanager
def hold_back_interrupts() -> Iterator[None]:
    """Block interrupts until a new process has a session of its own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    answers: Connection, log: Path | None, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """Serve one call in the child process."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    threading.Thread(target=follow_parent, daemon=True).start()
    try:
        if log is not None:
            _print_to(log)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        answers.send(Answer(value=function(answers.send, *arguments)))
    except BaseException as error:  # noqa: BLE001 (the caller decides over all of them)
        answers.send(Answer(raised=make_portable(error)))


def follow_parent() -> None:
    """End this process and everything it started as soon as the caller is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        end_session(os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)


def _print_to(log: Path) -> None:
    with log.open("ab") as stream:
        for number in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(stream.fileno(), number)


def make_portable(error: BaseException) -> BaseException:
    """Return the error with its traceback as a note, or a replacement if it cannot be pickled."""
    words = "".join(traceback.format_exception(error))
    error.add_note(words)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 (libraries' errors fail to pickle in many ways)
        return RuntimeError(words)
    return error


def end_session(leader: int) -> None:
    """Kill the processes of a session except its leader, and wait until they are gone."""
    end_s = time.monotonic() + KILL_PATIENCE_S
    while (members := list_session(leader)) and time.monotonic() < end_s:
        for member in members:
            with suppress(psutil.Error):
                member.kill()
        time.sleep(0.02)


def list_session(leader: int) -> list[psutil.Process]:
    """List the living processes of a session except its leader.

    These include processes whose parent has died, which are no descendants of the leader any more.
    """
    members: list[psutil.Process] = []
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):
            if pid != leader and os.getsid(pid) == leader:
                process = psutil.Process(pid)
                members += [process] if process.status() not in ENDED else []
    return members
