"""Ray clusters: one of our own on this machine, or one to join, and whether trials can run on it.

A cluster of our own has no dashboard, no token and no usage statistics, and its temporary folder goes with
it (`jobs/ray_temp_dirs.py`).
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_bench.errors import ResourceError
from lora_bench.planning.run_folder import RunFolder
from lora_bench.runner.jobs.child_process import end_session
from lora_bench.runner.jobs.ray_temp_dirs import Session, remove_dead_sessions
from lora_bench.spec.schema import ResourcesSpec
from lora_bench.store import write_text

MAX_STARTS = 3
OBJECT_STORE_BYTES = 100 * 2**20  # results travel as files; Ray asks for at least 75 MiB
PROBE_TIMEOUT_S = 120.0
PACKAGE = "lora-bench"
CONNECT_TIMEOUT_S = 10.0
EXPECTED_ADDRESS = "expected the address that `ray start --head` prints, such as 192.168.0.10:6379"
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
# A head on this machine that is gone does not come back.
OWN_CLUSTER = {"RAY_gcs_rpc_server_reconnect_timeout_s": "20"}
_QUIET_INIT: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}


def set_quiet_environment(*, own_cluster: bool) -> None:
    """Ray's settings are environment variables; the process is Ray's alone, so nothing is put back."""
    for name, value in (QUIET | (OWN_CLUSTER if own_cluster else {})).items():
        os.environ.setdefault(name, value)
    if own_cluster:
        os.environ["RAY_AUTH_MODE"] = "disabled"


@contextmanager
def open_cluster(address: str | None) -> Iterator[Any]:
    """A cluster to run on: the one at `address`, or one of our own; gives the `ray` module.

    Raises:
        ResourceError: the cluster cannot be reached, or Ray does not start.
    """
    import ray

    remove_dead_sessions()
    session = Session()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _temporary_files_in(session.folder):
            if address is None:
                _start_own(ray, session.folder)
            else:
                _join(ray, address)
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():
                    signal.signal(number, handler)  # ray.init puts its own in place
            try:
                yield ray
            finally:
                ray.shutdown()
    finally:
        session.remove()


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """What this process and its descendants make as temporary files goes with `folder`, even if they are killed.

    Ray Tune imports wandb where it is installed, and that makes two folders in each process.
    """
    before = {name: os.environ.get(name) for name in ("TMPDIR", "RAY_TMPDIR")}
    os.environ |= dict.fromkeys(before, folder.as_posix())
    tempfile.tempdir = None
    try:
        yield
    finally:
        tempfile.tempdir = None
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_own(ray: Any, folder: Path) -> None:
    """Start a cluster on this machine, with Ray's files in `folder`.

    On a busy machine Ray's own helpers may miss Ray's fixed time limit of 15 s for their start; a further
    attempt finds them in the disk's cache.

    Raises:
        ResourceError: Ray does not start.
    """
    for attempt in range(1, MAX_STARTS + 1):
        try:
            ray.init(
                "local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=(folder / str(attempt)).as_posix(),
                **_QUIET_INIT,
            )
        except BaseException as error:  # Ray raises bare Exceptions when a node does not start
            ray.shutdown()
            if os.getsid(0) == os.getpid():  # Ray forgets what it started of a node that did not come up
                end_session(os.getpid())
            if not isinstance(error, Exception):
                raise
            if attempt == MAX_STARTS:
                raise ResourceError(
                    f"Ray does not start on this machine ({MAX_STARTS} attempts): {error}; check whether it is "
                    "overloaded, or use `--executor local`"
                ) from error
        else:
            return


def _join(ray: Any, address: str) -> None:
    """Join a running cluster.

    Raises:
        ResourceError: it cannot be reached.
    """
    try:
        ray.init(address, **_QUIET_INIT)
    except Exception as error:
        raise ResourceError(f"cannot join a Ray cluster at {address}: {error}; {EXPECTED_ADDRESS}") from error


def check_address(address: str) -> None:
    """Refuse an address where nothing listens: Ray would try for many minutes without a word.

    Raises:
        ResourceError: the address is not one, or nobody answers there.
    """
    if address in {"auto", "local"}:
        return
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not host.strip("[]") or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ResourceError(f"--ray-address {address}: {EXPECTED_ADDRESS}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise ResourceError(
            f"--ray-address {address}: cannot join a Ray cluster there ({reason.lower()}); check that it is up; "
            f"{EXPECTED_ADDRESS}"
        ) from error


def living_nodes(ray: Any) -> list[Mapping[str, Any]]:
    """Nodes that are up, as Ray describes them."""
    return [node for node in ray.nodes() if node.get("Alive")]


def has_room(node: Mapping[str, Any], resources: ResourcesSpec) -> bool:
    """Whether a node could ever run a trial."""
    held: Mapping[str, float] = node.get("Resources") or {}
    return held.get("CPU", 0.0) >= resources.cpu and held.get("GPU", 0.0) >= resources.gpu


def check_resources(ray: Any, resources: ResourcesSpec) -> None:
    """Refuse what no single node has: Ray would wait for it without a word.

    Raises:
        ResourceError: with what was asked for and what there is.
    """
    nodes = living_nodes(ray)
    for name, wanted in (("CPU", resources.cpu), ("GPU", resources.gpu)):
        most = max((float(node["Resources"].get(name, 0.0)) for node in nodes), default=0.0)
        field = f"resources.{name.lower()}"
        if wanted > most:
            raise ResourceError(
                f"{field} is {wanted:g} per trial, but the largest of {len(nodes)} Ray nodes has {most:g} {name}s; "
                f"lower it with `-o {field}={int(most)}`, or join a larger cluster with --ray-address"
            )
    if not any(has_room(node, resources) for node in nodes):
        raise ResourceError(
            f"a trial takes {resources.cpu:g} CPUs and {resources.gpu:g} GPUs, but none of {len(nodes)} Ray "
            "nodes has both; lower resources.cpu or resources.gpu"
        )


def check_nodes(ray: Any, run_folder: Path, resources: ResourcesSpec) -> None:
    """Refuse a cluster on which a trial's files would go astray or another version would work.

    Every node that could run a trial reads a file in the run's folder.

    Raises:
        ResourceError: a node does not see the folder, or has not this version; names the node.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = uuid.uuid4().hex
    probe = RunFolder(run_folder).node_probe
    write_text(probe, mark)
    look = ray.remote(num_cpus=0, max_retries=0)(look_from_node)
    nodes = [node for node in living_nodes(ray) if has_room(node, resources)]
    try:
        answers = [
            look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(probe.as_posix())
            for node in nodes
        ]
        for node, answer in zip(nodes, answers, strict=True):
            _judge_node(str(node.get("NodeManagerAddress")), _fetch(ray, answer), mark, run_folder)
    finally:
        probe.unlink(missing_ok=True)


def look_from_node(probe: str) -> tuple[str, str]:
    """Runs on a node: what the probe file holds there (empty if it is not there), and our version there."""
    place = Path(probe)
    return (place.read_text(encoding="utf-8") if place.is_file() else "", version(PACKAGE))


def _fetch(ray: Any, answer: Any) -> tuple[str, str] | str:
    """What a node answered, or in words why it did not."""
    try:
        return ray.get(answer, timeout=PROBE_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 (whatever it is, the node cannot run a trial)
        return " ".join(str(error).split())[-300:]


def _judge_node(name: str, answer: tuple[str, str] | str, mark: str, run_folder: Path) -> None:
    if isinstance(answer, str):
        raise ResourceError(
            f"Ray node {name} cannot run trials: {answer}; install the same lora-bench there, or "
            "remove the node from the cluster"
        )
    seen, found = answer
    if seen != mark:
        raise ResourceError(
            f"Ray node {name} does not see {run_folder}; set --runs-dir to a folder that every node mounts "
            "under the same path"
        )
    if found != version(PACKAGE):
        raise ResourceError(
            f"Ray node {name} has lora-bench {found}, but this machine has {version(PACKAGE)}; install the same "
            "version there"
        )


class RoomWatch:
    """Tells when no node that could run a trial has been up for a while: Ray would wait for ever.

    Args:
        list_nodes: the living nodes.
        resources: what a trial takes.
        patience_s: how long a cluster may be without such a node (it may be growing, or coming back).
    """

    def __init__(
        self,
        list_nodes: Callable[[], Sequence[Mapping[str, Any]]],
        resources: ResourcesSpec,
        patience_s: float,
    ) -> None:
        self._list_nodes = list_nodes
        self._resources = resources
        self._patience_s = patience_s
        self._since_s: float | None = None

    def look(self, now_s: float) -> None:
        """Look at the nodes.

        Raises:
            ResourceError: there has been no room for longer than the patience.
        """
        if any(has_room(node, self._resources) for node in self._list_nodes()):
            self._since_s = None
            return
        self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - self._since_s > self._patience_s:
            raise ResourceError(
                f"no Ray node with {self._resources.cpu:g} CPUs and {self._resources.gpu:g} GPUs for a trial has been "
                f"up for {self._patience_s:g} s; finished work is kept; bring nodes back and run the same command again"
            )
