"""`lora-bench plan`: every trial and why it would run."""

from __future__ import annotations

import argparse
import json

from lora_bench.commands.reasons import RunHistory
from lora_bench.commands.tables import format_table
from lora_bench.commands.validate import describe_plan
from lora_bench.errors import EXIT_OK
from lora_bench.plan import MANY_TRIALS, TrialPlan, plan_file
from lora_bench.spec import load_spec
from lora_bench.store import to_jsonable

SCHEMA = 1


def execute(arguments: argparse.Namespace) -> int:
    """Print the plan as a table or as JSON."""
    plan = plan_file(load_spec(arguments.spec, arguments.overrides))
    run_folder = (arguments.runs_dir / plan.name).absolute()
    history = RunHistory(run_folder)
    reasons = [history.explain(trial) for trial in plan.trials]
    if arguments.json:
        trials = [
            {**to_jsonable(trial), "reason": reason.kind, "reason_text": reason.text}
            for trial, reason in zip(plan.trials, reasons, strict=True)
        ]
        document = {
            "schema": SCHEMA,
            "name": plan.name,
            "run_folder": run_folder.as_posix(),
            "baseline": plan.baseline,
            "overrides": list(plan.overrides),
            "needs_yes": len(trials) > MANY_TRIALS,
            "trials": trials,
        }
        print(json.dumps(document, indent=1, ensure_ascii=False))
        return EXIT_OK
    rows = [
        (
            trial.name,
            *_describe_lora(trial),
            "-" if trial.train_seed is None else str(trial.train_seed),
            reason.text,
        )
        for trial, reason in zip(plan.trials, reasons, strict=True)
    ]
    print(
        format_table(
            ("trial", "rank", "alpha", "targets", "steps", "seed", "why it runs"), rows, right=(1, 2, 4, 5)
        )
    )
    merged = {trial.configuration: trial.aliases for trial in plan.trials if trial.aliases}
    for name, aliases in merged.items():
        print(f"{name} is also {', '.join(aliases)} (equal settings are one trial)")
    n_to_run = sum(reason.kind != "cached" for reason in reasons)
    print(
        f"{plan.name}: {describe_plan(plan)}; {n_to_run} to run, {len(rows) - n_to_run} done; in {run_folder}"
    )
    if len(rows) > MANY_TRIALS:
        print(f"more than {MANY_TRIALS} trials: `lora-bench run` wants --yes")
    return EXIT_OK


def _describe_lora(trial: TrialPlan) -> tuple[str, str, str, str]:
    if trial.lora is None or trial.train is None:
        return ("-", "-", "-", "-")
    targets = trial.lora.targets if isinstance(trial.lora.targets, str) else " ".join(trial.lora.targets)
    return (str(trial.lora.rank), f"{trial.lora.resolved_alpha:g}", targets, str(trial.train.steps))
