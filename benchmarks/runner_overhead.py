"""What the runner itself costs: Ray per trial and in all, a local trial, and a fully cached re-run.

    python benchmarks/runner_overhead.py --trials 8 --repeats 3

Trials do nothing here, so what is left is starting, locking, writing states and watching.  The cached
re-run is `lora-bench run` on a finished experiment, as a process of its own from start to end; it must not
import ray or torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from lora_bench.models.random_model import TINY, save_random_musicgen
from lora_bench.plan import TrialPlan, plan_experiment
from lora_bench.progress import Progress, SilentProgress
from lora_bench.runner import run_trials
from lora_bench.runner.state import read_state
from lora_bench.spec import ExperimentSpec
from lora_bench.store import Store


def do_nothing(trial: TrialPlan, folder: Path, store: Store, progress: Progress) -> dict[str, Any]:  # noqa: ARG001
    return {}


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


def time_cached_run(repeats: int) -> list[float]:
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
        times: list[float] = []
        for _ in range(repeats + 1):
            began_s = time.perf_counter()
            subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began_s)
        return times[1:]  # the first one did the work


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=8, help="trials of the longer series")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"n_cpus": os.cpu_count(), "load_before": os.getloadavg()[0]}
    for executor in ("local",) if arguments.no_ray else ("local", "ray"):
        one = [time_trials(1, executor) for _ in range(arguments.repeats)]
        many = [time_trials(arguments.trials, executor) for _ in range(arguments.repeats)]
        found[executor] = {
            "one_trial_s": statistics.median(one),
            f"{arguments.trials}_trials_s": statistics.median(many),
            "per_further_trial_s": (statistics.median(many) - statistics.median(one))
            / (arguments.trials - 1),
        }
    cached = time_cached_run(arguments.repeats)
    found["cached_rerun"] = {"median_s": statistics.median(cached), "best_s": min(cached), "goal_s": 2.0}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
