"""What talks to Ray: opens the cluster and lets Ray Tune place the trials, and choose them where they are searched.

Only this file, `search.py` and `cluster.py` import ray.  It runs in a process of its own (`jobs/child_process.py`), for
Ray's core ends its process when the cluster's head dies.  What became of a trial is in the trial's files; what is
returned here only says why workers died.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lora_bench.errors import InterruptedRunError, LoraBenchError, ResourceError, StoreError, describe_error
from lora_bench.machine.gpus import limit_gpus
from lora_bench.progress import SilentProgress
from lora_bench.runner.jobs.child_process import Tell
from lora_bench.runner.jobs.job import run_guarded
from lora_bench.runner.jobs.workers import Workers
from lora_bench.runner.process_environment import choose_waiting, set_defaults
from lora_bench.runner.ray_backend.cluster import (
    RoomWatch,
    check_nodes,
    check_resources,
    living_nodes,
    open_cluster,
    set_quiet_environment,
)
from lora_bench.runner.ray_backend.search import OBJECTIVE, count_slots, make_searcher
from lora_bench.runner.search.trial_search import read_objective
from lora_bench.runner.work import Work
from lora_bench.store import disk_errors, write_text

MAX_WORKER_DEATHS = 2
UNDER_WAY = "trials are under way"
LOOK_AT_NODES_EVERY_S = 15.0
NODES_PATIENCE_S = 120.0


def drive_ray(tell: Tell, work: Work, storage: Path, address: str | None) -> dict[str, str]:
    """Run trials on a cluster.

    Args:
        tell: hears `UNDER_WAY` when everything that is checked beforehand is in order.
        work: the trials.
        storage: a folder for what Ray Tune keeps, in the run's; on a cluster, a path that every node sees.
        address: cluster to join; None starts one on this machine and ends it afterwards.

    Returns:
        By trial id, the last line of what Ray says of workers that died or never came up.

    Raises:
        ResourceError: before any trial began: no node has what a trial takes, a node does not see the run's
            folder, or the cluster cannot be reached.
        InterruptedRunError: the cluster ended.
        StoreError: the disk is full.
    """
    set_quiet_environment(own_cluster=address is None)
    jobs, resources, search = work.jobs, work.resources, work.search
    with open_cluster(address) as ray:
        check_resources(ray, resources)
        if address is not None:
            check_nodes(ray, storage.parent, resources)
        tell(UNDER_WAY)
        room = RoomWatch(lambda: living_nodes(ray), resources, NODES_PATIENCE_S)
        with disk_errors(storage):
            if search is None:
                from ray import tune  # after Ray's settings

                space = {"trial": tune.grid_search([job.trial.id for job in jobs])}
                return _fit(work, storage, room, {}, space)
            fixed = [job.trial.id for job in jobs if job.trial.id not in search.cells]
            searcher = make_searcher(
                search, [*fixed, *search.begun], lambda: count_slots(living_nodes(ray), resources)
            )
            options = {"search_alg": searcher, "num_samples": len(jobs)}
            return _fit(work, storage, room, options, {})


def _fit(
    work: Work, storage: Path, room: RoomWatch, options: Mapping[str, Any], space: Mapping[str, Any]
) -> dict[str, str]:
    """Let Ray Tune run every trial of its `param_space`, or of its searcher, once.

    Returns:
        By trial id, the last line of what Ray says of workers that died or never came up.

    Raises:
        InterruptedRunError: Ray Tune itself failed, or no node is left that could run a trial.
    """
    from ray import tune
    from ray.exceptions import RayError
    from ray.tune.error import TuneError

    trainable = tune.with_resources(
        _make_trainable(work), {"cpu": work.resources.cpu, "gpu": work.resources.gpu}
    )
    tuner = tune.Tuner(
        trainable,
        param_space=dict(space),
        tune_config=tune.TuneConfig(
            trial_name_creator=_name_trial,
            trial_dirname_creator=_name_trial,
            reuse_actors=False,
            **options,
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
    except (TuneError, RayError, ResourceError) as error:
        raise InterruptedRunError(" ".join(str(error).split())) from error
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


def _make_trainable(work: Work) -> Callable[[Mapping[str, str]], Mapping[str, str | float]]:
    """The function that a worker runs.  It returns even when the trial failed.

    Ray Tune would start a failed trial again; only a worker that died is worth that.
    """
    jobs, search = {job.trial.id: job for job in work.jobs}, work.search

    def run_in_worker(config: Mapping[str, str]) -> Mapping[str, str | float]:
        # on a cluster that was joined, nothing is inherited
        set_defaults()
        choose_waiting()
        job = jobs[config["trial"]]
        if work.resources.gpu == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves it alone, and the trial would see every GPU
        try:
            with limit_gpus(work.resources.gpu), Workers(work.resources.n_workers) as workers:
                state = run_guarded(job, SilentProgress(), work.execute, workers)
            if search is None or state != "done":
                return {"state": state}
            value = read_objective(job.folder, search.spec.objective, job.trial.prompts)
            return {"state": state} if value is None else {"state": state, OBJECTIVE: value}
        except (LoraBenchError, OSError) as error:
            with suppress(OSError, StoreError):
                write_text(job.files.refused, describe_error(error))
            return {"state": "refused"}

    return run_in_worker
