"""Run a user's program for one track."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from lora_bench.errors import DatasetError

TIMEOUT_S = 600
_MAX_ANSWER = 100_000


def run_program(
    arguments: Sequence[str], complain: Callable[[str], DatasetError], *, given: str = "", timeout_s: float
) -> str:
    """Return what a program prints, at most 100,000 bytes of it.

    Args:
        arguments: the program and its arguments; no shell runs it.
        complain: makes the error from what is wrong, in words.
        given: text that it gets on its standard input.
        timeout_s: when it is killed.

    Raises:
        DatasetError: the program does not exist, fails, takes too long, or prints what is not UTF-8.
    """
    try:
        done = subprocess.run(
            arguments, capture_output=True, timeout=timeout_s, check=False, input=given.encode()
        )
    except OSError as error:
        raise complain(
            f"cannot be started ({error.strerror}); expected a program and its arguments"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise complain(f"did not end within {timeout_s:g} s") from error
    if done.returncode != 0:
        last = "".join(done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:])[:300]
        raise complain(f"ended with exit code {done.returncode}" + (f" ({last})" if last else ""))
    try:
        return done.stdout[:_MAX_ANSWER].decode("utf-8")
    except UnicodeDecodeError as error:
        raise complain(f"printed text that is not UTF-8 (offset {error.start})") from error
