"""Ray clusters of several nodes on this machine, each started by `ray start`, and what a power cut does."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")


def list_tree(pid: int) -> set[int]:
    """A process and everything that it started."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(
                stat.read_text(encoding="ascii").rpartition(")")[2].split()[1]
            )
        except (OSError, ValueError):
            continue
    tree, size = {pid}, 0
    while size < len(tree):
        size = len(tree)
        tree |= {child for child, parent in parents.items() if parent in tree}
    return tree


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
        port = self.address.rpartition(":")[2]
        self.start(
            "--head",
            f"--port={port}",
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
        """A node; `within` is a command that runs its command."""
        return self.start(
            f"--address={self.address}", "--num-cpus=1", "--object-store-memory=100000000", within=within
        )

    @property
    def head(self) -> subprocess.Popen[bytes]:
        return self.nodes[0]

    def stop(self) -> None:
        for node in reversed(self.nodes):
            kill_tree(node.pid)
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for_nodes(cluster: Cluster, n_nodes: int, limit_s: float = 300.0) -> None:
    """Until so many nodes are up."""
    code = f"import ray; ray.init({cluster.address!r}, log_to_driver=False, logging_level='ERROR'); print(len([n for n in ray.nodes() if n['Alive']]))"
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if asked.stdout.strip() == str(n_nodes):
            return
        time.sleep(1.0)
    raise AssertionError(f"{n_nodes} nodes did not come up")
