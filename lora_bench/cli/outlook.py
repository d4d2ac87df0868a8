"""The outlook of a plan: why each trial runs, what it takes, and the sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_bench.comparison.looks import plan_rest
from lora_bench.forecast import Forecaster, History, Prediction, find_device, read_history
from lora_bench.forecast.cards import Card
from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.results.search_tally import tally_plan
from lora_bench.runner.freshness import Reason, RunHistory


@dataclass(frozen=True)
class Outlook:
    """A trial with its reason and its prediction."""

    trial: TrialPlan
    reason: Reason
    prediction: Prediction
    is_chosen_later: bool = False
    """Whether a search has yet to choose it."""

    @property
    def is_open(self) -> bool:
        """Return whether it will or may run."""
        return self.reason.kind not in {"cached", "untried"}


def foresee_trials(plan: ExperimentPlan, runs_dir: Path, card: Card | None = None) -> list[Outlook]:
    """Return every trial of a plan with its reason and its prediction; finished trials take no time.

    With a card, predictions are on paper, from its data sheet alone.
    """
    run_folder = runs_dir / plan.name
    plan = plan_rest(plan, run_folder)
    history, tally = RunHistory(run_folder), tally_plan(run_folder, plan)
    records = read_history(runs_dir) if card is None else History(())
    n_gpus = plan.spec.resources.gpu
    forecaster = Forecaster(records, device=find_device(n_gpus, records), card=card, n_gpus=n_gpus)
    outlooks: list[Outlook] = []
    run = RunFolder(run_folder)
    trained = {  # trainings that others share, and that are done or charged already
        trial.training: trial.id
        for trial in plan.trials
        if trial.training is not None and run.trial(trial.id).is_trained
    }
    for trial in plan.trials:
        reason = history.explain(trial, tally)
        by_another = trained.get(trial.training, trial.id) != trial.id if trial.training else False
        prediction = forecaster.predict(trial, run.trial(trial.id).path, is_trained_by_another=by_another)
        if reason.kind == "cached":
            prediction = replace(prediction, time_s=0.0, time_basis="none")
        later = tally is not None and not tally.is_over and trial.id in tally.unbegun
        if trial.training is not None and not later and reason.kind != "untried":
            trained.setdefault(trial.training, trial.id)
        outlooks.append(Outlook(trial, reason, prediction, is_chosen_later=later))
    return outlooks


def count_choices(plan: ExperimentPlan, outlooks: Sequence[Outlook]) -> int:
    """Return how many trials a search still has to choose."""
    optuna = plan.spec.search.optuna
    if optuna is None:
        return 0
    n_tried = sum(
        outlook.trial.search is not None and not outlook.is_chosen_later and outlook.reason.kind != "untried"
        for outlook in outlooks
    )
    return max(0, optuna.n_trials - n_tried)


@dataclass(frozen=True)
class Sums:
    """Time, disk and peak memory of the trials that are still to run; None if any is unknown."""

    n_to_run: int
    time_s: float | None
    disk_bytes: float | None
    cache_bytes: int | None
    """Part of `disk_bytes`."""
    memory_gib: float | None
    has_external: bool = False
    """Whether other systems are among them, whose time is not in the sum."""


def sum_up(outlooks: Sequence[Outlook], n_choices: int, cache_bytes: int | None) -> Sums:
    """Add up the predictions; the time of other systems, which is not known, is left out.

    Of the trials that a search chooses from, the `n_choices` largest count, so the sums are upper bounds.
    """
    fixed = [item.prediction for item in outlooks if item.is_open and not item.is_chosen_later]
    offered = [item.prediction for item in outlooks if item.is_open and item.is_chosen_later]
    known_s = [
        item.prediction.time_s
        for item in outlooks
        if item.is_open and not item.is_chosen_later and item.trial.external is None
    ]
    memories = [
        item.prediction.peak_gib
        for item in outlooks
        if item.is_open
        and (
            item.prediction.stages is not None
            or (item.trial.train is not None and not item.prediction.is_trained)
        )
    ]
    disk_bytes = _add([item.disk_bytes for item in fixed], [item.disk_bytes for item in offered], n_choices)
    known = [value for value in memories if value is not None]
    return Sums(
        n_to_run=len(fixed) + min(n_choices, len(offered)),
        time_s=_add(known_s, [item.time_s for item in offered], n_choices),
        disk_bytes=None if disk_bytes is None or cache_bytes is None else disk_bytes + cache_bytes,
        cache_bytes=cache_bytes,
        memory_gib=max(known) if known and len(known) == len(memories) else None,
        has_external=any(item.is_open and item.trial.external is not None for item in outlooks),
    )


def _add(
    fixed: Sequence[float | None], offered: Sequence[float | None], n_choices: int
) -> int | float | None:
    """Return the sum of `fixed` and of the largest `n_choices` of `offered`; None if any is unknown."""
    known = [value for value in fixed if value is not None]
    others = sorted((value for value in offered if value is not None), reverse=True)
    if len(known) + len(others) < len(fixed) + len(offered):
        return None
    chosen = [*known, *others[:n_choices]]
    return sum(chosen) if all(isinstance(value, int) for value in chosen) else math.fsum(chosen)
