"""A trial as a supervised job: its lock, its state on disk, and the cause of a failure."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from lora_bench import errors
from lora_bench.file_errors import KEPT, describe_error
from lora_bench.planning.plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.runner.jobs.state import FileProgress, State, read_state, write_state
from lora_bench.runner.stage_times import add_times, take_stage_times
from lora_bench.store import Store, disk_errors, is_disk_full, remove_drafts, write_text

# A killed driver's worker lives on for some seconds; another run holds the lock for longer.
LOCK_TIMEOUT_S = 20.0
# A file server keeps the locks of a machine that went down until its lease ends (NFS: 90 s).
CLUSTER_LOCK_TIMEOUT_S = 150.0
CACHE_USES = "cache.txt"
MAX_REASON = 500
_OUT_OF_MEMORY = ("OutOfMemoryError", "MemoryError")
_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (errors.OutOfMemoryError, "out of memory"),
    (errors.DatasetError, "data"),
    (errors.AudioFileError, "data"),
    (errors.ModelError, "configuration"),
    (errors.SpecError, "configuration"),
    (errors.TrainingError, "training"),
    (errors.ScoreError, "scoring"),
    (errors.ResourceError, "resources"),
    (errors.StoreError, "storage"),
    (OSError, "storage"),
)


class ExecuteTrial(Protocol):
    """A function that runs one trial and returns figures for its state."""

    def __call__(
        self, trial: TrialPlan, folder: Path, store: Store, progress: Progress
    ) -> Mapping[str, Any] | None:
        """Run; raises on failure."""
        ...


@dataclass(frozen=True)
class TrialJob:
    """A trial and its folders.

    Attributes:
        inputs: key of the trial's inputs, kept in its state when it is finished.
        lock_timeout_s: how long to wait for a process that still holds the trial; None is `LOCK_TIMEOUT_S`.
    """

    trial: TrialPlan
    folder: Path
    store_root: Path
    inputs: str | None = None
    lock_timeout_s: float | None = None

    def lock(self) -> FileLock:
        """Return the trial's lock; only the process that holds it writes into the folder."""
        timeout_s = LOCK_TIMEOUT_S if self.lock_timeout_s is None else self.lock_timeout_s
        return FileLock(self.folder / ".lock", timeout=timeout_s)


def run_guarded(job: TrialJob, progress: Progress, execute: ExecuteTrial | None = None) -> State:
    """Run one trial, keep its state, and write its failure to files.

    `state.json` says `running` while it runs and `done`, `stopped` (stopped early, as the spec asks),
    `failed` or `interrupted` afterwards, with the stage, the reason and the kind of cause; a failure's traceback is
    in `error.txt`.

    Args:
        job: the trial.
        progress: receives stages and steps.
        execute: runs the trial; `lora_bench.runner.trial.execute_trial` by default.

    Returns:
        `done`, `stopped` or `failed`.

    Raises:
        StoreError: another process holds the trial, or the disk is full.
        KeyboardInterrupt, SystemExit, InterruptedRunError: after the state says `interrupted`.
    """
    if execute is None:
        from lora_bench.runner.trial import execute_trial as execute
    lock = job.lock()
    try:
        with disk_errors(job.folder):
            job.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout as error:
        raise errors.StoreError(
            f"{job.folder}: {describe_holder(job.folder)} is working on this trial; wait for it, or choose another "
            "folder with --runs-dir"
        ) from error
    try:
        remove_drafts(job.folder)
        with disk_errors(job.folder):
            (job.folder / CACHE_USES).touch()  # without this record, any cache entry might be in use
        return _run_locked(job, FileProgress(job.folder, progress), execute)
    finally:
        lock.release()


def describe_holder(folder: Path) -> str:
    """Describe the process that last started the trial."""
    state = read_state(folder)
    return (
        f"process {state['pid']} on {state['host']}"
        if "pid" in state and "host" in state
        else "another process"
    )


def _run_locked(job: TrialJob, progress: FileProgress, execute: ExecuteTrial) -> State:
    before = read_state(job.folder)
    began_s = time.monotonic()
    state: dict[str, Any] = {
        "state": "running",
        "trial": job.trial.id,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_attempts": int(before.get("n_attempts") or 0) + 1,
        "wall_s": add_times(before.get("wall_s") or {}, take_stage_times(job.folder)),  # of a killed attempt
    }
    write_state(job.folder, state)
    (job.folder / "error.txt").unlink(missing_ok=True)
    store = Store(job.store_root, job.folder / CACHE_USES)
    try:
        figures = dict(execute(job.trial, job.folder, store, progress) or {})
        store.settle_uses()
    except errors.StoppedEarlyError as decision:
        store.settle_uses()
        ended = state | {
            "inputs": job.inputs,
            "state": "stopped",
            "stage": progress.stage,
            "reason": str(decision),
            "wall_s": add_times(state["wall_s"], take_stage_times(job.folder)),
        }
        write_state(job.folder, ended | {"attempt_s": round(time.monotonic() - began_s, 3)})
        return "stopped"
    except (KeyboardInterrupt, SystemExit, errors.InterruptedRunError):
        ended = state | {"state": "interrupted", "stage": progress.stage, "reason": "the run was stopped"}
        ended["wall_s"] = add_times(state["wall_s"], take_stage_times(job.folder))
        # a full disk does not turn the interrupt into something else
        with suppress(errors.StoreError, OSError):
            write_state(job.folder, ended | {"attempt_s": round(time.monotonic() - began_s, 3)})
        raise
    except Exception as error:  # noqa: BLE001 (any failure is recorded, and other trials continue)
        _keep_failure(job, state, progress, error, time.monotonic() - began_s)
        return "failed"
    finally:
        progress.close()
    spent_s = take_stage_times(job.folder) or figures.get("wall_s") or {}
    figures["wall_s"] = add_times(state["wall_s"], spent_s)
    ended = state | {"inputs": job.inputs} | figures | {"state": "done", "stage": None, "reason": None}
    write_state(job.folder, ended | {"attempt_s": round(time.monotonic() - began_s, 3)})
    return "done"


def _keep_failure(
    job: TrialJob, state: dict[str, Any], progress: FileProgress, error: Exception, attempt_s: float
) -> None:
    """Record why a trial failed.

    Raises:
        StoreError: the disk is full, so the next trials would fail too.
    """
    reason = " ".join(describe_error(error).split())[:MAX_REASON] or type(error).__name__
    if not isinstance(error, errors.LoraBenchError | OSError):
        reason = f"{type(error).__name__}: {reason}"
    ended = state | {
        "state": "failed",
        "stage": progress.stage,
        "cause": classify_failure(error),
        "reason": reason,
        "attempt_s": round(attempt_s, 3),
        "wall_s": add_times(state["wall_s"], take_stage_times(job.folder)),
    }
    full = is_full_disk(error)
    try:
        write_text(job.folder / "error.txt", "".join(traceback.format_exception(error)))
        write_state(job.folder, ended)
    except (OSError, errors.StoreError):
        if not full:
            raise
    if full:
        raise errors.StoreError(f"{job.folder}: the disk is full; {KEPT}") from error


def classify_failure(error: BaseException) -> str:
    """Return the kind of a failure in a word or two."""
    if type(error).__name__ in _OUT_OF_MEMORY:
        return "out of memory"
    return next((cause for kind, cause in _CAUSES if isinstance(error, kind)), "unexpected")


def is_full_disk(error: BaseException | None) -> bool:
    """Return whether an error or its cause is a full disk."""
    while error is not None:
        if isinstance(error, Exception) and is_disk_full(error):
            return True
        error = error.__cause__
    return False


def settle_dead(job: TrialJob, state: State, reason: str) -> None:
    """Record the end of a trial whose process is gone, unless its files already do.

    A trial that a process still holds is left alone.
    """
    found = read_state(job.folder)
    if found.get("state") != "running":
        return
    lock = job.lock()
    try:
        lock.acquire()
    except Timeout:
        return
    try:
        found = read_state(job.folder)
        if found.get("state") == "running":
            step = FileProgress(job.folder)
            died: dict[str, Any] = {"state": state, "reason": reason, "cause": "worker death"}
            if spent_s := take_stage_times(job.folder):
                died["wall_s"] = add_times(found.get("wall_s") or {}, spent_s)
            write_state(job.folder, found | died)
            step.close()
    finally:
        lock.release()


def settle_unbegun(job: TrialJob, reason: str) -> None:
    """Record why a trial was never started: none of its processes wrote a state."""
    job.folder.mkdir(parents=True, exist_ok=True)
    lock = job.lock()
    try:
        lock.acquire()
    except Timeout:
        return
    try:
        (job.folder / CACHE_USES).touch()
        write_state(
            job.folder,
            read_state(job.folder)
            | {"state": "failed", "stage": "start", "reason": reason[:MAX_REASON], "cause": "worker death"},
        )
    finally:
        lock.release()
