"""Run trials on machines: one after the other (`local.py`) or in parallel through Ray Tune (`ray_backend/`).

Both run each trial through `jobs/job.py`, which owns the trial's `state.json`.  What happened to a trial is read from
its files, never from what an executor returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from lora_bench.errors import UsageError
from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.runner.jobs.job import ExecuteTrial, TrialJob
from lora_bench.runner.search.trial_search import SearchPlan
from lora_bench.runner.work import Work
from lora_bench.spec.schema import ResourcesSpec

Executor = Literal["local", "ray"]
EXECUTORS: tuple[Executor, ...] = ("local", "ray")


def run_trials(  # noqa: PLR0913 (two clusters of options, named at every call)
    trials: Sequence[TrialPlan],
    run_folder: Path,
    store_root: Path,
    progress: Progress,
    *,
    executor: str = "local",
    resources: ResourcesSpec,
    ray_address: str | None = None,
    inputs: Mapping[str, str] | None = None,
    execute: ExecuteTrial | None = None,
    search: SearchPlan | None = None,
) -> None:
    """Run trials; a trial that fails does not stop the others.

    Args:
        trials: what is to be done; the caller has left out what is finished.
        run_folder: gets `trials/<id>/` with `state.json`, and `error.txt` after a failure.
        store_root: cache that trials share.
        progress: told about trials, stages and steps.
        executor: `local` or `ray`.
        resources: see `Work`; `local` checks it, `ray` also packs trials by it.
        ray_address: cluster to join; None starts one on this machine.
        inputs: by trial id, the key of what the trial is finished for; kept in its state.
        execute: see `Work`.
        search: see `Work`.

    Raises:
        UsageError: there is no such executor.
        ResourceError: what a trial takes does not exist; nothing was started.
        StoreError: the disk is full.
        InterruptedRunError: the run was stopped, or its cluster ended; finished trials are kept.
    """
    keys = inputs or {}
    run = RunFolder(run_folder)
    jobs = [TrialJob(trial, run.trial(trial.id).path, store_root, keys.get(trial.id)) for trial in trials]
    work = Work(jobs, resources, execute, search)
    if executor == "local":
        from lora_bench.runner.local import run_local

        run_local(work, progress)
    elif executor == "ray":
        from lora_bench.runner.ray_backend.launch import run_with_ray

        run_with_ray(work, run_folder, progress, ray_address)
    else:
        raise UsageError(f"executor {executor!r} does not exist; expected {' or '.join(EXECUTORS)}")
