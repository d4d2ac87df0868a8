"""Trials through a real Ray on this machine.  Its start takes ten seconds, so few tests do much each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support import TESTS
from support.fake_trials import Recorder, execute_fake, plan_named

from lora_bench.errors import ResourceError
from lora_bench.results.trial_files import read_state
from lora_bench.runner.executor import run_trials
from lora_bench.runner.process_environment import WAIT_SETTINGS
from lora_bench.spec.schema import ResourcesSpec

# A busy machine takes a minute for what an idle one does in ten seconds.
pytestmark = pytest.mark.timeout(900)


def settled(run_folder: Path) -> dict[str, dict[str, object]]:
    """State of each trial by its name."""
    folders = sorted((run_folder / "trials").iterdir())
    return {folder.name.rpartition("-")[0]: read_state(folder) for folder in folders}


def list_left_over() -> set[str]:
    """Folders that a cluster of ours would leave in the temporary folder."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("lora-ray-*")}


def test_ray_runs_trials_whatever_becomes_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(TESTS))  # workers import the fake trial from here
    for name in WAIT_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # the command line's choice
    (tmp_path / "home").mkdir()
    before, environment = list_left_over(), dict(os.environ)
    progress = Recorder()
    trials = plan_named("good", "bad", "dies", "killed", "worked").trials
    run_trials(
        trials,
        tmp_path / "run",
        tmp_path / "cache",
        progress,
        executor="ray",
        resources=ResourcesSpec(cpu=0.5),
        inputs={trial.id: "key" for trial in trials},
        execute=execute_fake,
    )
    found = settled(tmp_path / "run")
    assert {name: state["state"] for name, state in found.items()} == {
        "bad": "failed", "dies": "done", "good": "done", "killed": "failed", "worked": "done", "zero-shot": "done",
    }  # fmt: skip
    assert found["bad"]["reason"] == "ValueError: broken on purpose"
    assert found["bad"]["n_attempts"] == 1  # a deterministic error is not tried again
    assert found["dies"]["n_attempts"] == 2  # a worker that was killed is
    assert found["killed"]["n_attempts"] == 3  # but not for ever
    assert found["killed"]["reason"] == "its worker process died 3 times (killed, or out of memory)"
    assert found["killed"]["cause"] == "worker death"
    assert found["good"]["inputs"] == "key"
    assert found["good"]["pid"] != os.getpid()
    facts = found["good"]["facts"]
    assert facts == {"cwd": str(Path.cwd()), "gpus": "", "waiting": "PASSIVE", "torch": False}
    assert any(line.startswith("bad failed: ValueError: broken on purpose") for line in progress.lines)
    assert progress.n_steps == 5
    assert len(list((tmp_path / "run").glob("trials/worked-*/noted"))) == 1  # by a process of the trial's
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["trials"]
    assert list(tmp_path.glob("home/**/*token*")) == []
    assert list_left_over() <= before
    assert dict(os.environ) == environment


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (
            ResourcesSpec(gpu=64),
            r"resources\.gpu is 64 per trial, but the largest of 1 Ray nodes has \d+ GPUs; lower",
        ),
        (
            ResourcesSpec(cpu=4096),
            r"resources\.cpu is 4096 per trial, but the largest of 1 Ray nodes has \d+ CPUs",
        ),
    ],
)
@pytest.mark.slow
def test_a_resource_that_no_node_has_is_refused_at_once(
    resources: ResourcesSpec, words: str, tmp_path: Path
) -> None:
    trials = plan_named("good").trials
    with pytest.raises(ResourceError, match=words):
        run_trials(
            trials, tmp_path, tmp_path, Recorder(), executor="ray", resources=resources, execute=execute_fake
        )
    assert not (tmp_path / "trials").exists()


RUN_SLOW = """
import signal
import sys
from pathlib import Path
for number in (signal.SIGINT, signal.SIGTERM):  # as the command line does; a background job ignores SIGINT
    signal.signal(number, signal.default_int_handler)
sys.path.insert(0, {folder!r})
from support.fake_trials import Recorder, execute_fake, plan_named
from lora_bench.errors import InterruptedRunError
from lora_bench.runner.executor import run_trials
from lora_bench.spec.schema import ResourcesSpec
run_folder = Path(sys.argv[1])
try:
    run_trials(plan_named("slow", "killed").trials, run_folder, run_folder, Recorder(), executor="ray",
               resources=ResourcesSpec(cpu=1), execute=execute_fake)
except InterruptedRunError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_ctrl_c_ends_a_ray_run_as_interrupted_and_never_as_complete(
    number: signal.Signals, tmp_path: Path
) -> None:
    from support.fake_trials import wait_for

    code = RUN_SLOW.format(folder=str(TESTS))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": str(TESTS),
        },  # workers import the fake trial from here
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path, "slow", "running", limit_s=600)
    os.kill(process.pid, number)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 3
    assert "1 of 3 trials are done and kept" in printed
    found = settled(tmp_path)
    assert found["slow"]["state"] == "interrupted"
    assert found["zero-shot"]["state"] == "done"
