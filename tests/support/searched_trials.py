"""A grid whose trials take no time and have the objective that a table gives them; importable by Ray's workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lora_bench.artifacts import LossPoint
from lora_bench.errors import StoppedEarlyError
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.progress import Progress
from lora_bench.spec import ExperimentSpec
from lora_bench.store import Store, write_json

RANKS = (1, 2, 4, 8, 16, 32)
TARGETS = ("attention", "ffn", "all")


def loss_of(rank: int, targets: str) -> float:
    """Lowest at rank 8 on attention; no two alike."""
    return abs(RANKS.index(rank) - 3) + 0.3 * TARGETS.index(targets) + 0.01 * rank


def plan_grid(n_trials: int | None = 14, **fields: Any) -> ExperimentPlan:
    """18 combinations of which so many are tried, and the zero-shot trial; None tries all."""
    optuna = fields.pop("optuna", {})
    grid = {"axes": {"lora.rank": list(RANKS), "lora.targets": list(TARGETS)}, **fields.pop("grid", {})}
    search = {} if n_trials is None else {"optuna": {"n_trials": n_trials, **optuna}}
    spec = {
        "schema": 1,
        "name": "t",
        "dataset": {"builtin": "chiptune"},
        "prompts": ["a", "b"],
        "metrics": ["mfcc20"],
        "trials": {"grid": grid},
        "search": search,
    }
    return plan_experiment(ExperimentSpec.model_validate({**spec, **fields}))


def execute_searched(trial: TrialPlan, folder: Path, store: Store, progress: Progress) -> dict[str, Any]:
    """Write what a finished trial leaves; every call is a line in `order.txt` beside the trials' folders."""
    with (folder.parents[1] / "order.txt").open("a", encoding="utf-8") as stream:
        stream.write(f"{trial.name}\n")
    word = os.environ.get(f"DO_{trial.name.replace('-', '_')}")
    if word == "fail":
        raise ValueError("broken on purpose")
    if word == "stop":
        raise StoppedEarlyError("behind")
    if word == "interrupt":
        raise KeyboardInterrupt
    if word == "die":
        os.kill(os.getpid(), 9)
    if trial.lora is not None:
        loss = loss_of(trial.lora.rank, str(trial.lora.targets))
        curve = [LossPoint(step, None, value, 1e-4, 0.5) for step, value in enumerate((9.0, loss))]
        write_json(folder / "train.json", {"curve": curve})
    cells = [{"metric": "mfcc20", "prompt": prompt, "value": 3.0} for prompt in (*trial.prompts, None)]
    write_json(folder / "scores.json", {"scores": cells, "unscored": []})
    write_json(folder / "guards.json", {})
    return {}


def read_order(run_folder: Path) -> list[str]:
    """Names of trials as they were begun, zero-shot left out."""
    lines = (run_folder / "order.txt").read_text(encoding="utf-8").splitlines()
    return [name for name in lines if name != "zero-shot"]
