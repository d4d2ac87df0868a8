"""Trials that take no time: importable by Ray's workers, told by their names what to do."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from lora_bench.errors import DatasetError, OutOfMemoryError
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.progress import Progress
from lora_bench.results.trial_files import read_state
from lora_bench.runner.jobs.workers import Workers
from lora_bench.spec import ExperimentSpec
from lora_bench.store import Store
from support import worker_tasks


def plan_named(*names: str) -> ExperimentPlan:
    """A plan of one zero-shot trial and of trials with these names."""
    variants = [{"name": name, "lora.rank": rank} for rank, name in enumerate(names, 1)]
    return plan_experiment(
        ExperimentSpec.model_validate(
            {
                "schema": 1,
                "name": "t",
                "dataset": {"builtin": "chiptune"},
                "prompts": ["a"],
                "trials": {"variants": variants},
            }
        )
    )


def execute_fake(trial: TrialPlan, folder: Path, store: Store, progress: Progress) -> dict[str, Any]:
    """Do what the trial's name says; every call leaves a line in `calls.txt`."""
    with (folder / "calls.txt").open("a", encoding="utf-8") as stream:
        stream.write(f"{os.getpid()}\n")
    n_calls = len((folder / "calls.txt").read_text(encoding="utf-8").splitlines())
    progress.start("train", 3)
    for step in range(3):
        progress.advance(note=f"loss {3 - step}")
    word = trial.name.partition("-")[0]
    if word == "bad":
        raise ValueError("broken on purpose")
    if word == "data":
        raise DatasetError("music: no audio files")
    if word == "memory":
        raise OutOfMemoryError("batch 1 needs 9 GiB, 8 GiB are there")
    if word == "full":
        raise OSError(28, "No space left on device")
    if word == "stop":
        raise KeyboardInterrupt
    if word == "once" and n_calls == 1:
        raise RuntimeError("only the first time")
    if word == "killed" or (word == "dies" and n_calls == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "slow":
        time.sleep(300)
    if word == "worked":
        with Workers(1) as workers:
            workers.submit("numbers", 1, worker_tasks.note, folder, "noted")
            workers.finish("features", progress)
    facts = {
        "cwd": os.getcwd(),  # noqa: PTH109
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "waiting": os.environ.get("OMP_WAIT_POLICY"),
        "torch": "torch" in sys.modules,
    }
    return {"wall_s": {"train": 1.5}, "model": {"name": "fake"}, "facts": facts}


class Recorder:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.n_steps = 0
        self.lines: list[str] = []

    def start(self, stage: str, total: int | None = None) -> None:
        self.stages.append((stage, total))

    def advance(self, n: int = 1, *, note: str = "") -> None:
        self.n_steps += n

    def log(self, message: str) -> None:
        self.lines.append(message)


def wait_for(folder: Path, name: str, state: str, limit_s: float = 120.0) -> Path:
    """The trial's folder, once it is in that state."""
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        for found in folder.glob(f"trials/{name}-*"):
            if read_state(found).get("state") == state and (found / "progress.json").exists():
                return found
        time.sleep(0.05)
    raise AssertionError(f"{name} did not become {state}")
