"""Benchmarks of what LoRA fine-tuning does to a music generator.

    from lora_bench import load_spec, plan_experiment, run_experiment

    plan = plan_experiment(load_spec("quickstart"))
    outcome = run_experiment(plan, runs_dir="runs", reports_dir="reports")

The functions are in `lora_bench.api`, which is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_bench.api import load_results, load_spec, plan_experiment, run_experiment, score_folders

__version__ = version("lora-bench")
__all__ = ["__version__", "load_results", "load_spec", "plan_experiment", "run_experiment", "score_folders"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("lora_bench.api"), name)
    raise AttributeError(f"module 'lora_bench' has no attribute {name!r}")
