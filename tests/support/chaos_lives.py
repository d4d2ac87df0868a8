"""A tiny experiment, killed again and again: run as a program, prints what it saw as JSON.

One process imports everything and forks a driver for every life, so that a life begins in milliseconds
and a hundred of them take a minute.  Nothing in the parent starts threads before it forks, and nothing is decoded there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.errors import EXIT_INCOMPLETE, InterruptedRunError
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.progress import SilentProgress
from lora_bench.runner.experiment import run_experiment
from lora_bench.spec import ExperimentSpec

NAME = "chaos"
TIMES = {"wall_s", "peak_memory_gib", "attempt_s", "environment"}
SPREAD_FRAC = 0.7  # a life writes more than it is told to, while it is being killed
MAX_DELAY_S = 0.1


@dataclass(frozen=True)
class Moment:
    """When a life is killed: so long after it has written so many files."""

    n_files: int
    delay_s: float


def describe_chaos(root: Path, *, n_clips: int, n_variants: int) -> dict[str, Any]:
    """A spec: zero-shot and adapters on noise, with a model of random weights; files are made if they are not there."""
    if not (root / "model" / "config.json").is_file():
        save_random_musicgen(root / "model", TINY)
    music = root / "music"
    if not music.is_dir():
        music.mkdir()
        for track in range(5):
            noise = np.random.default_rng(track).normal(0, 0.1, TINY.sample_rate_hz * 3)
            soundfile.write(music / f"{track}.wav", noise, TINY.sample_rate_hz)
    return {
        "schema": 1,
        "name": NAME,
        "model": {"id": str(root / "model")},
        "dataset": {
            "path": str(music),
            "captions": {"text": "noise"},
            "clip_s": 1.0,
            "split": {"eval_frac": 0.4},
        },
        "prompts": ["noise", "other noise"][: max(1, n_variants - 1)],
        "generation": {"n_clips": n_clips, "clip_s": 0.5, "batch_size": 1},
        "metrics": ["encodec"],
        "defaults": {
            "lora": {"rank": 2, "targets": "self_attention", "dropout": 0.1},
            "train": {
                "steps": 12,
                "batch_size": 2,
                "eval_every": 4,
                "checkpoint_every": 1,
                "lr": 1e-3,
            },
        },
        "trials": {
            "variants": [{"name": f"r{rank}", "lora.rank": rank} for rank in range(1, n_variants + 1)]
        },
    }


def plan_chaos(root: Path, *, n_clips: int, n_variants: int) -> ExperimentPlan:
    """The plan of that spec."""
    spec = describe_chaos(root, n_clips=n_clips, n_variants=n_variants)
    return plan_experiment(ExperimentSpec.model_validate(spec))


def live(plan: ExperimentPlan, place: Path, executor: str = "local", ray_address: str | None = None) -> int:
    """One life of a driver."""
    return run_experiment(
        plan,
        runs_dir=place / "runs",
        reports_dir=place / "reports",
        progress=SilentProgress(),
        executor=executor,
        ray_address=ray_address,
    )


def preload(plan: ExperimentPlan) -> None:
    """Import what a life needs; nothing is decoded here, as numba refuses to be forked after that."""
    import lora_bench.comparison.run_contrasts
    import lora_bench.encoders.encodec
    import lora_bench.evaluation.trial_guards
    import lora_bench.evaluation.trial_scores
    import lora_bench.models.decoding.small_batch_step
    import lora_bench.report.render
    import lora_bench.stages.dataset
    import lora_bench.stages.generate
    import lora_bench.stages.score
    import lora_bench.stages.tokens
    import lora_bench.stages.train  # noqa: F401
    from lora_bench.models import load_model

    load_model(plan.trials[0].model, device="cpu")


class RayLife:
    """A driver that runs the experiment through Ray, in a process of its own."""

    def __init__(self, root: Path, place: Path, *sizes: int) -> None:
        self.trials = place / "runs" / NAME / "trials"
        command = [sys.executable, __file__, "ray-life", str(root), str(place), *map(str, sizes)]
        self.driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def wait_for_worker(self, limit_s: float = 300.0) -> int | None:
        """A worker that is at a trial; None if the driver ended before there was one."""
        end_s = time.monotonic() + limit_s
        while self.driver.poll() is None and time.monotonic() < end_s:
            for file in self.trials.glob("*/state.json"):
                state = json.loads(file.read_text(encoding="utf-8"))
                if state["state"] == "running" and is_child_of(int(state["pid"]), "ray::"):
                    return int(state["pid"])
            time.sleep(0.02)
        return None

    def kill_worker(self, delay_s: float) -> bool:
        """Kill a worker after a delay; whether there was one."""
        pid = self.wait_for_worker()
        if pid is None:
            return False
        time.sleep(delay_s)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def kill_driver(self, delay_s: float) -> bool:
        """Kill the driver after a delay; whether it still lived."""
        time.sleep(delay_s)
        self.driver.kill()
        return self.driver.wait() == -signal.SIGKILL

    def kill_talker(self, delay_s: float) -> bool:
        """Kill the process that talks to Ray; whether the driver then ended as one that is to go on."""
        time.sleep(delay_s)
        driver = self.driver.pid
        with suppress(FileNotFoundError, ProcessLookupError):  # it may have ended by itself
            children = Path(f"/proc/{driver}/task/{driver}/children").read_text(encoding="ascii")
            for pid in map(int, children.split()):
                if b"--multiprocessing-fork" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    return self.driver.wait() == EXIT_INCOMPLETE
        return False


def is_child_of(pid: int, title: str) -> bool:
    """Whether a process lives under such a title: a pid of a dead one may belong to another program."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode())
    except FileNotFoundError:
        return False


def torment_with_ray(
    root: Path, place: Path, witness: Witness, n_lives: int, chance: random.Random, *sizes: int
) -> int:
    """Lives through Ray, in each of which two workers are killed and then the driver, or what talks to Ray for it.

    Returns:
        How many processes were killed.
    """
    n_killed = 0
    for number in range(n_lives):
        life = RayLife(root, place, *sizes)
        n_killed += sum(life.kill_worker(chance.uniform(0.0, 1.0)) for _ in range(2))
        if number % 2:
            n_killed += life.kill_talker(chance.uniform(0.0, 1.0))
        n_killed += life.kill_driver(chance.uniform(0.0, 1.0))
        witness.look()
    return n_killed


def count_files(place: Path) -> int:
    """How far an experiment is."""
    return sum(len(files) for _, _, files in os.walk(place))


def fork_life(plan: ExperimentPlan, place: Path, moment: Moment | None) -> int | None:
    """A life in a process of its own.

    Returns:
        Its exit code; None if it was killed before its end.
    """
    goal = count_files(place) + moment.n_files if moment is not None else 0
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = live(plan, place)
        finally:
            os._exit(code)
    ended = status = 0
    while moment is not None and not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        if not ended and count_files(place) >= goal:
            time.sleep(moment.delay_s)
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.002)
    if not ended:
        _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def list_finished(place: Path) -> Iterator[Path]:
    """Files of stages that are over: nobody may write them again."""
    run = place / "runs" / NAME
    for path in (place / "runs" / ".cache").glob("*/*/*"):
        if not path.parent.name.startswith("."):
            yield path
    if (run / "dataset.json").is_file():
        yield from (run / "dataset.json", run / "floors.json")
    for trial in run.glob("trials/*"):
        if _is_done(trial):
            yield from (path for path in trial.rglob("*") if path.is_file() and path.name != ".lock")
            continue
        yield from trial.glob("adapter/*")
        yield from trial.glob("train.json")
        for clip in trial.glob("clips/*/*.wav"):
            yield clip
            yield trial / "codes" / clip.parent.name / f"{clip.stem}.npy"


def _is_done(trial: Path) -> bool:
    try:
        return json.loads((trial / "state.json").read_text(encoding="utf-8"))["state"] == "done"
    except FileNotFoundError:
        return False


def snapshot(place: Path) -> dict[str, tuple[int, int]]:
    """Every finished file with what changes when it is written again."""
    found: dict[str, tuple[int, int]] = {}
    for path in list_finished(place):
        stat = path.stat()
        found[path.relative_to(place).as_posix()] = (stat.st_ino, stat.st_mtime_ns)
    return found


class Witness:
    """Remembers every finished file that it ever saw."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.seen: dict[str, tuple[int, int]] = {}
        self.repeated: list[str] = []

    def look(self) -> None:
        """Look again."""
        now = snapshot(self.place)
        self.repeated += [name for name, mark in self.seen.items() if now.get(name) != mark]
        self.seen |= now


def torment(
    plan: ExperimentPlan, witness: Witness, n_kills: int, n_files: int, chance: random.Random
) -> dict[str, Any]:
    """Kill lives at random moments, spread over all `n_files` that there are to write, then let one live."""
    place = witness.place
    n_killed = 0
    while n_killed < n_kills:
        # from what is left, so that a late moment of one life does not take those of the others
        per_life = (n_files - count_files(place)) * SPREAD_FRAC / (n_kills - n_killed + 1)
        moment = Moment(round(chance.uniform(0.0, 2.0 * per_life)), chance.uniform(0.0, MAX_DELAY_S))
        code = fork_life(plan, place, moment)
        witness.look()
        if code is not None:
            break
        n_killed += 1
    code = fork_life(plan, place, None)
    witness.look()
    return {"n_killed": n_killed, "code": code, "repeated": witness.repeated, "n_finished": len(witness.seen)}


def without_times(value: Any) -> Any:
    """A result without what differs between two equal runs: durations, memory, the machine."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def list_files(place: Path) -> set[str]:
    """Every file but logs and the players of the report, which are found by what they hold."""
    return {
        path.relative_to(place).as_posix()
        for path in place.rglob("*")
        if path.is_file() and path.name != "log.txt" and ".players" not in path.parts
    }


def compare(one: Path, other: Path) -> list[str]:
    """In words, how two runs differ in anything but durations."""
    files = list_files(one)
    found = [f"only in one of them: {name}" for name in sorted(files ^ list_files(other))]
    for name in sorted(files & list_files(other)):
        path = Path(name)
        pair = [place / name for place in (one, other)]
        if path.suffix in {".wav", ".npy", ".npz", ".safetensors"} or path.name == "results.csv":
            same = pair[0].read_bytes() == pair[1].read_bytes()
        elif path.name == TrialFolder.cache_uses:  # what was used, in an order that depends on who came first
            same = len({frozenset(file.read_text(encoding="utf-8").split()) for file in pair}) == 1
        elif path.name in {
            "results.json",
            "scores.json",
            "guards.json",
            "contrasts.json",
            "floors.json",
            "train.json",
        }:
            first, second = (without_times(json.loads(file.read_text(encoding="utf-8"))) for file in pair)
            same = first == second
        else:
            continue
        if not same:
            found.append(f"differs: {name}")
    return found


def main() -> None:
    """Run the experiment undisturbed and tormented, and print how they compare."""
    root, n_kills, n_ray_lives, n_clips, n_variants = Path(sys.argv[1]), *map(int, sys.argv[2:6])
    chance = random.Random(0)
    plan = plan_chaos(root, n_clips=n_clips, n_variants=n_variants)
    witness = Witness(root / "tormented")
    n_killed = 0
    if n_ray_lives:
        n_killed = torment_with_ray(root, witness.place, witness, n_ray_lives, chance, n_clips, n_variants)
    began_s = time.monotonic()
    preload(plan)
    undisturbed = fork_life(plan, root / "undisturbed", None)
    seen = torment(plan, witness, n_kills, count_files(root / "undisturbed"), chance)
    seen["n_killed"] += n_killed
    seen |= {
        "undisturbed": undisturbed,
        "total_s": time.monotonic() - began_s,
        "differences": compare(root / "undisturbed", witness.place),
    }
    print(json.dumps(seen))


def main_of_ray_life() -> None:
    """One driver that runs trials through Ray."""
    root, place, n_clips, n_variants = Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:6])
    try:
        sys.exit(live(plan_chaos(root, n_clips=n_clips, n_variants=n_variants), place, "ray"))
    except InterruptedRunError as error:
        sys.exit(error.exit_code)


if __name__ == "__main__":
    if sys.argv[1] == "ray-life":
        main_of_ray_life()
    else:
        main()
