"""Whether trials can run on a cluster, from what Ray says of its nodes."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lora_bench.errors import ResourceError
from lora_bench.runner.jobs import ray_temp_dirs as sessions
from lora_bench.runner.jobs.ray_temp_dirs import Session
from lora_bench.runner.ray_backend.cluster import (
    PACKAGE,
    RoomWatch,
    _judge_node,
    check_address,
    check_resources,
    look_from_node,
    open_cluster,
)
from lora_bench.spec.schema import ResourcesSpec

CPU_NODE = {"Alive": True, "Resources": {"CPU": 8.0}}
GPU_NODE = {"Alive": True, "Resources": {"CPU": 1.0, "GPU": 2.0}}
DEAD_NODE = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}


def make_ray(*nodes: dict[str, Any]) -> Any:
    return SimpleNamespace(nodes=lambda: list(nodes))


def test_a_trial_must_fit_on_one_node_and_dead_ones_do_not_count() -> None:
    ray = make_ray(CPU_NODE, GPU_NODE, DEAD_NODE)
    check_resources(ray, ResourcesSpec(cpu=1, gpu=0.5))
    with pytest.raises(
        ResourceError, match=r"resources\.gpu is 4 per trial, but the largest of 2 Ray nodes has 2 GPUs"
    ):
        check_resources(ray, ResourcesSpec(gpu=4))
    with pytest.raises(ResourceError, match=r"takes 2 CPUs and 1 GPUs, but none of 2 Ray nodes has both"):
        check_resources(ray, ResourcesSpec(cpu=2, gpu=1))


def test_a_cluster_that_lost_its_last_fitting_node_is_given_up_after_a_while() -> None:
    nodes = [GPU_NODE]
    watch = RoomWatch(lambda: nodes, ResourcesSpec(gpu=1), patience_s=60)
    watch.look(0.0)
    nodes[:] = [CPU_NODE]
    watch.look(10.0)
    watch.look(70.0)
    nodes[:] = [GPU_NODE]
    watch.look(71.0)  # it came back
    nodes[:] = []
    watch.look(80.0)
    with pytest.raises(
        ResourceError, match="no Ray node with 1 CPUs and 1 GPUs for a trial has been up for 60 s"
    ):
        watch.look(141.0)


def test_a_node_reads_the_probe_and_says_its_version(tmp_path: Path) -> None:
    from importlib.metadata import version

    probe = tmp_path / "probe"
    assert look_from_node(str(probe)) == ("", version(PACKAGE))
    probe.write_text("mark", encoding="utf-8")
    assert look_from_node(str(probe)) == ("mark", version(PACKAGE))
    _judge_node("n1", look_from_node(str(probe)), "mark", tmp_path)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            ("", "0"),
            r"Ray node n1 does not see .*; set --runs-dir to a folder that every node mounts",
        ),
        (
            ("mark", "0.0.1"),
            r"Ray node n1 has lora-bench 0\.0\.1, but this machine has .*; install the same version",
        ),
        (
            "No module named 'lora_bench'",
            r"Ray node n1 cannot run trials: No module named 'lora_bench'; install",
        ),
    ],
)
def test_a_node_that_would_go_astray_is_refused_with_its_name(
    answer: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ResourceError, match=words):
        _judge_node("n1", answer, "mark", tmp_path)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_nothing_listens_is_refused_and_one_that_answers_is_not(form: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = form.format(listener.getsockname()[1])
        with pytest.raises(
            ResourceError,
            match=rf"--ray-address {address}: cannot join a Ray cluster .*refused.*; check that",
        ):
            check_address(address)
        listener.listen()
        check_address(address)
    check_address("auto")


@pytest.mark.parametrize(
    "address", ["head", ":6379", "head:", "head:x", "head:0", "head:99999", "ray://head", ""]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ResourceError, match="expected the address that `ray start --head` prints"):
        check_address(address)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_sockets_of_ray_fit_where_the_temporary_folder_is_long(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ("a-job-with-a-long-name" * 3)
    place.mkdir()
    monkeypatch.setenv(name, str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    session = Session()
    try:
        inside = session.folder / "1/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
        with socket.socket(socket.AF_UNIX) as server:
            inside.parent.mkdir(parents=True)
            server.bind(str(inside))
    finally:
        session.remove()
    assert list(place.iterdir()) == []


def test_without_a_short_temporary_folder_ray_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_SHORT", (str(tmp_path / "none"),))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 20)))
    with pytest.raises(
        ResourceError,
        match="set TMPDIR to a writable folder whose path has at most",
    ):
        Session()


def test_a_cluster_that_is_not_there_is_refused_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(address: str, **_: object) -> None:
        raise ConnectionError(f"nothing listens at {address}")

    monkeypatch.setattr(ray, "init", refuse)
    with (
        pytest.raises(ResourceError, match=r"cannot join a Ray cluster at 127\.0\.0\.1:1: nothing listens"),
        open_cluster("127.0.0.1:1"),
    ):
        pass
