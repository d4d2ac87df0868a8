"""An ablation on a cluster of separately started nodes, one of which is killed in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_lives import NAME, Witness, live, plan_chaos

from lora_bench.errors import ResourceError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
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


class Cluster:
    """A head without CPUs and nodes of one CPU each, all started by `ray start`."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
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

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [str(RAY), "start", "--block", "--node-ip-address=127.0.0.1", *options]
        log = (self.folder / f"start-{len(self.nodes)}.log").open("wb")
        node = subprocess.Popen(command, stdout=log, stderr=log)
        self.nodes.append(node)
        return node

    def join(self) -> subprocess.Popen[bytes]:
        return self.start(f"--address={self.address}", "--num-cpus=1", "--object-store-memory=100000000")

    def stop(self) -> None:
        for node in reversed(self.nodes):
            kill_tree(node.pid)
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name, value in (
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("RAY_AUTH_MODE", "disabled"),
        ("OMP_NUM_THREADS", "1"),
    ):
        monkeypatch.setenv(name, value)
    found = Cluster()
    try:
        yield found
    finally:
        found.stop()


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


class Killer(threading.Thread):
    """Kills a node as soon as a trial that trains is at work on it."""

    def __init__(self, node: subprocess.Popen[bytes], trials: Path) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.trials = trials
        self.victim: str | None = None
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            tree = list_tree(self.node.pid)
            for state_file in self.trials.glob("r*/state.json"):
                state = json.loads(state_file.read_text(encoding="utf-8"))
                if (
                    state["state"] == "running"
                    and state["pid"] in tree
                    and (state_file.parent / "checkpoint").is_dir()
                ):
                    kill_tree(self.node.pid)
                    self.victim = state["trial"]
                    return
            time.sleep(0.02)


def test_a_run_completes_when_one_of_its_nodes_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    doomed, _ = cluster.join(), cluster.join()
    wait_for_nodes(cluster, 3)
    plan = plan_chaos(tmp_path, n_clips=2, n_variants=3)
    run = tmp_path / "runs" / NAME
    killer = Killer(doomed, run / "trials")
    killer.start()
    witness = Witness(tmp_path)
    code = live(plan, tmp_path, "ray", cluster.address)
    killer.over.set()
    witness.look()
    assert killer.victim is not None
    assert code == 0
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["complete"]
    state = json.loads((run / "trials" / killer.victim / "state.json").read_text(encoding="utf-8"))
    assert (state["state"], state["n_attempts"]) == ("done", 2)
    assert "training goes on from step" in (run / "trials" / killer.victim / "log.txt").read_text(
        encoding="utf-8"
    )
    assert [path.name for path in run.glob(".ray-*")] == []
    assert witness.repeated == []


def test_a_node_that_does_not_see_the_runs_folder_is_refused(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_bench.runner import cluster as checks

    cluster.join()
    wait_for_nodes(cluster, 2)
    monkeypatch.setattr(checks, "write_text", lambda *_: None)  # the probe then is on no node's disk
    plan = plan_chaos(tmp_path, n_clips=2, n_variants=1)
    with pytest.raises(ResourceError, match=r"Ray node 127\.0\.0\.1 does not see .*give --runs-dir a folder"):
        live(plan, tmp_path, "ray", cluster.address)
    assert not list((tmp_path / "runs" / NAME).glob("trials/*/state.json"))
