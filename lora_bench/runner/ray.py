"""Trials in parallel through Ray Tune.  Only this file and `cluster.py` import ray.

Ray Tune places trials on CPUs and GPUs and starts a worker that died once more; it decides nothing else.
Each trial writes its own files, the driver reads them, and a further run of the same command is the
resume, so a fresh `Tuner` is made every time and its storage is thrown away.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_bench.errors import InterruptedRunError, LoraBenchError, ResourceError, StoreError
from lora_bench.progress import Progress, SilentProgress
from lora_bench.runner.cluster import (
    RoomWatch,
    check_nodes,
    check_resources,
    living_nodes,
    open_cluster,
    quiet_environment,
)
from lora_bench.runner.guard import (
    CLUSTER_LOCK_TIMEOUT_S,
    ExecuteTrial,
    TrialJob,
    run_guarded,
    settle_dead,
    settle_unbegun,
)
from lora_bench.runner.holding import RAY_STORAGE, remove_ray_storage
from lora_bench.runner.state import read_state
from lora_bench.runner.watch import TrialWatch
from lora_bench.spec.schema import ResourcesSpec
from lora_bench.store import disk_errors, write_text

MAX_WORKER_DEATHS = 2
REFUSED = "refused.txt"
LOOK_AT_NODES_EVERY_S = 15.0
NODES_PATIENCE_S = 120.0


def run_with_ray(
    jobs: Sequence[TrialJob],
    run_folder: Path,
    progress: Progress,
    resources: ResourcesSpec,
    address: str | None = None,
    execute: ExecuteTrial | None = None,
) -> None:
    """Run trials in parallel, as many at once as the resources allow.

    Args:
        jobs: the trials.
        run_folder: absolute; on a cluster, a path that every node sees.
        progress: told about trials, stages and steps.
        resources: what one trial takes.
        address: cluster to join; None starts one on this machine and ends it afterwards.
        execute: does one trial.

    Raises:
        ResourceError: no node has what a trial takes, a node does not see the run's folder, or the cluster
            cannot be reached or ended; trials that began keep their state.
        StoreError: the disk is full.
        InterruptedRunError: the run was stopped; finished trials are kept.
    """
    if address is not None:
        jobs = [replace(job, lock_timeout_s=CLUSTER_LOCK_TIMEOUT_S) for job in jobs]
    _forget_refusals(jobs)
    with disk_errors(run_folder):
        run_folder.mkdir(parents=True, exist_ok=True)
    watch = TrialWatch(jobs, progress)
    stopped: BaseException | None = None
    errors: Mapping[str, str] = {}
    with quiet_environment(own_cluster=address is None), open_cluster(address) as ray:
        check_resources(ray, resources)
        if address is not None:
            check_nodes(ray, run_folder, resources)
        with disk_errors(run_folder):
            storage = Path(tempfile.mkdtemp(prefix=RAY_STORAGE, dir=run_folder))
        try:
            with watch:
                room = RoomWatch(lambda: living_nodes(ray), resources, NODES_PATIENCE_S)
                errors = _fit(jobs, storage, resources, execute, room)
        except (KeyboardInterrupt, SystemExit, ResourceError) as error:
            stopped = error
        finally:
            remove_ray_storage(run_folder)
    remove_ray_storage(run_folder)  # a worker that was ending may have written once more
    _settle(jobs, stopped)
    for job in jobs:
        if job.trial.id in errors and not watch.has_begun(job):
            settle_unbegun(job, errors[job.trial.id])
    _raise_refusals(jobs)


def _fit(
    jobs: Sequence[TrialJob],
    storage: Path,
    resources: ResourcesSpec,
    execute: ExecuteTrial | None,
    room: RoomWatch,
) -> dict[str, str]:
    """Let Ray Tune run every job once; what became of them is in their files.

    Returns:
        By trial id, the last line of what Ray says of workers that died or never came up.

    Raises:
        ResourceError: Ray Tune itself failed, or no node is left that could run a trial.
    """
    from ray import tune
    from ray.exceptions import RayError
    from ray.tune.error import TuneError

    trainable = tune.with_resources(
        _make_trainable({job.trial.id: job for job in jobs}, resources, execute),
        {"cpu": resources.cpu, "gpu": resources.gpu},
    )
    tuner = tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search([job.trial.id for job in jobs])},
        tune_config=tune.TuneConfig(
            trial_name_creator=_name_trial, trial_dirname_creator=_name_trial, reuse_actors=False
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=storage.as_posix(),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_WORKER_DEATHS),
            log_to_file=False,
            callbacks=[_make_room_callback(room)],
        ),
    )
    try:
        results = tuner.fit()
    except (TuneError, RayError) as error:
        raise ResourceError(
            f"Ray Tune stopped: {error}; what is finished is kept, run the same command again"
        ) from error
    return {
        str((result.config or {}).get("trial")): str(result.error).strip().splitlines()[-1]
        for result in results
        if result.error is not None
    }


def _make_room_callback(room: RoomWatch) -> Any:
    """A callback of Ray Tune that looks at the nodes now and then."""
    from ray.tune import Callback

    class LookAtNodes(Callback):
        """Looks at the nodes every `LOOK_AT_NODES_EVERY_S`."""

        looked_at_s = time.monotonic()

        def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:  # noqa: ARG002
            now_s = time.monotonic()
            if now_s - self.looked_at_s >= LOOK_AT_NODES_EVERY_S:
                self.looked_at_s = now_s
                room.look(now_s)

    return LookAtNodes()


def _name_trial(trial: Any) -> str:
    return str(trial.config["trial"])


def _make_trainable(
    jobs: dict[str, TrialJob], resources: ResourcesSpec, execute: ExecuteTrial | None
) -> Callable[[dict[str, Any]], dict[str, str]]:
    """The function that a worker runs.  It returns even when the trial failed.

    Ray Tune would start a failed trial again; only a worker that died is worth that.
    """

    def run_in_worker(config: dict[str, Any]) -> dict[str, str]:
        job = jobs[config["trial"]]
        if resources.gpu == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves it alone, and the trial would see every GPU
        try:
            return {"state": run_guarded(job, SilentProgress(), execute)}
        except LoraBenchError as error:
            with suppress(OSError, StoreError):
                write_text(job.folder / REFUSED, str(error))
            return {"state": "refused"}

    return run_in_worker


def _settle(jobs: Sequence[TrialJob], stopped: BaseException | None) -> None:
    """Write down what became of trials whose worker is gone.

    Raises:
        InterruptedRunError: the run was stopped.
        ResourceError: the cluster ended.
    """
    for job in jobs:
        if stopped is None:
            settle_dead(
                job,
                "failed",
                f"its worker process died {MAX_WORKER_DEATHS + 1} times (killed, or out of memory)",
            )
        else:
            ended = isinstance(stopped, ResourceError)
            settle_dead(job, "interrupted", "the cluster ended" if ended else "the run was stopped")
    if isinstance(stopped, ResourceError):
        raise stopped
    if stopped is not None:
        n_done = sum(read_state(job.folder).get("state") == "done" for job in jobs)
        raise InterruptedRunError(
            f"stopped; {n_done} of {len(jobs)} trials are done and kept; run the same command again to go on"
        ) from stopped


def _forget_refusals(jobs: Sequence[TrialJob]) -> None:
    """Remove what a killed driver did not come to read."""
    for job in jobs:
        (job.folder / REFUSED).unlink(missing_ok=True)


def _raise_refusals(jobs: Sequence[TrialJob]) -> None:
    """Pass on what stopped workers from working at all.

    Raises:
        StoreError: the disk is full, or another process holds a trial.
    """
    refused = [job.folder / REFUSED for job in jobs if (job.folder / REFUSED).is_file()]
    reasons = [path.read_text(encoding="utf-8") for path in refused]
    _forget_refusals(jobs)
    if reasons:
        raise StoreError(reasons[0])
