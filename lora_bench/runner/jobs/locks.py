"""Who works on a run: one process at a time, and nobody while the cache is cleaned.

The locks are the operating system's and end with the process that holds them, however it ends; `.holder`
only says who it is.
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
from lora_bench.runner.jobs.ray_temp_dirs import remove_dead_sessions
from lora_bench.store import disk_errors, remove_drafts, write_text

LOCK = ".lock"
HOLDER = ".holder"
CLEANING_LOCK = ".cleaning.lock"
RAY_STORAGE = ".ray-"  # beginning of the names of Ray Tune's folders in a run


@contextmanager
def hold_run(run_folder: Path, store_root: Path) -> Iterator[None]:
    """Be the only process that works on a run; what killed processes left half written is removed.

    Raises:
        StoreError: another process works on it, or the disk is full.
    """
    with disk_errors(run_folder):
        run_folder.mkdir(parents=True, exist_ok=True)
        store_root.mkdir(parents=True, exist_ok=True)
    with _take_lock(run_folder):
        # A cleaning that began before looks at the runs' locks once, so it is waited for.
        with disk_errors(store_root), FileLock(store_root / CLEANING_LOCK):
            pass
        remove_drafts(run_folder, skip={"trials"})
        remove_ray_storage(run_folder)
        remove_dead_sessions()
        yield


@contextmanager
def hold_cache(store_root: Path, run_folders: Sequence[Path]) -> Iterator[None]:
    """Keep every run from using the cache.

    Raises:
        StoreError: a process works on one of the runs.
    """
    with FileLock(store_root / CLEANING_LOCK), ExitStack() as stack:
        for run_folder in run_folders:
            stack.enter_context(_take_lock(run_folder))
        yield


@contextmanager
def _take_lock(run_folder: Path) -> Iterator[None]:
    lock = FileLock(run_folder / LOCK)
    try:
        with disk_errors(run_folder):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(
            f"{run_folder}: another process ({_read_holder(run_folder)}) works on this run; wait for it, or "
            "give --runs-dir another folder"
        ) from error
    try:
        write_text(run_folder / HOLDER, f"pid {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        (run_folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _read_holder(run_folder: Path) -> str:
    try:
        return (run_folder / HOLDER).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return "it has not said which"


def remove_ray_storage(run_folder: Path) -> None:
    """Remove what Ray Tune keeps of itself in a run, also that of a killed driver."""
    for folder in run_folder.glob(f"{RAY_STORAGE}*"):
        shutil.rmtree(folder, ignore_errors=True)
