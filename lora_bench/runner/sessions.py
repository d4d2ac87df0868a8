"""Temporary folders of Ray clusters that we start: they go with their driver, or with the next run after it."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "lora-ray-"  # short: paths of sockets below it have at most 107 characters
OWNER_LOCK = "owner.lock"
FRESH_S = 600.0


class Session:
    """The temporary folder of a cluster of ours, locked while its driver lives."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = FileLock(self.folder / OWNER_LOCK)
        self._lock.acquire()

    def remove(self) -> None:
        """The cluster is down."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()


def remove_dead_sessions() -> None:
    """Remove the temporary folders of clusters whose driver was killed.

    A folder without a lock was just made, or a dying helper of Ray made it again after it had been removed.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = FileLock(folder / OWNER_LOCK)
        try:
            if not (folder / OWNER_LOCK).is_file() and time.time() - folder.stat().st_mtime < FRESH_S:
                continue
            lock.acquire(timeout=0)
        except (Timeout, OSError):  # alive, of another user, or removed by another driver at this moment
            continue
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
