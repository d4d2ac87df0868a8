"""A killed Ray head ends the run with exit code 3 and a true report; the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import TESTS
from support.chaos_lives import NAME, Witness, describe_chaos
from support.ray_nodes import Cluster, kill_tree, list_tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LIMIT_S = 400.0
ENDED = "the Ray cluster ended: "


class Life:
    """`lora-bench run` of one zero-shot trial and three adapters, as a process."""

    def __init__(self, place: Path, temporary: Path) -> None:
        self.place = place
        self.temporary = temporary
        self.run = place / "runs" / NAME
        spec = describe_chaos(place, n_clips=8, n_variants=3)
        (place / "chaos.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lora_bench", "run", "chaos.yaml", "--quiet", *options]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(TESTS),
            "TMPDIR": str(self.temporary),
        }
        return subprocess.Popen(command, cwd=self.place, env=environment, stderr=subprocess.PIPE, text=True)

    def wait_for_training(self, process: subprocess.Popen[str]) -> None:
        """Until an adapter is being trained."""
        while process.poll() is None and not list(self.run.glob("trials/r*/checkpoint")):
            time.sleep(0.02)
        assert process.returncode is None, process.communicate()

    def results(self) -> dict[str, Any]:
        return json.loads((self.run / "results.json").read_text(encoding="utf-8"))


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    temporary = Path(tempfile.mkdtemp(prefix="lrt-"))  # short: paths of sockets have at most 107 characters
    yield Life(tmp_path, temporary)
    left = [path.name for path in temporary.iterdir()]
    shutil.rmtree(temporary)
    assert left == []


def end_of(process: subprocess.Popen[str]) -> str:
    """What a run that lost its head says when it ends, in bounded time and with its exit code."""
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 3, said
    return said


def check_truth(life: Life, said: str) -> None:
    """State, results, report and words agree that something is missing, and what."""
    assert said.count("\n") == 1, said  # not a word of Ray's own
    assert said.startswith(f"lora-bench: {ENDED}"), said
    results = life.results()
    states = {trial["name"]: trial["state"] for trial in results["trials"]}
    n_done = list(states.values()).count("done")  # zero-shot and an adapter are at work side by side
    assert f"{n_done} of 4 trials are done and kept; resume the run with the same command" in said
    assert set(states) == {"zero-shot", "r1", "r2", "r3"}
    assert not results["complete"]
    assert set(states.values()) <= {"done", "interrupted", "unstarted"}, states
    report = (life.place / "reports" / NAME / "report.md").read_text(encoding="utf-8")
    assert "This run is incomplete" in report
    for trial in results["trials"]:
        n_cells = len(trial["scores"]) + len(trial["unscored"])
        assert n_cells == 3
        assert (trial["state"] == "done") == (not trial["unscored"])
        assert all(cell["reason"] for cell in trial["unscored"])
        if trial["state"] != "done":
            assert trial["reason"] == "not started" or ENDED in trial["reason"]
            named = f"{trial['name']}: {trial['reason'][:40]}" in report
            assert named or (n_done == 0 and "; and 1 more under What is missing" in report)


def check_end(life: Life, process: subprocess.Popen[str], witness: Witness) -> None:
    """The same command went on to the end and did nothing again."""
    _, said = process.communicate(timeout=LIMIT_S)
    witness.look()
    assert process.returncode == 0, said
    assert life.results()["complete"]
    assert witness.repeated == []
    assert list(life.run.glob(".ray-*")) == []


def find_alive(pids: set[int], limit_s: float = 10.0) -> list[int]:
    """Which of them live on; Python's own tracker of processes ends a moment after the process that it serves."""
    end_s = time.monotonic() + limit_s
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < end_s:
        time.sleep(0.1)
    return alive


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_the_head_of_a_cluster_of_our_own_is_killed(part: str, life: Life) -> None:
    witness = Witness(life.place)
    process = life.start("--executor", "ray")
    life.wait_for_training(process)
    tree = list_tree(process.pid) - {process.pid}
    (head,) = [pid for pid in tree if part in read_program(pid)]
    os.kill(head, signal.SIGKILL)
    said = end_of(process)
    assert len(tree) > 5
    assert find_alive(tree) == []
    assert list(life.temporary.iterdir()) == []
    witness.look()
    check_truth(life, said)
    check_end(life, life.start("--executor", "ray"), witness)


def read_program(pid: int) -> str:
    """The name of a process's program; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").partition("\0")[0].rpartition("/")[2]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_head_of_a_cluster_that_was_joined_is_killed(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    witness = Witness(life.place)
    cluster = Cluster()
    try:
        cluster.join()
        process = life.start("--ray-address", cluster.address)
        life.wait_for_training(process)
        ours = list_tree(process.pid)
        kill_tree(cluster.head.pid)
        said = end_of(process)
        assert find_alive(ours) == []
        witness.look()
        check_truth(life, said)
    finally:
        cluster.stop()
    cluster = Cluster(cluster.address)
    try:
        cluster.join()
        check_end(life, life.start("--ray-address", cluster.address), witness)
    finally:
        cluster.stop()
