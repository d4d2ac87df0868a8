"""Start a user's program, wait for its end, and describe how it failed.

No shell runs it.  It gets a process group of its own, which is killed when the call ends, so nothing that it started
in this group outlives it.  Its output goes to files: a program that writes much, or leaves a child that holds its
output open, does not block.
"""

from __future__ import annotations

import codecs
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

RECORDING_TIMEOUT_S = 600.0
"""How long a program may take for one recording of a dataset."""
MAX_ANSWER = 100_000
"""Bytes of a program's output that are read as its answer."""
N_TAIL_LINES = 40
N_SHOWN = 300
"""Characters of a failed program's last lines in an error's message."""
MAX_POLL_S = 0.05
_MAX_TAIL_BYTES = 1 << 16


class ProgramError(Exception):
    """A program failed; the message says how, without the program's name.

    Attributes:
        tail: the last lines that it wrote, of its errors if there are any.
        is_timeout: it was killed because it took too long.
    """

    def __init__(self, words: str, *, tail: str = "", is_timeout: bool = False) -> None:
        shown = " ".join(tail.split())[-N_SHOWN:]
        super().__init__(f"{words} ({shown})" if shown else words)
        self.tail, self.is_timeout = tail, is_timeout


def ask_program(arguments: Sequence[str], *, given: str = "", timeout_s: float | None = None) -> str:
    """Return what a program prints, at most 100,000 bytes of it.

    Args:
        arguments: the program and its arguments.
        given: text that it gets on its standard input.
        timeout_s: when it is killed, in seconds; None waits.

    Raises:
        ProgramError: it cannot be started, fails, takes too long, or prints what is not UTF-8.
    """
    with tempfile.TemporaryDirectory(prefix="lora-bench-") as place:
        outputs = Path(place, "stdout.txt"), Path(place, "stderr.txt")
        call_program(arguments, outputs, given=given, timeout_s=timeout_s)
        with outputs[0].open("rb") as stream:
            data = stream.read(MAX_ANSWER)
            is_whole = not stream.read(1)
    try:
        # a character may be cut in two at the limit
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=is_whole)
    except UnicodeDecodeError as error:
        raise ProgramError(f"printed text that is not UTF-8 (offset {error.start})") from error


def call_program(
    arguments: Sequence[str],
    outputs: tuple[Path, Path],
    *,
    given: str = "",
    folder: Path | None = None,
    timeout_s: float | None = None,
    on_start: Callable[[int], None] = lambda _: None,
    on_poll: Callable[[], None] = lambda: None,
) -> None:
    """Run a program to its end, and end what it started.

    Args:
        arguments: the program and its arguments.
        outputs: files for its output and its errors.
        given: text that it gets on its standard input.
        folder: where it runs; None for the present one.
        timeout_s: when it is killed, in seconds; None waits.
        on_start: called with the number of its process, which is also that of its group.
        on_poll: called some times a second while it runs.

    Raises:
        ProgramError: it cannot be started, fails, or takes too long.
    """
    with tempfile.TemporaryFile() as stdin, outputs[0].open("wb") as out, outputs[1].open("wb") as err:
        stdin.write(given.encode())
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                arguments, stdin=stdin, stdout=out, stderr=err, cwd=folder, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise ProgramError(describe_start(error)) from error
        began_s, is_late, poll_s = time.monotonic(), False, 0.001
        try:
            on_start(process.pid)
            while not _has_ended(process):
                if timeout_s is not None and time.monotonic() - began_s > timeout_s:
                    is_late = True
                    break
                on_poll()
                time.sleep(poll_s)
                poll_s = min(2 * poll_s, MAX_POLL_S)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if is_late:
        raise ProgramError(f"did not end within {timeout_s:g} s", tail=_read_tail(outputs), is_timeout=True)
    if process.returncode:
        raise ProgramError(f"ended with {describe_exit(process.returncode)}", tail=_read_tail(outputs))


def describe_start(error: OSError | ValueError) -> str:
    """Return in words why a program did not start; a NUL in an argument is a `ValueError`."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"cannot be started ({reason}); expected a program and its arguments"


def describe_exit(code: int) -> str:
    """Return `exit code 1`, or `signal SIGKILL` for a negative code, which has the signal's number."""
    if code >= 0:
        return f"exit code {code}"
    number = -code
    if number in set(signal.Signals):
        return f"signal {signal.Signals(number).name}"
    # Python names only the first and the last of the real-time signals
    if hasattr(signal, "SIGRTMIN") and signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"signal SIGRTMIN+{number - signal.SIGRTMIN}"
    return f"signal {number}"


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process has ended; where the system can, it is left unreaped: its group keeps its number."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _read_tail(outputs: tuple[Path, Path]) -> str:
    """Return the last lines that a program wrote, of its errors if there are any."""
    for path in reversed(outputs):
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _MAX_TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace").strip()
        if text:
            return "\n".join(re.split(r"\r\n|\r|\n", text)[-N_TAIL_LINES:])
    return ""
