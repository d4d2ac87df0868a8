"""Temporary folders of our Ray clusters, removed by their driver or by the next run."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from lora_bench.errors import ResourceError

PREFIX = "lora-ray-"
OWNER_LOCK = "owner.lock"
FRESH_S = 600.0
MAX_SOCKET_PATH = 103  # bytes of a Unix socket's path: 107 on Linux, 103 on macOS
# below the session's folder: an attempt, Ray's session with its time and process, and the longest socket in it
_BELOW = "/lora-ray-12345678/1/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def list_roots() -> list[Path]:
    """List folders for sessions: the temporary folder if its path is short enough for Ray, then common short ones."""
    wanted = [os.environ.get("RAY_TMPDIR"), tempfile.gettempdir(), *_SHORT]
    roots = dict.fromkeys(Path(place).absolute() for place in wanted if place)
    return [
        root for root in roots if _is_short(root) and os.access(root, os.W_OK | os.X_OK) and root.is_dir()
    ]


def _is_short(root: Path) -> bool:
    return len(os.fsencode(f"{root}{_BELOW}")) <= MAX_SOCKET_PATH


class Session:
    """The temporary folder of one of our clusters, locked while its driver lives.

    Raises:
        ResourceError: no temporary folder is short enough and can be written.
    """

    def __init__(self) -> None:
        roots = list_roots()
        if not roots:
            longest = MAX_SOCKET_PATH - len(_BELOW)
            raise ResourceError(
                f"{tempfile.gettempdir()}: the path is too long for Ray's sockets, and none of {', '.join(_SHORT)} can "
                f"be written; set TMPDIR to a writable folder whose path has at most {longest} bytes, or use "
                "`--executor local`"
            )
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=roots[0]))
        self._lock = FileLock(self.folder / OWNER_LOCK)
        self._lock.acquire()

    def remove(self) -> None:
        """Remove the folder after the cluster has stopped."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()


def remove_dead_sessions() -> None:
    """Remove the temporary folders of clusters whose driver was killed.

    A folder without a lock is new, or a dying process of Ray recreated it after its removal.
    """
    for folder in (folder for root in list_roots() for folder in root.glob(f"{PREFIX}*")):
        lock = FileLock(folder / OWNER_LOCK)
        try:
            if not (folder / OWNER_LOCK).is_file() and time.time() - folder.stat().st_mtime < FRESH_S:
                continue
            lock.acquire(timeout=0)
        except (Timeout, OSError):  # alive, of another user, or removed by another driver at this moment
            continue
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
