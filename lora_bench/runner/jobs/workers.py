"""Processes that compute on the CPU while this one trains and generates on a GPU.

A thread per process hands it its tasks and listens to it, so it is known what a process was doing when it died, and the
others work on.  The processes have one thread each and see no GPU.  They end with the process that started them.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from lora_bench.errors import InterruptedRunError, ResourceError
from lora_bench.progress import Progress
from lora_bench.runner.jobs.child_process import (
    Answer,
    describe_end,
    follow_parent,
    hold_back_interrupts,
    make_portable,
)

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_starting = threading.Lock()


@dataclass(frozen=True)
class Span:
    """What a process computed, from when to when by `time.monotonic`."""

    what: str
    began_s: float
    ended_s: float


class Workers:
    """A number of worker processes, started when they are first needed; trials one after the other share them.

    Leave the block to end them; tasks that are unfinished then are given up.

    Args:
        n: how many; 0 accepts no tasks.

    Attributes:
        spans: of finished tasks.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.spans: list[Span] = []
        self._threads = ThreadPoolExecutor(max(n, 1), thread_name_prefix="workers")
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        for _ in range(n):
            self._idle.put(None)
        self._all: list[_Worker] = []
        self._tasks: dict[Future[None], int] = {}
        self._is_over = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        with _starting:
            self._is_over = True
        for worker in self._all:
            worker.end()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def submit(self, what: str, n_steps: int, function: Callable[..., object], *arguments: Any) -> None:
        """Let a process call `function(tell, *arguments)`.

        Args:
            what: is computed, for messages.
            n_steps: what it counts for in the progress.
            function: importable by name; `tell` names what it is at, such as a clip.
            arguments: anything that can be pickled.
        """
        self._tasks[self._threads.submit(self._run, what, function, arguments)] = n_steps

    def finish(self, stage: str, progress: Progress) -> None:
        """Wait for all tasks, as a stage of the progress.

        Raises:
            ResourceError: a process died; says what it was computing.  All other tasks are done.
            Exception: what a task raised; of several, the one that was submitted first.
        """
        tasks, self._tasks = self._tasks, {}
        if not tasks:
            return
        progress.start(stage, sum(tasks.values()))
        for task in as_completed(tasks):
            progress.advance(tasks[task])
        for task in tasks:
            task.result()

    def drop(self) -> None:
        """Forget tasks that nobody waits for, because something else failed; what is under way comes to its end."""
        for task in self._tasks:
            task.cancel()
        self._tasks = {}

    def _run(self, what: str, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        worker, at = self._idle.get(), ""

        def hear(note: str) -> None:
            nonlocal at
            at = f" of clip {note}"

        began_s = time.monotonic()
        try:
            worker = worker or self._start()
            answer = worker.call(function, arguments, hear)
        finally:
            self._idle.put(worker if worker is not None and worker.is_alive() else None)
        if answer.died is not None:
            raise ResourceError(
                f"a worker process ended with {answer.died} while it computed {what}{at}; finished work is kept: run "
                "again, with a lower resources.cpu if memory is short"
            )
        if answer.raised is not None:
            raise answer.raised
        self.spans.append(Span(what, began_s, time.monotonic()))

    def _start(self) -> _Worker:
        with _starting:  # one at a time, because the main module is replaced meanwhile
            if self._is_over:
                raise InterruptedRunError("the run was stopped")
            worker = _Worker()
            self._all.append(worker)
            return worker


class _Worker:
    """A process, and the connection to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with hold_back_interrupts(), _without_main():
            self._process.start()
        theirs.close()

    def call(
        self, function: Callable[..., object], arguments: tuple[Any, ...], hear: Callable[[str], None]
    ) -> Answer:
        """Call a function in the process."""
        try:
            self._connection.send((function, arguments))
            while not isinstance(word := self._connection.recv(), Answer):
                hear(word)
        except (EOFError, OSError):
            return Answer(died=describe_end(self._process))
        return word

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def end(self) -> None:
        self._process.kill()
        self._process.join()


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module, which a new process would import: a script may run everything without asking its name."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(connection: Connection) -> None:
    """Do tasks until the other side is gone."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes; the one that started this ends it
    threading.Thread(target=follow_parent, daemon=True).start()
    os.environ |= ONE_THREAD  # before numpy is imported
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            function(connection.send, *arguments)
            answer = Answer()
        except Exception as error:  # noqa: BLE001 (the caller decides over all of them)
            answer = Answer(raised=make_portable(error))
        connection.send(answer)
