"""Locks of runs: one process at a time works on a run, and none while the cache is cleaned.

The operating system releases a lock when its process ends in any way; `.holder` only names the process.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lora_bench.errors import StoreError
from lora_bench.planning.run_folder import RunFolder
from lora_bench.runner.jobs.ray_temp_dirs import remove_dead_sessions
from lora_bench.store import disk_errors, remove_drafts, write_text

CLEANING_LOCK = ".cleaning.lock"
RAY_STORAGE = ".ray-"  # beginning of the names of Ray Tune's folders in a run


@contextmanager
def hold_run(run_folder: Path, store_root: Path) -> Iterator[None]:
    """Hold the lock of a run, and remove what killed processes left half-written.

    Raises:
        StoreError: another process is working on it, or the disk is full.
    """
    with disk_errors(run_folder):
        run_folder.mkdir(parents=True, exist_ok=True)
        store_root.mkdir(parents=True, exist_ok=True)
    with _take_lock(run_folder):
        # A cleaning that began earlier checks the runs' locks only once, so wait for it.
        with disk_errors(store_root), FileLock(store_root / CLEANING_LOCK):
            pass
        remove_drafts(run_folder, skip={RunFolder.trials})
        remove_ray_storage(run_folder)
        remove_dead_sessions()
        yield


@contextmanager
def hold_cache(store_root: Path, run_folders: Sequence[Path]) -> Iterator[None]:
    """Prevent every run from using the cache.

    Raises:
        StoreError: a process is working on one of the runs.
    """
    with FileLock(store_root / CLEANING_LOCK), ExitStack() as stack:
        for run_folder in run_folders:
            stack.enter_context(_take_lock(run_folder))
        yield


@contextmanager
def _take_lock(run_folder: Path) -> Iterator[None]:
    lock = FileLock(RunFolder(run_folder).lock)
    try:
        with disk_errors(run_folder):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(
            f"{run_folder}: another process ({_read_holder(run_folder)}) is working on this run; wait for it, or "
            "choose another folder with --runs-dir"
        ) from error
    try:
        write_text(RunFolder(run_folder).holder, f"pid {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        RunFolder(run_folder).holder.unlink(missing_ok=True)
        lock.release()


def _read_holder(run_folder: Path) -> str:
    try:
        return RunFolder(run_folder).holder.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return "pid unknown"


def remove_ray_storage(run_folder: Path) -> None:
    """Remove Ray Tune's folders from a run, including those of a killed driver."""
    for folder in run_folder.glob(f"{RAY_STORAGE}*"):
        shutil.rmtree(folder, ignore_errors=True)
