"""The progress of a search: how many of its candidates were tried, and which were not.

A candidate counts as tried as soon as it was begun, even if it failed.  The others are `untried`: they have no
cells, neither scored nor missing.  Until as many were tried as the spec says, the run as a whole is incomplete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.results.run_files import RunPlan
from lora_bench.results.run_records import SearchSummary, TrialResult
from lora_bench.results.settings import read_section

UNTRIED = "untried"


@dataclass(frozen=True)
class SearchTally:
    """Progress of a search.

    Attributes:
        n_trials: how many it tries.
        n_candidates: how many it chooses from.
        unbegun: candidates that were not begun, by id.
    """

    n_trials: int
    n_candidates: int
    unbegun: frozenset[str]

    @property
    def n_tried(self) -> int:
        """Number of candidates that were begun."""
        return self.n_candidates - len(self.unbegun)

    @property
    def is_over(self) -> bool:
        """Return whether no further candidate will be chosen."""
        return self.n_tried >= self.n_trials

    @property
    def reason(self) -> str:
        """Return why a candidate was not begun."""
        if self.is_over:
            return f"not tried: it is not among the {self.n_tried} that the search chose"
        return f"not chosen so far: the search has tried {self.n_tried} of {self.n_trials}"


def tally_search(run_folder: Path, candidates: Sequence[str], n_trials: int) -> SearchTally:
    """Count the candidates that were begun, by their files."""
    unbegun = {i for i in candidates if not (RunFolder(run_folder).trial(i).state).is_file()}
    return SearchTally(n_trials, len(candidates), frozenset(unbegun))


def tally_plan(run_folder: Path, plan: ExperimentPlan) -> SearchTally | None:
    """Count the candidates of an experiment that were begun; None without a search."""
    optuna = plan.spec.search.optuna
    candidates = [trial.id for trial in plan.trials if trial.search is not None]
    return None if optuna is None else tally_search(run_folder, candidates, optuna.n_trials)


def tally_planned(run_folder: Path, plan: RunPlan) -> SearchTally | None:
    """Count the candidates of a plan that were begun; None without a search."""
    optuna = read_section(plan.spec, "search", "optuna")
    n_trials = optuna.get("n_trials")
    if not isinstance(n_trials, int):
        return None
    candidates = [trial.id for trial in plan.trials if trial.search]
    return tally_search(run_folder, candidates, n_trials)


def settle_search(
    trials: Sequence[TrialResult], plan: RunPlan, run_folder: Path
) -> tuple[list[TrialResult], SearchSummary | None]:
    """Distinguish what a search did not try from what is missing.

    Returns:
        The trials, where those that were not begun are `untried` and have no cells; and the progress of the
        search, None without one.
    """
    tally = tally_planned(run_folder, plan)
    if tally is None:
        return list(trials), None
    left_out = {"state": UNTRIED, "reason": tally.reason, "unscored": ()}
    settled = [trial.model_copy(update=left_out) if trial.id in tally.unbegun else trial for trial in trials]
    optuna = read_section(plan.spec, "search", "optuna")
    counts = {"n_trials": tally.n_trials, "n_candidates": tally.n_candidates, "n_tried": tally.n_tried}
    stated = {name: optuna[name] for name in ("objective", "seed") if name in optuna}
    sides = [
        read_section(trial.dataset, "split").get("selection_frac") for trial in plan.trials if trial.search
    ]
    side = {"side": "selection"} if sides and all(sides) else {}
    return settled, SearchSummary.model_validate(counts | stated | side)


def describe_rest(search: SearchSummary | None) -> str:
    """Say what a search still has to do; empty if it is over, or there is none."""
    if search is None or search.n_tried >= search.n_trials:
        return ""
    return f"the search has tried {search.n_tried} of {search.n_trials} trials"


def describe_search(search: SearchSummary) -> str:
    """Say what a reader of tables has to know of a search."""
    objective = "held-out loss" if search.objective == "held_out_loss" else search.objective
    is_sealed = search.side == "selection"
    where = " on the selection tracks" if is_sealed else ""
    caveat = (
        "The scores refer to tracks that the search did not see, but to the same trainings: train the best again with "
        "other seeds to confirm it."
        if is_sealed
        else "The best of many tries looks better than it is; train it again with other seeds to confirm it."
    )
    return (
        f"A search (Optuna, by {objective}{where}) tried {search.n_tried} of {search.n_candidates} combinations, more "
        "of those that looked good: effects of axes and differences are those of a chosen sample, not of a balanced "
        f"one. {caveat}"
    )
