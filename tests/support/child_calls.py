"""What the tests of `call_apart` call in another process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from lora_bench.errors import ResourceError


class Stubborn(Exception):
    """Cannot be made again from what it was pickled to."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


def double(tell: Any, number: int) -> int:
    tell("half way")
    print("printed by the other process")
    return 2 * number


def fail(tell: Any, kind: str) -> None:
    raise {"plain": ResourceError("no such GPU"), "stubborn": Stubborn("hard ", "to send")}[kind]


def die(tell: Any, number: int | None) -> None:
    tell("about to die")
    if number is None:
        os._exit(1)
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave_a_child(tell: Any, notes: Path, *, then: str) -> None:
    """Start a process that outlives this one if nobody ends it, and write down both."""
    child = subprocess.Popen(["sleep", "300"])
    half = notes.with_suffix(".half")
    half.write_text(f"{os.getpid()} {child.pid}", encoding="ascii")
    half.rename(notes)
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if then == "wait":
        try:
            time.sleep(300)
        except KeyboardInterrupt:
            notes.with_name("tidied").touch()
            raise


def leave_and_return(tell: Any, notes: Path) -> None:
    leave_a_child(tell, notes, then="return")


def leave_and_die(tell: Any, notes: Path) -> None:
    leave_a_child(tell, notes, then="die")


def leave_and_wait(tell: Any, notes: Path) -> None:
    leave_a_child(tell, notes, then="wait")


def count_aloud(tell: Any, n: int) -> int:
    """Tells every number."""
    for number in range(n):
        tell(str(number))
    return n
