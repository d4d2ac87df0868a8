"""What a search tried of what it could have tried, as results tell it.

A candidate counts as tried as soon as it was begun, whatever became of it.  The others are `untried`: they have no
cells, neither scored nor missing.  Until as many were tried as the spec says, the run as a whole is incomplete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

UNTRIED = "untried"


@dataclass(frozen=True)
class SearchTally:
    """How far a search is.

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
        """Candidates that were begun."""
        return self.n_candidates - len(self.unbegun)

    @property
    def is_over(self) -> bool:
        """Whether no further candidate will be chosen."""
        return self.n_tried >= self.n_trials

    @property
    def reason(self) -> str:
        """Why a candidate was not begun."""
        if self.is_over:
            return f"not tried: it is not among the {self.n_tried} that the search chose"
        return f"not chosen so far: the search has tried {self.n_tried} of {self.n_trials}"


def tally_search(run_folder: Path, candidates: Sequence[str], n_trials: int) -> SearchTally:
    """How far a search is, by its candidates' files."""
    unbegun = {i for i in candidates if not (run_folder / "trials" / i / "state.json").is_file()}
    return SearchTally(n_trials, len(candidates), frozenset(unbegun))


def tally_planned(run_folder: Path, plan: Json) -> SearchTally | None:
    """The same for what `plan.json` holds; None without a search."""
    spec: Json | None = ((plan.get("spec") or {}).get("search") or {}).get("optuna")
    if not spec:
        return None
    candidates = [str(trial["id"]) for trial in plan["trials"] if trial.get("search")]
    return tally_search(run_folder, candidates, int(spec["n_trials"]))


def settle_search(trials: Sequence[Json], plan: Json, run_folder: Path) -> Json | None:
    """Tell apart what a search did not try from what is missing.

    Args:
        trials: gathered trials; those that were not begun become `untried` and lose their cells.
        plan: content of `plan.json`.
        run_folder: folder of the run.

    Returns:
        `n_trials` (asked for), `n_candidates`, `n_tried`, `objective`, `seed`; None without a search.
    """
    tally = tally_planned(run_folder, plan)
    if tally is None:
        return None
    for trial in trials:
        if trial["id"] in tally.unbegun:
            trial |= {"state": UNTRIED, "reason": tally.reason, "unscored": []}
    spec: Json = plan["spec"]["search"]["optuna"]
    counts = {"n_trials": tally.n_trials, "n_candidates": tally.n_candidates, "n_tried": tally.n_tried}
    return {**counts, "objective": str(spec["objective"]), "seed": spec["seed"]}


def describe_rest(search: Json | None) -> str:
    """What a search still has to do, in words; empty if it is over, or there is none."""
    if search is None or search["n_tried"] >= search["n_trials"]:
        return ""
    return f"the search has tried {search['n_tried']} of {search['n_trials']} trials"


def describe_search(search: Json) -> str:
    """What a reader of tables has to know of a search."""
    objective = "held-out loss" if search["objective"] == "held_out_loss" else search["objective"]
    return (
        f"A search (Optuna, by {objective}) tried {search['n_tried']} of {search['n_candidates']} combinations, more "
        "of those that looked good: effects of axes and differences are those of a chosen sample, not of a balanced "
        "one, and the best of many tries looks better than it is; train it again with other seeds to confirm it."
    )
