"""Cost of the runner itself: Ray per trial and in all, a local trial, and a fully cached re-run.

    python benchmarks/runner_overhead.py --out benchmarks/results/runner_overhead.md

Trials do nothing here, so what is left is starting, locking, writing states and watching.  The cached
re-run is `lora-bench run` on a finished experiment, as a process of its own from start to end; it must not
import ray or torch.  Processor time stands next to wall time, because a busy machine stretches wall time.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import yaml
from idle_trial import do_nothing

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.planning.plan import plan_experiment
from lora_bench.progress import SilentProgress
from lora_bench.results.trial_files import read_state
from lora_bench.runner.executor import run_trials
from lora_bench.spec import ExperimentSpec

CACHED_GOAL_S = 2.0


class Cost(NamedTuple):
    """Of one process, from start to end."""

    wall_s: float
    cpu_s: float


def make_spec(n_trials: int, **fields: object) -> dict[str, Any]:
    variants = [{"name": f"t{number}", "lora": {"rank": number + 1}} for number in range(n_trials)]
    return {
        "schema": 1,
        "name": "overhead",
        "dataset": {"builtin": "chiptune"},
        "prompts": ["noise"],
        "trials": {"variants": variants},
        **fields,
    }


def time_trials(n_trials: int, executor: str) -> float:
    """Seconds for so many trials that do nothing."""
    plan = plan_experiment(ExperimentSpec.model_validate(make_spec(n_trials)))
    trials = plan.trials[1:]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        began_s = time.perf_counter()
        run_trials(
            trials,
            place / "run",
            place / "cache",
            SilentProgress(),
            executor=executor,
            resources=plan.spec.resources,
            execute=do_nothing,
        )
        took_s = time.perf_counter() - began_s
        states = [read_state(place / "run" / "trials" / trial.id).get("state") for trial in trials]
        if set(states) != {"done"}:
            raise SystemExit(f"trials ended as {states}, so the time means nothing")
    return took_s


def time_cached_run(repeats: int) -> list[Cost]:
    """Seconds of whole processes that find everything done."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        save_random_musicgen(place / "model", TINY)
        (place / "music").mkdir()
        for track in range(5):
            noise = np.random.default_rng(track).normal(0, 0.1, TINY.sample_rate_hz * 3)
            soundfile.write(place / "music" / f"{track}.wav", noise, TINY.sample_rate_hz)
        spec = make_spec(
            2,
            model={"id": "./model"},
            dataset={
                "path": "music",
                "captions": {"text": "noise"},
                "clip_s": 1,
                "split": {"eval_frac": 0.4},
            },
            generation={"n_clips": 4, "clip_s": 0.5},
            metrics=["encodec"],
            defaults={"train": {"steps": 2, "batch_size": 2}},
        )
        (place / "overhead.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        command = [sys.executable, "-m", "lora_bench", "run", "overhead.yaml", "--quiet"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        times: list[Cost] = []
        for _ in range(repeats + 1):
            cpu_s, began_s = read_cpu_s(), time.perf_counter()
            subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
            times.append(Cost(time.perf_counter() - began_s, read_cpu_s() - cpu_s))
        modules = subprocess.run(
            [sys.executable, "-X", "importtime", *command[1:]],
            cwd=place, env=environment, check=True, capture_output=True, text=True,
        ).stderr  # fmt: skip
        imported = {line.rpartition("|")[2].strip() for line in modules.splitlines()}
        if imported & {"ray", "torch", "transformers"}:
            raise SystemExit("the cached re-run imports ray, torch or transformers")
        return times[1:]  # the first one did the work


def read_cpu_s() -> float:
    """Processor time of all processes that were started here and have ended."""
    used = os.times()
    return used.children_user + used.children_system


def measure(n_trials: int, repeats: int, *, with_ray: bool) -> dict[str, list[float]]:
    """Wall times of every row of the table."""
    found: dict[str, list[float]] = {}
    for executor in ("local", "ray") if with_ray else ("local",):
        one = [time_trials(1, executor) for _ in range(repeats)]
        many = [time_trials(n_trials, executor) for _ in range(repeats)]
        further_s = (statistics.median(many) - statistics.median(one)) / (n_trials - 1)
        found |= {
            f"{executor}: 1 trial in all": one,
            f"{executor}: {n_trials} trials in all": many,
            f"{executor}: each further trial": [further_s],
        }
    return found


def write_table(found: dict[str, list[float]], cached: list[Cost], arguments: argparse.Namespace) -> str:
    """The results as a page."""
    rows = [
        f"| {name} | {statistics.median(times):.2f} | {min(times):.2f} | |" for name, times in found.items()
    ]
    wall_s, cpu_s = [cost.wall_s for cost in cached], [cost.cpu_s for cost in cached]
    rows.append(
        f"| fully cached `lora-bench run` (goal {CACHED_GOAL_S:g} s) | {statistics.median(wall_s):.2f} | "
        f"{min(wall_s):.2f} | {statistics.median(cpu_s):.2f} |"
    )
    command = (
        f"python benchmarks/runner_overhead.py --trials {arguments.trials} --repeats {arguments.repeats}"
    )
    return "\n".join(
        [
            "# What the runner costs",
            "",
            f"Written by `{command}`: seconds for trials that do nothing.",
            "`ray` starts a cluster on this machine and ends it.",
            "",
            "| | median s | least s | median s of processor time |",
            "|---|---:|---:|---:|",
            *rows,
            "",
            f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
            f"ray {version('ray')}; load {arguments.load:.1f} before, {os.getloadavg()[0]:.1f} after"
            + ("; Python's byte code was not cached." if sys.dont_write_bytecode else "."),
            "",
        ]
    )


def main() -> int:
    """Measure, print, and write where asked to; 1 if a cached re-run takes more processor time than its goal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=8, help="trials of the longer series")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out")
    parser.add_argument("--out", type=Path, help="file for the table")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    arguments.load = os.getloadavg()[0]
    cached = time_cached_run(arguments.repeats)
    page = write_table(
        measure(arguments.trials, arguments.repeats, with_ray=not arguments.no_ray), cached, arguments
    )
    print(page)
    if arguments.out is not None:
        arguments.out.write_text(page, encoding="utf-8")
    return int(min(cost.cpu_s for cost in cached) > CACHED_GOAL_S)


if __name__ == "__main__":
    sys.exit(main())
