"""A finished run of a tiny random model: real adapters, invented scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.artifacts import LossPoint, Score, TrainResult
from lora_bench.models import load_model
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.store import write_json

PROMPT = "invented march"
VALUES = {"zero-shot": 0.9, "plain": 0.4, "dora": 0.5}


@dataclass(frozen=True)
class TinyRun:
    """Where the run lies, and its plan."""

    folder: Path
    plan: ExperimentPlan

    def trial(self, name: str) -> TrialPlan:
        return next(trial for trial in self.plan.trials if trial.name == name)

    def adapter(self, name: str) -> Path:
        return self.folder / "trials" / self.trial(name).id / "adapter"


def build_tiny_run(place: Path) -> TinyRun:
    """Write the run below `place`."""
    model_folder = save_random_musicgen(place / "tiny-musicgen", TINY)
    spec = ExperimentSpec.model_validate(
        {
            "schema": 1,
            "name": "tiny",
            "model": {"id": str(model_folder)},
            "dataset": {"path": place / "music"},
            "prompts": [PROMPT, "invented waltz"],
            "generation": {"n_clips": 2, "clip_s": 0.5},
            "metrics": ["mfcc20", "clap_score"],
            "trials": {
                "variants": [
                    {"name": "plain", "lora": {"rank": 4, "targets": "all"}},
                    {"name": "dora", "lora": {"rank": 2, "targets": "attention", "use_dora": True}},
                    {"name": "failed", "lora": {"rank": 8}},
                ]
            },
        }
    )
    plan = plan_experiment(spec)
    run = TinyRun(place / "runs" / "tiny", plan)
    write_json(run.folder / "plan.json", plan)
    model = load_model(plan.trials[0].model, device="cpu")
    write_json(
        run.folder / "dataset.json", {"model": model.info, "manifest": {"name": "music", "key": "c0ffee"}}
    )
    for trial in plan.trials:
        folder = run.folder / "trials" / trial.id
        if trial.name == "failed":
            write_json(folder / "state.json", {"state": "failed", "stage": "train", "reason": "loss is NaN"})
            continue
        write_json(folder / "state.json", {"state": "done"})
        if trial.lora is not None:
            injection = model.inject_lora(trial.lora, seed=0)
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for parameter in model.adapter_parameters().values():
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
            curve = (LossPoint(0, None, 4.0, 1e-4, 0.0), LossPoint(9, 3.0, 3.5, 1e-4, 1.0))
            result = TrainResult(
                folder / "adapter", injection.trainable_params, injection.matched_modules, curve, 1.0, 0.1
            )
            model.save_adapter(folder / "adapter", {"train": trial.train, "train_seed": 0, "result": result})
            write_json(folder / "train.json", result)
        value = VALUES[trial.name]
        scores = [
            Score(
                "mfcc20",
                prompt,
                value,
                2,
                4,
                20,
                se=0.01,
                ci_low=value - 0.02,
                ci_high=value + 0.02,
                corrected=value,
            )
            for prompt in (*trial.prompts, None)
        ]
        scores += [Score("clap_score", None, 1.0 - value if trial.name == "plain" else 0.9, 2, 4, 20)]
        write_json(folder / "scores.json", {"scores": scores, "unscored": []})
    model.remove_adapter()
    return run
