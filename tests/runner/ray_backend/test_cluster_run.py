"""An ablation on a cluster of separately started nodes, one of which is killed in the middle."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chaos_lives import NAME, Witness, live, plan_chaos
from support.ray_nodes import Cluster, kill_tree, list_tree

from lora_bench.errors import ResourceError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


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
                    and (state_file.parent / "checkpoint" / "state.safetensors").is_file()
                ):
                    kill_tree(self.node.pid)
                    self.victim = state["trial"]
                    return
            time.sleep(0.02)


def test_a_run_completes_when_one_of_its_nodes_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    doomed, _ = cluster.join(), cluster.join()
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
    log = (run / "trials" / killer.victim / "log.txt").read_text(encoding="utf-8")
    assert "training resumes from step" in log
    assert [path.name for path in run.glob(".ray-*")] == []
    assert witness.repeated == []


def test_a_node_that_does_not_see_the_runs_folder_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    plan = plan_chaos(tmp_path, n_clips=2, n_variants=1)
    (tmp_path / "runs").mkdir()
    hide = f'mount -t tmpfs tmpfs {tmp_path / "runs"} && exec "$@"'  # over the folder, for this node alone
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("a mount of its own can be made by root only")
    cluster.join(within=("unshare", "-m", "sh", "-c", hide, "sh"))
    with pytest.raises(ResourceError, match=r"Ray node \S+ does not see .*set --runs-dir to a folder"):
        live(plan, tmp_path, "ray", cluster.address)
    assert not list((tmp_path / "runs" / NAME).glob("trials/*/state.json"))
