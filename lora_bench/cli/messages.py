"""Exit codes and messages of the command line, printable on any terminal."""

from __future__ import annotations

import codecs
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from lora_bench.errors import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    LoraBenchError,
    SpecError,
    describe_os_error,
)

PLAIN = {
    "→": "->", "±": "+-", "×": "x", "≤": "<=", "≥": ">=", "…": "...", "–": "-", "—": "-", "−": "-", "•": "*",
    "‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " ",
}  # fmt: skip
"""Replacements of symbols that the terminal's encoding lacks; letters become `\\u97f3`."""


def print_legibly() -> None:
    """Make stdout and stderr accept any text in any encoding."""
    codecs.register_error("legible", _write_plainly)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a program that captures output may have put a plain object there
            stream.reconfigure(errors="legible")  # pyright: ignore[reportAttributeAccessIssue]


def _write_plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    plain = (PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in letters)
    return "".join(plain), error.end


def call_command(command: Callable[[], int]) -> int:
    """Call a command and return its exit code; an error becomes a message on stderr."""
    try:
        code = command()
        for stream in _open_streams():
            stream.flush()  # the error of a disk behind `> file` is known now
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (each kind has its message)
        if isinstance(error, BrokenPipeError) and _is_reader_gone():
            code = EXIT_OK  # the reader, such as `head`, has seen enough
        else:
            code = EXIT_FAILURE
            _drop_unwritten(error)
            with suppress(OSError):  # stderr cannot be written either
                code = _report(error)
        _drop_unwritten(error)
    return code


def _report(error: BaseException) -> int:
    """Print the message of an error, and return the exit code."""
    is_expected = isinstance(error, LoraBenchError | OSError | KeyboardInterrupt)
    if not is_expected or os.environ.get("LORA_BENCH_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        _say("stopped; finished work is kept")
        return EXIT_INTERRUPTED
    if isinstance(error, SpecError):
        print(error, file=sys.stderr)
        n_problems = len(error.problems)
        _say(f"{n_problems} problem{'s' if n_problems > 1 else ''}; nothing was run")
    elif isinstance(error, OSError):
        _say(describe_os_error(error))
    elif is_expected:
        _say(str(error))
    else:
        _say(
            "this is a bug in lora-bench; report it with the command, the lines above and the output of "
            "`lora-bench doctor`; finished work is kept"
        )
    return error.exit_code if isinstance(error, LoraBenchError) else EXIT_FAILURE


def _say(message: str) -> None:
    print(f"lora-bench: {message}", file=sys.stderr)


def _open_streams() -> list[TextIO]:
    """Return stdout and stderr, except streams that are closed (`>&-`)."""
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]  # pyright: ignore[reportUnnecessaryComparison]


def _is_reader_gone() -> bool:
    """Return whether the reader of the output is gone, as after `| head`."""
    for stream in _open_streams():
        poll = select.poll()
        with suppress(OSError, ValueError):
            poll.register(stream.fileno(), 0)
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
                return True
    return False


def _drop_unwritten(error: BaseException) -> None:
    """Discard unprintable output, or Python reports it again at exit, and name the stream in the error."""
    for stream in _open_streams():
        try:
            stream.flush()
        except OSError:
            if isinstance(error, OSError) and error.errno and error.filename is None:
                error.filename = f"output to {stream.name}"
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
