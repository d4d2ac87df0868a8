"""Defaults for environment variables that libraries read while they are loaded.

The entry points set them: the command line, and a worker on another machine of a cluster.  Child processes inherit
them.  Importing lora_bench as a library sets nothing: the environment of a process belongs to its program.  Only
`run_experiment` and `score_folders` choose how threads wait, if torch is not loaded yet.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""A user who sets one of these has chosen how threads of OpenMP wait."""
SAMPLE_S = 0.1
"""How long the cores are watched before the way of waiting is chosen."""


def choose_waiting() -> None:
    """Let the threads of OpenMP sleep while they wait, if other programs use their cores.

    torch's threads wait for each other after every product.  Waiting in a loop holds a core that another program
    needs; sleeping makes a training step on an idle machine up to three times as long.  Both are measured in
    benchmarks/results/busy_machine.md, so what the cores do now decides.  It is too late once torch is imported.
    """
    if "torch" in sys.modules:
        return
    n_cores = os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS", "")
    n_own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else n_cores
    n_threads = int(said) if said.isdecimal() else n_own
    if n_threads == 1 or any(name in os.environ for name in WAIT_SETTINGS):
        return
    import psutil  # 0.1 s, which the verbs that compute nothing do not spend

    if n_cores * (1.0 - psutil.cpu_percent(SAMPLE_S) / 100.0) < n_threads - 0.5:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def set_defaults() -> None:
    """Set what the user did not set; call it before numba is imported."""
    # numba, which librosa needs, fails at import where it can write neither beside the package nor into the home
    if not os.environ.get("NUMBA_CACHE_DIR"):
        os.environ["NUMBA_CACHE_DIR"] = str(_choose_numba_folder())
    # in a container a user may have a number and no name, and libraries ask for the name
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid{os.getuid()}"


def is_writable(folder: Path) -> bool:
    """Whether a folder can be written, or made and then written."""
    for place in (folder, *folder.parents):
        try:
            place.stat()
        except FileNotFoundError:
            continue
        except OSError:
            return False
        return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def _choose_numba_folder() -> Path:
    """The user's cache, or a temporary folder that only this user can write, for code is loaded from it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 (never raises)
    if cache.is_absolute() and is_writable(cache / "lora-bench" / "numba"):
        return cache / "lora-bench" / "numba"
    folder = Path(tempfile.gettempdir()) / f"lora-bench-numba-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix="lora-bench-numba-"))
