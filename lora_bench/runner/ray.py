"""Trials in parallel through Ray Tune.  The only file that imports ray.

Ray Tune places trials on CPUs and GPUs and starts a worker that died once more; it decides nothing else.
Each trial writes its own files, the driver reads them, and a further run of the same command is the
resume, so a fresh `Tuner` is made every time and its storage is thrown away.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lora_bench.errors import InterruptedRunError, LoraBenchError, ResourceError, StoreError
from lora_bench.progress import Progress, SilentProgress
from lora_bench.runner.guard import ExecuteTrial, TrialJob, run_guarded, settle_dead
from lora_bench.runner.state import read_state
from lora_bench.runner.watch import TrialWatch
from lora_bench.spec.schema import ResourcesSpec
from lora_bench.store import write_text

MAX_WORKER_DEATHS = 2
MAX_STARTS = 3
OBJECT_STORE_BYTES = 100 * 2**20  # results travel as files; Ray asks for at least 75 MiB
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's handler makes an interrupted fit() return as if complete
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
_QUIET_INIT: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}


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
        ResourceError: no node has what a trial takes, or the cluster cannot be reached.
        StoreError: the disk is full.
        InterruptedRunError: the run was stopped; finished trials are kept.
    """
    stopped: BaseException | None = None
    with _environment(own_cluster=address is None), _cluster(address) as ray:
        _check_resources(ray, resources)
        run_folder.mkdir(parents=True, exist_ok=True)
        storage = Path(tempfile.mkdtemp(prefix=".ray-", dir=run_folder))
        try:
            with TrialWatch(jobs, progress):
                _fit(jobs, storage, resources, execute)
        except (KeyboardInterrupt, SystemExit) as error:
            stopped = error
        finally:
            shutil.rmtree(storage, ignore_errors=True)
    _settle(jobs, stopped)
    _raise_refusals(jobs)


def _fit(
    jobs: Sequence[TrialJob], storage: Path, resources: ResourcesSpec, execute: ExecuteTrial | None
) -> None:
    """Let Ray Tune run every job once; what became of them is in their files.

    Raises:
        ResourceError: Ray Tune itself failed.
    """
    from ray import tune
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
        ),
    )
    try:
        tuner.fit()
    except TuneError as error:
        raise ResourceError(
            f"Ray Tune stopped: {error}; what is finished is kept, run the same command again"
        ) from error


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
                write_text(job.folder / "refused.txt", str(error))
            return {"state": "refused"}

    return run_in_worker


@contextmanager
def _environment(*, own_cluster: bool) -> Iterator[None]:
    """Ray's settings are environment variables; they are put back afterwards."""
    wanted = QUIET | ({"RAY_AUTH_MODE": "disabled"} if own_cluster else {})
    # Ray itself sets two more in the driver when it is imported and joined.
    before = {name: os.environ.get(name) for name in (*wanted, "PYTHONBREAKPOINT", "RAY_CLIENT_MODE")}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    if own_cluster:
        os.environ["RAY_AUTH_MODE"] = "disabled"
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """A cluster to run on: the one at `address`, or one of our own without dashboard or traces in /tmp.

    Raises:
        ResourceError: the cluster cannot be reached.
    """
    import ray

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    session = _start_own(ray) if address is None else _join(ray, address)
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)  # ray.init puts its own in place
    try:
        yield ray
    finally:
        ray.shutdown()
        _remove_session(session)


def _start_own(ray: Any) -> str:
    """Start a cluster on this machine and return its temporary folder.

    On a busy machine Ray's own helpers may miss Ray's fixed time limit of 15 s for their start; a further
    attempt finds them in the disk's cache.

    Raises:
        ResourceError: Ray does not start.
    """
    for attempt in range(1, MAX_STARTS + 1):
        session = tempfile.mkdtemp(prefix="lora-ray-")  # short: sockets in it have at most 107 characters
        try:
            ray.init(
                "local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=session,
                **_QUIET_INIT,
            )
        except Exception as error:  # Ray raises bare Exceptions when a node does not start
            ray.shutdown()
            _remove_session(session)
            if attempt == MAX_STARTS:
                raise ResourceError(
                    f"Ray does not start on this machine ({MAX_STARTS} attempts): {error}; see whether it is "
                    "overloaded, or use `--executor local`"
                ) from error
        else:
            return session
    raise AssertionError("unreachable")


def _join(ray: Any, address: str) -> None:
    """Join a running cluster.

    Raises:
        ResourceError: it cannot be reached.
    """
    try:
        ray.init(address, **_QUIET_INIT)
    except Exception as error:
        raise ResourceError(
            f"no Ray cluster can be joined at {address}: {error}; expected the address that "
            "`ray start --head` prints, such as 192.168.0.10:6379"
        ) from error


def _remove_session(session: str | None) -> None:
    if session is not None:
        shutil.rmtree(session, ignore_errors=True)


def _check_resources(ray: Any, resources: ResourcesSpec) -> None:
    """Refuse what no single node has: Ray would wait for it without a word.

    Raises:
        ResourceError: with what was asked for and what there is.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node.get("Alive")]
    for name, wanted in (("CPU", resources.cpu), ("GPU", resources.gpu)):
        most, field = (
            max((float(node.get(name, 0.0)) for node in nodes), default=0.0),
            f"resources.{name.lower()}",
        )
        if wanted > most:
            raise ResourceError(
                f"{field} is {wanted:g} per trial, but the largest of {len(nodes)} Ray nodes has {most:g} {name}s; "
                f"lower it with `-o {field}={int(most)}`, or join a larger cluster with --ray-address"
            )


def _settle(jobs: Sequence[TrialJob], stopped: BaseException | None) -> None:
    """Write down what became of trials whose worker is gone.

    Raises:
        InterruptedRunError: the run was stopped.
    """
    for job in jobs:
        if stopped is None:
            settle_dead(
                job,
                "failed",
                f"its worker process died {MAX_WORKER_DEATHS + 1} times (killed, or out of memory)",
            )
        else:
            settle_dead(job, "interrupted", "the run was stopped")
    if stopped is not None:
        n_done = sum(read_state(job.folder).get("state") == "done" for job in jobs)
        raise InterruptedRunError(
            f"stopped; {n_done} of {len(jobs)} trials are done and kept; run the same command again to go on"
        ) from stopped


def _raise_refusals(jobs: Sequence[TrialJob]) -> None:
    """Pass on what stopped workers from working at all.

    Raises:
        StoreError: the disk is full, or another process holds a trial.
    """
    refused = [job.folder / "refused.txt" for job in jobs if (job.folder / "refused.txt").is_file()]
    reasons = [path.read_text(encoding="utf-8") for path in refused]
    for path in refused:
        path.unlink(missing_ok=True)
    if reasons:
        raise StoreError(reasons[0])
