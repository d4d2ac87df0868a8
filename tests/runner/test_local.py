"""Trials one after the other: failures, resources, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import TESTS
from support.fake_trials import Recorder, execute_fake, plan_named, wait_for

from lora_bench.errors import InterruptedRunError, ResourceError, UsageError
from lora_bench.machine import gpus
from lora_bench.results.trial_files import read_state
from lora_bench.runner.executor import run_trials
from lora_bench.spec.schema import ResourcesSpec

CPU = ResourcesSpec()


def states(run_folder: Path) -> dict[str, str]:
    """State of each trial by its name."""
    folders = sorted((run_folder / "trials").iterdir())
    return {folder.name.rpartition("-")[0]: read_state(folder).get("state", "") for folder in folders}


def test_a_failed_trial_does_not_stop_the_others(tmp_path: Path) -> None:
    progress = Recorder()
    trials = plan_named("bad", "good").trials
    run_trials(trials, tmp_path, tmp_path / "cache", progress, resources=CPU, execute=execute_fake)
    assert states(tmp_path) == {"bad": "failed", "good": "done", "zero-shot": "done"}
    assert [stage for stage, _ in progress.stages] == [
        "zero-shot (1/3): train", "bad (2/3): train", "good (3/3): train",
    ]  # fmt: skip
    (line,) = progress.lines
    assert "bad (2/3) failed: ValueError: broken on purpose" in line


def test_a_trial_is_told_what_it_is_finished_for(tmp_path: Path) -> None:
    (trial, *_) = plan_named("good").trials
    run_trials(
        [trial], tmp_path, tmp_path, Recorder(), resources=CPU, inputs={trial.id: "abc"}, execute=execute_fake
    )
    assert read_state(tmp_path / "trials" / trial.id)["inputs"] == "abc"


def test_an_interrupt_keeps_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    trials = plan_named("stop", "good").trials
    with pytest.raises(
        InterruptedRunError,
        match=r"stopped in trial stop; 1 of 3 trials are done and kept; resume the run with the",
    ):
        run_trials(trials, tmp_path, tmp_path, Recorder(), resources=CPU, execute=execute_fake)
    assert states(tmp_path) == {"stop": "interrupted", "zero-shot": "done"}


def test_a_gpu_that_does_not_exist_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "usable_gpus", lambda: gpus.Gpus({0: "H100"}))
    trials = plan_named("good").trials
    with pytest.raises(
        ResourceError, match=r"resources\.gpu is 2, but torch sees 1 GPUs .*`-o resources\.gpu=0`"
    ):
        run_trials(
            trials, tmp_path, tmp_path, Recorder(), resources=ResourcesSpec(gpu=2), execute=execute_fake
        )
    assert not (tmp_path / "trials").exists()
    run_trials(trials, tmp_path, tmp_path, Recorder(), resources=ResourcesSpec(gpu=0.5), execute=execute_fake)
    assert states(tmp_path)["good"] == "done"


def test_an_unknown_executor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="executor 'slurm' does not exist; expected local or ray"):
        run_trials([], tmp_path, tmp_path, Recorder(), resources=CPU, executor="slurm")


RUN_SLOW = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
sys.path.insert(0, {folder!r})
from support.fake_trials import Recorder, execute_fake, plan_named
from lora_bench.machine import gpus
from lora_bench.errors import InterruptedRunError
from lora_bench.runner.executor import run_trials
from lora_bench.spec.schema import ResourcesSpec
run_folder = Path(sys.argv[1])
try:
    run_trials(plan_named("slow", "good").trials, run_folder, run_folder, Recorder(), resources=ResourcesSpec(),
               execute=execute_fake)
except InterruptedRunError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_ctrl_c_leaves_a_tidy_state_and_the_exit_code_of_an_incomplete_run(tmp_path: Path) -> None:
    code = RUN_SLOW.format(folder=str(TESTS))
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    folder = wait_for(tmp_path, "slow", "running")
    os.kill(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 3
    assert printed.startswith("stopped in trial slow; 1 of 3 trials are done")
    assert states(tmp_path) == {"slow": "interrupted", "zero-shot": "done"}
    assert json.loads((folder / "state.json").read_text(encoding="utf-8"))["stage"] == "train"


def test_a_killed_run_can_be_taken_over_at_once(tmp_path: Path) -> None:
    code = RUN_SLOW.format(folder=str(TESTS))
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.DEVNULL)
    folder = wait_for(tmp_path, "slow", "running")
    process.kill()
    process.wait()
    assert read_state(folder)["state"] == "running"
    trials = [trial for trial in plan_named("slow", "good").trials if trial.name == "slow"]
    run_trials(trials, tmp_path, tmp_path, Recorder(), resources=CPU, execute=lambda *_: {})
    assert (read_state(folder)["state"], read_state(folder)["n_attempts"]) == ("done", 2)


def note_limit(trial: object, folder: Path, store: object, progress: object) -> None:
    """A trial that writes what it may use."""
    (folder / "limit").write_text(str(gpus.limit()), encoding="utf-8")


@pytest.mark.parametrize("n_gpus", [0.0, 0.5])
def test_a_trial_may_use_the_gpus_of_its_resources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_gpus: float
) -> None:
    monkeypatch.setattr(gpus, "usable_gpus", lambda: gpus.Gpus({0: "H100"}))
    (trial, *_) = plan_named("good").trials
    run_trials(
        [trial], tmp_path, tmp_path, Recorder(), resources=ResourcesSpec(gpu=n_gpus), execute=note_limit
    )
    assert (tmp_path / "trials" / trial.id / "limit").read_text(encoding="utf-8") == str(n_gpus)
    assert gpus.limit() is None
