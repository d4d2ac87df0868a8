"""The first step of an experiment with `tune`: each configuration finds its values, before anything is scored.

The attempts are trainings like others.  They are judged by their last held-out loss, or by clips that are compared with
the selection tracks; the tracks that score stay sealed.  What was chosen is written to `tuning.json` and
frozen: it stands as long as spec and recordings ask for the same attempts, also if a failed one could be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from lora_bench.errors import TrainingError
from lora_bench.forecast.budgets import fit_budget
from lora_bench.metrics import parse_metric
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.progress import Progress
from lora_bench.results.reading import read_part, write_record
from lora_bench.results.run_files import ScoresFile
from lora_bench.results.run_records import TrialState, TunedConfiguration, Tuning, TuningAttempt
from lora_bench.results.trial_files import read_if_valid, read_state
from lora_bench.runner.freshness import inputs_key
from lora_bench.runner.search.trial_search import read_objective
from lora_bench.spec.grid import show_value
from lora_bench.spec.search import HELD_OUT_LOSS
from lora_bench.store import hash_json

RunMissing = Callable[[ExperimentPlan], object]


def plan_step(plan: ExperimentPlan, run_folder: Path) -> ExperimentPlan:
    """Return the plan of the step that a run is at: the attempts, or all trials with the values that were chosen."""
    if not plan.is_tuning:
        return plan
    found = _read_frozen(plan, run_folder)
    return _plan_chosen(plan, found) if all(item.chosen is not None for item in found) else plan


def plan_later(plan: ExperimentPlan) -> ExperimentPlan:
    """Return the plan of the comparison as if the first values had been chosen, for forecasts."""
    first = {t.tuning.configuration: t.tuning.values for t in reversed(plan.trials) if t.tuning is not None}
    return plan_experiment(plan.spec, fit_budget, first)


def tune_experiment(
    plan: ExperimentPlan, run_folder: Path, progress: Progress, run_missing: RunMissing
) -> ExperimentPlan:
    """Run the attempts that are missing, freeze what was chosen, and return the plan of the comparison.

    Args:
        plan: the attempts.
        run_folder: gets `tuning.json`.
        progress: told what was chosen.
        run_missing: runs the unfinished trials of a plan.

    Raises:
        StoreError: the disk is full.
    """
    frozen = {item.configuration for item in _read_frozen(plan, run_folder) if item.chosen is not None}
    attempts = tuple(t for t in plan.trials if t.tuning is not None and t.tuning.configuration not in frozen)
    if attempts:
        run_missing(plan.model_copy(update={"trials": attempts}))
    found = _read_frozen(plan, run_folder)
    metric = next((trial.tuning.metric for trial in plan.trials if trial.tuning is not None), None)
    settled = tuple(item if item.chosen is not None else choose(item, metric) for item in found)
    seed = next((trial.train_seed for trial in plan.trials if trial.train_seed is not None), 0)
    record = Tuning(train_seed=seed, configurations=settled, metric=metric)
    write_record(RunFolder(run_folder).tuning, record)
    for item in settled if attempts else ():
        progress.log(describe_choice(item))
    return _plan_chosen(plan, settled)


def describe_choice(item: TunedConfiguration) -> str:
    """Return what was chosen for a configuration, from how many, and which attempts failed."""
    done = [attempt for attempt in item.attempts if attempt.value is not None]
    failed = [f"{show_values(each.values)} ({each.reason})" for each in item.attempts if each.value is None]
    lost = f"; failed: {'; '.join(failed)}" if failed else ""
    if item.chosen is None:
        return f"{item.configuration}: nothing was chosen{lost}"
    return f"{item.configuration}: {show_values(item.chosen)}, chosen from {len(done)}{lost}"


def show_values(values: Mapping[str, object]) -> str:
    """Return values as messages show them: `train.lr 0.0003`."""
    return ", ".join(f"{name} {show_value(value)}" for name, value in values.items())


def _read_frozen(plan: ExperimentPlan, run_folder: Path) -> list[TunedConfiguration]:
    """Return every configuration with its attempts; those of the same attempts as before keep what was chosen."""
    run = RunFolder(run_folder)
    written = read_part(run.tuning, Tuning, [])
    earlier = {item.configuration: item for item in (written.configurations if written is not None else ())}
    groups: dict[str, list[TrialPlan]] = {}
    for trial in plan.trials:
        if trial.tuning is not None:
            groups.setdefault(trial.tuning.configuration, []).append(trial)
    found: list[TunedConfiguration] = []
    for name, trials in groups.items():
        known = earlier.get(name)
        inputs = hash_json([inputs_key(trial) for trial in trials])
        if known is not None and known.inputs == inputs and known.chosen is not None:
            found.append(known)
            continue
        attempts = tuple(_read_attempt(trial, run) for trial in trials)
        found.append(TunedConfiguration(configuration=name, attempts=attempts, inputs=inputs))
    return found


def _read_attempt(trial: TrialPlan, run: RunFolder) -> TuningAttempt:
    """Return how an attempt ended, from its files."""
    folder = run.trial(trial.id).path
    record = read_state(folder)
    state, value = record.get("state", "unstarted"), None
    reason = record.get("reason")
    metric = None if trial.tuning is None else trial.tuning.metric
    if state == "done":
        value = read_objective(folder, metric or HELD_OUT_LOSS, trial.prompts)
        reason = None if value is not None else _explain_missing(folder, metric)
    return TuningAttempt.model_validate(
        {
            "trial": trial.id,
            "values": {} if trial.tuning is None else trial.tuning.values,
            "state": state if state in get_args(TrialState) else "missing",
            **({} if value is None else {"loss" if metric is None else "score": value}),
            **({} if reason is None else {"reason": reason}),
        }
    )


def _explain_missing(folder: Path, metric: str | None) -> str:
    """Return why an attempt that is done has nothing to be judged by."""
    if metric is None:
        return "its held-out loss is not finite"
    scores = read_if_valid(TrialFolder(folder).scores, ScoresFile)
    gaps = scores.selection.unscored if scores is not None and scores.selection is not None else ()
    return next((f"no score of {metric}: {gap.reason}" for gap in gaps), f"no finite score of {metric}")


def choose(item: TunedConfiguration, metric: str | None) -> TunedConfiguration:
    """Return the configuration with the best values, if every attempt came to its end."""
    if any(attempt.state not in {"done", "failed", "stopped"} for attempt in item.attempts):
        return item
    sign = 1.0 if metric is None or parse_metric(metric).lower_is_better else -1.0
    done = [(sign * each.value, place) for place, each in enumerate(item.attempts) if each.value is not None]
    best = item.attempts[min(done)[1]] if done else None
    return item if best is None else item.model_copy(update={"chosen": best.values})


def _plan_chosen(plan: ExperimentPlan, items: Sequence[TunedConfiguration]) -> ExperimentPlan:
    """Return the plan of the comparison, under the same source and overrides.

    Raises:
        TrainingError: there is nothing to compare, because every attempt failed.
    """
    chosen = {item.configuration: item.chosen for item in items if item.chosen is not None}
    if not chosen:
        raise TrainingError(
            f"tune: every attempt failed, so nothing is compared; {describe_choice(items[0])}"
        )
    found = plan_experiment(plan.spec, fit_budget, chosen)
    stated = {"source": plan.source, "overrides": plan.overrides, "override_effects": plan.override_effects}
    return found.model_copy(update=stated)
