"""Tasks for worker processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def note(tell: Any, folder: Path, name: str) -> None:
    """Write down what the process sees."""
    tell(name)
    words = [os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"], str("numpy" in sys.modules)]
    (folder / name).write_text(" ".join([str(os.getpid()), *words]), encoding="ascii")


def fail(tell: Any, error: Exception) -> None:
    raise error


def die(tell: Any) -> None:
    tell("017")
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def sleep(tell: Any, folder: Path) -> None:
    note(tell, folder, f"asleep{os.getpid()}")
    time.sleep(300)
