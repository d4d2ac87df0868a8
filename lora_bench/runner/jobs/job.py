"""A trial as a supervised job: its lock, its state on disk, and the cause of a failure."""

from __future__ import annotations

import os
import socket
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from lora_bench import errors
from lora_bench.errors import KEPT, describe_error
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.results.trial_files import State, StateRecord, read_state
from lora_bench.runner.jobs.state import FileProgress, write_state
from lora_bench.runner.jobs.workers import Workers
from lora_bench.runner.stage_times import add_times, take_stage_times
from lora_bench.store import Store, disk_errors, is_disk_full, remove_drafts, write_text

# A killed driver's worker lives on for some seconds; another run holds the lock for longer.
LOCK_TIMEOUT_S = 20.0
# A file server keeps the locks of a machine that went down until its lease ends (NFS: 90 s).
CLUSTER_LOCK_TIMEOUT_S = 150.0
MAX_REASON = 500
_OUT_OF_MEMORY = ("OutOfMemoryError", "MemoryError")
_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (errors.OutOfMemoryError, "out of memory"),
    (errors.DatasetError, "data"),
    (errors.AudioFileError, "data"),
    (errors.ModelError, "configuration"),
    (errors.SpecError, "configuration"),
    (errors.ExternalError, "external system"),
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
    ) -> StateRecord | None:
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

    @property
    def files(self) -> TrialFolder:
        """Files of the trial by name."""
        return TrialFolder(self.folder)

    def lock(self) -> FileLock:
        """Return the trial's lock; only the process that holds it writes into the folder."""
        timeout_s = LOCK_TIMEOUT_S if self.lock_timeout_s is None else self.lock_timeout_s
        return FileLock(self.files.lock, timeout=timeout_s)


def run_guarded(
    job: TrialJob,
    progress: Progress,
    execute: ExecuteTrial | None = None,
    workers: Workers | None = None,
) -> State:
    """Run one trial, keep its state, and write its failure to files.

    `state.json` says `running` while it runs and `done`, `stopped` (stopped early, as the spec asks),
    `failed` or `interrupted` afterwards, with the stage, the reason and the kind of cause; a failure's traceback is
    in `error.txt`.

    Args:
        job: the trial.
        progress: receives stages and steps.
        execute: runs the trial; `lora_bench.runner.trial.execute_trial` by default.
        workers: of `execute_trial`.

    Returns:
        `done`, `stopped` or `failed`.

    Raises:
        StoreError: another process holds the trial, or the disk is full.
        KeyboardInterrupt, SystemExit, InterruptedRunError: after the state says `interrupted`.
    """
    if execute is None:
        from lora_bench.runner.trial import execute_trial

        execute = partial(execute_trial, workers=workers)
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
            job.files.cache_uses.touch()  # without this record, any cache entry might be in use
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


@dataclass(frozen=True)
class _Attempt:
    """One attempt at a trial, and the state that it began with."""

    job: TrialJob
    state: StateRecord
    began_s: float = field(default_factory=time.monotonic)

    def end(self, facts: StateRecord) -> None:
        """Write how it ended, with the seconds that it took."""
        spent_s = take_stage_times(self.job.folder) or facts.get("wall_s", {})
        write_state(
            self.job.folder,
            self.state
            | facts
            | {
                "attempt_s": round(time.monotonic() - self.began_s, 3),
                "wall_s": add_times(self.state.get("wall_s", {}), spent_s),
            },
        )


def _run_locked(job: TrialJob, progress: FileProgress, execute: ExecuteTrial) -> State:
    before = read_state(job.folder)
    attempt = _Attempt(
        job,
        {
            "state": "running",
            "trial": job.trial.id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "n_attempts": before.get("n_attempts", 0) + 1,
            # with those of a killed attempt
            "wall_s": add_times(before.get("wall_s", {}), take_stage_times(job.folder)),
        },
    )
    write_state(job.folder, attempt.state)
    job.files.error.unlink(missing_ok=True)
    store = Store(job.store_root, job.files.cache_uses)
    try:
        figures = execute(job.trial, job.folder, store, progress) or StateRecord()
        store.settle_uses()
    except errors.StoppedEarlyError as decision:
        store.settle_uses()
        attempt.end(
            {"inputs": job.inputs, "state": "stopped", "stage": progress.step.stage, "reason": str(decision)}
        )
        return "stopped"
    except (KeyboardInterrupt, SystemExit, errors.InterruptedRunError):
        # a full disk does not turn the interrupt into something else
        with suppress(errors.StoreError, OSError):
            attempt.end(
                {"state": "interrupted", "stage": progress.step.stage, "reason": "the run was stopped"}
            )
        raise
    except Exception as error:  # noqa: BLE001 (any failure is recorded, and other trials continue)
        _keep_failure(attempt, progress.step.stage, error)
        return "failed"
    finally:
        progress.close()
    facts: StateRecord = {"inputs": job.inputs}
    attempt.end(facts | figures | {"state": "done", "stage": None, "reason": None})
    return "done"


def _keep_failure(attempt: _Attempt, stage: str, error: Exception) -> None:
    """Record why a trial failed.

    Raises:
        StoreError: the disk is full, so the next trials would fail too.
    """
    reason = " ".join(describe_error(error).split())[:MAX_REASON] or type(error).__name__
    if not isinstance(error, errors.LoraBenchError | OSError):
        reason = f"{type(error).__name__}: {reason}"
    full = is_full_disk(error)
    files = attempt.job.files
    try:
        write_text(files.error, "".join(traceback.format_exception(error)))
        attempt.end({"state": "failed", "stage": stage, "cause": classify_failure(error), "reason": reason})
    except (OSError, errors.StoreError):
        if not full:
            raise
    if full:
        raise errors.StoreError(f"{files.path}: the disk is full; {KEPT}") from error


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
    if read_state(job.folder).get("state") != "running":
        return
    with suppress(Timeout), job.lock():
        found = read_state(job.folder)
        if found.get("state") == "running":
            died: StateRecord = {"state": state, "reason": reason, "cause": "worker death"}
            if spent_s := take_stage_times(job.folder):
                died["wall_s"] = add_times(found.get("wall_s", {}), spent_s)
            write_state(job.folder, found | died)
            job.files.progress.unlink(missing_ok=True)


def settle_unbegun(job: TrialJob, reason: str) -> None:
    """Record why a trial was never started: none of its processes wrote a state."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with suppress(Timeout), job.lock():
        job.files.cache_uses.touch()
        write_state(
            job.folder,
            read_state(job.folder)
            | {"state": "failed", "stage": "start", "reason": reason[:MAX_REASON], "cause": "worker death"},
        )
