"""Ray clusters of several nodes on this machine, each started by `ray start`, and what a power cut does."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

RAY = Path(sys.executable).with_name("ray")
MAX_STARTS = 4


def list_tree(pid: int) -> set[int]:
    """A process and everything that it started."""
    try:
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.NoSuchProcess:
        return {pid}


def kill_tree(pid: int) -> None:
    """What a power cut does to a node."""
    for found in list_tree(pid):
        try:
            os.kill(found, signal.SIGKILL)
        except ProcessLookupError:
            continue


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A head without CPUs and nodes of one CPU each, all started by `ray start`."""

    def __init__(self, address: str | None = None) -> None:
        self.address = address or f"127.0.0.1:{find_free_port()}"
        self.folder = Path(tempfile.mkdtemp(prefix="lrc-"))
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.head = self._start_until_up(
            1,
            "--head",
            f"--port={self.address.rpartition(':')[2]}",
            "--num-cpus=0",
            "--include-dashboard=false",
            f"--temp-dir={self.folder}",
        )

    def start(self, *options: str, within: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        command = [*within, str(RAY), "start", "--block", "--node-ip-address=127.0.0.1", *options]
        log = (self.folder / f"start-{len(self.nodes)}.log").open("wb")
        node = subprocess.Popen(command, stdout=log, stderr=log)
        self.nodes.append(node)
        return node

    def join(self, within: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """A node that is up; `within` is a command that runs its command."""
        n_nodes = 1 + sum(node.poll() is None for node in self.nodes)
        options = (f"--address={self.address}", "--num-cpus=1", "--object-store-memory=100000000")
        return self._start_until_up(n_nodes, *options, within=within)

    def _start_until_up(
        self, n_nodes: int, *options: str, within: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """On a busy machine a node may miss Ray's fixed time limit for its start."""
        for _ in range(MAX_STARTS):
            node = self.start(*options, within=within)
            if has_nodes(self.address, n_nodes):
                return node
            kill_tree(node.pid)
            node.wait()
        raise AssertionError(f"{n_nodes} nodes did not come up")

    def stop(self) -> None:
        for node in reversed(self.nodes):
            if node.poll() is None:
                kill_tree(node.pid)
                node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


COUNT_NODES = """
import sys, time, ray
end_s = time.monotonic() + 60
while time.monotonic() < end_s:
    try:
        if not ray.is_initialized():
            ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
        if sum(node["Alive"] for node in ray.nodes()) == int(sys.argv[2]):
            sys.exit(0)
    except Exception:  # the head is not up yet
        pass
    time.sleep(0.5)
sys.exit(1)
"""


def has_nodes(address: str, n_nodes: int) -> bool:
    """Whether so many nodes are up within a minute."""
    command = [sys.executable, "-c", COUNT_NODES, address, str(n_nodes)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
