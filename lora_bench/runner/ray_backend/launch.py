"""Trials in parallel through Ray Tune.

Ray Tune places trials on CPUs and GPUs and starts a worker that died once more; where the spec asks for a search,
its `OptunaSearch` also suggests which trials are run.
Each trial writes its own files, this process reads them, and a further run of the same command is the
resume, so a fresh `Tuner` is made every time and its storage is thrown away.

What talks to Ray is a process of its own (`driver.py`); this one stays when a cluster falls, and says what
became of the trials.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lora_bench.errors import InterruptedRunError, ResourceError, StoreError
from lora_bench.progress import Progress
from lora_bench.results.trial_files import read_state
from lora_bench.runner.jobs.child_process import Answer, call_apart
from lora_bench.runner.jobs.job import (
    CLUSTER_LOCK_TIMEOUT_S,
    LOCK_TIMEOUT_S,
    TrialJob,
    settle_dead,
    settle_unbegun,
)
from lora_bench.runner.jobs.locks import RAY_STORAGE, remove_ray_storage
from lora_bench.runner.jobs.ray_temp_dirs import remove_dead_sessions
from lora_bench.runner.jobs.watch import TrialWatch
from lora_bench.runner.ray_backend.driver import MAX_WORKER_DEATHS, UNDER_WAY, drive_ray
from lora_bench.runner.search.trial_search import count_expected
from lora_bench.runner.work import Work
from lora_bench.store import disk_errors

LOG = "driver.log"
_PLACE = re.compile(r"^\[.*?\] *(\S+:\d+: )?")  # when and where in Ray's source


def run_with_ray(work: Work, run_folder: Path, progress: Progress, address: str | None = None) -> None:
    """Run trials in parallel, as many at once as the resources allow.

    Args:
        work: the trials.
        run_folder: absolute; on a cluster, a path that every node sees.
        progress: told about trials, stages and steps.
        address: cluster to join; None starts one on this machine and ends it afterwards.

    Raises:
        ResourceError: no node has what a trial takes, a node does not see the run's folder, or the cluster
            cannot be reached; no trial was started.
        StoreError: the disk is full.
        InterruptedRunError: the run was stopped, or the cluster ended; finished trials are kept.
    """
    if address is not None:
        jobs = [replace(job, lock_timeout_s=CLUSTER_LOCK_TIMEOUT_S) for job in work.jobs]
        work = replace(work, jobs=jobs)
    jobs = work.jobs
    _forget_refusals(jobs)
    with disk_errors(run_folder):
        run_folder.mkdir(parents=True, exist_ok=True)
        storage = Path(tempfile.mkdtemp(prefix=RAY_STORAGE, dir=run_folder))
    stopped: BaseException | None = None
    errors: Mapping[str, str] = {}
    n_expected = count_expected(jobs, work.search)
    watch = TrialWatch(jobs, progress, n_expected)
    try:
        with watch:
            # Ray's core prints to the screen whatever its settings
            log = None if os.environ.get("LORA_BENCH_DEBUG") else storage / LOG
            answer = call_apart(drive_ray, work, storage, address, log=log)
        errors, stopped = _read_answer(answer, storage / LOG)
    except (KeyboardInterrupt, SystemExit) as error:
        stopped = error
    finally:
        remove_ray_storage(run_folder)
        if address is None:
            remove_dead_sessions()  # of a driver that could not remove its own
    _settle(jobs, n_expected, stopped)
    remove_ray_storage(run_folder)  # a worker that was ending may have written once more
    for job in jobs:
        if job.trial.id in errors and not watch.has_begun(job):
            settle_unbegun(job, errors[job.trial.id])
    _raise_refusals(jobs)


def _read_answer(answer: Answer, log: Path) -> tuple[Mapping[str, str], InterruptedRunError | None]:
    """What Ray says of workers that died; and why the cluster ended, if it did.

    Raises:
        ResourceError: it ended before any trial was started.
        StoreError: the disk is full.
    """
    if isinstance(answer.raised, InterruptedRunError):
        return {}, answer.raised
    if answer.raised is not None:
        raise answer.raised
    if answer.died is None:
        return answer.value, None
    reason = f"the process that talks to Ray ended ({answer.died}{_read_complaint(log)})"
    if answer.last_note != UNDER_WAY:
        raise ResourceError(
            f"{reason} before any trial started; check that the cluster is up, or use `--executor local`"
        )
    return {}, InterruptedRunError(reason)


def _read_complaint(log: Path) -> str:
    """The last sentence that Ray's core printed about itself, as `: ...`; empty if there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    said = [_PLACE.sub("", line) for line in lines if "GCS" in line or "raylet" in line.lower()]
    return f": {said[-1].partition('. ')[0].strip()[:200]}" if said else ""


def _settle(jobs: Sequence[TrialJob], n_expected: int, stopped: BaseException | None) -> None:
    """Write down what became of trials whose worker is gone.

    A worker of a cluster that ended may live a while longer; all of them are waited for together.

    Raises:
        InterruptedRunError: the run was stopped, or the cluster ended.
    """
    if stopped is None:
        state, reason = (
            "failed",
            f"its worker process died {MAX_WORKER_DEATHS + 1} times (killed, or out of memory)",
        )
    elif isinstance(stopped, InterruptedRunError):
        state, reason = "interrupted", f"the Ray cluster ended: {stopped}"
    else:
        state, reason = "interrupted", "the run was stopped"
    patience_s = max((job.lock_timeout_s or LOCK_TIMEOUT_S for job in jobs), default=0.0)
    end_s = time.monotonic() + patience_s
    for job in jobs:
        settle_dead(replace(job, lock_timeout_s=max(0.0, end_s - time.monotonic())), state, reason)
    if stopped is None:
        return
    n_done = sum(read_state(job.folder).get("state") == "done" for job in jobs)
    why = reason if isinstance(stopped, InterruptedRunError) else "stopped"
    raise InterruptedRunError(
        f"{why}; {n_done} of {n_expected} trials are done and kept; resume the run with the same command"
    ) from stopped


def _forget_refusals(jobs: Sequence[TrialJob]) -> None:
    """Remove what a killed driver did not come to read."""
    for job in jobs:
        job.files.refused.unlink(missing_ok=True)


def _raise_refusals(jobs: Sequence[TrialJob]) -> None:
    """Pass on what stopped workers from working at all.

    Raises:
        StoreError: the disk is full, or another process holds a trial.
    """
    refused = [job.files.refused for job in jobs if job.files.refused.is_file()]
    reasons = [path.read_text(encoding="utf-8") for path in refused]
    _forget_refusals(jobs)
    if reasons:
        raise StoreError(reasons[0])
