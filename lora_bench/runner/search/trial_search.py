"""The choice of trials in a search: Optuna suggests them, and their files answer.

The space is a finite list of planned trials, each with its values on the axes.  A resumed search does not hand the
earlier results to Optuna in bulk.  It asks Optuna again from its seed, and answers from the files what is finished
already.  If trials ran one at a time, the resumed run therefore makes the same choices as an undisturbed one.  If
several ran in parallel, finished results that were not suggested again are passed to Optuna before a new trial starts.

A suggestion that brings nothing new (tried already, or a combination that the plan leaves out) does not count.
After `MAX_REPEATS` of them in a row, an untried trial is drawn at random from the search's seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from lora_bench.errors import UnscoredError
from lora_bench.metrics.prompt_tags import choose_prompts
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.results.run_files import ScoresFile, TrainFile
from lora_bench.results.trial_files import read_if_valid, read_state
from lora_bench.runner.jobs.job import TrialJob
from lora_bench.spec.search import HELD_OUT_LOSS, OptunaSpec

MAX_REPEATS = 25
BEGUN = "begun before"  # in place of a suggestion's number

Cell = Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """What became of a trial, as a search sees it.

    Attributes:
        state: `stopped` is given up early; `failed` is also a trial that is done and has no objective.
        value: the objective of a trial that is done.
    """

    state: Literal["done", "stopped", "failed"]
    value: float | None = None


@dataclass(frozen=True)
class SearchPlan:
    """What is searched, and what is known when a run begins.

    Attributes:
        spec: number of trials, objective, seed.
        higher_is_better: of the objective.
        cells: by trial id, where it stands; in the order of the plan.
        wanted: trials that are tried first.
        known: finished in earlier runs.
        begun: trials of earlier runs that failed or were interrupted; they are brought to an end in any case.
    """

    spec: OptunaSpec
    higher_is_better: bool
    cells: Mapping[str, tuple[Cell, ...]]
    wanted: tuple[str, ...] = ()
    known: Mapping[str, Outcome] = field(default_factory=dict)
    begun: tuple[str, ...] = ()

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Values of every axis that has two or more, in the order of the plan."""
        values: dict[str, dict[str, None]] = {}
        for cells in self.cells.values():
            for cell in cells:
                for axis, value in cell.items():
                    values.setdefault(axis, {})[value] = None
        return {axis: tuple(found) for axis, found in values.items() if len(found) > 1}

    @property
    def n_left(self) -> int:
        """Trials that are still to be chosen."""
        return max(0, self.spec.n_trials - len({*self.known, *self.begun}))


def plan_search(plan: ExperimentPlan, run_folder: Path, pending: Sequence[TrialPlan]) -> SearchPlan | None:
    """The search of an experiment, with what the files of earlier runs say; None if the spec asks for none.

    Args:
        plan: the experiment.
        run_folder: its run.
        pending: trials that are not finished.
    """
    spec = plan.spec.search.optuna
    if spec is None:
        return None
    from lora_bench.metrics import parse_metric

    places = {trial.id: trial.search for trial in plan.trials if trial.search is not None}
    folders = {trial_id: RunFolder(run_folder).trial(trial_id).path for trial_id in places}
    open_ids = {trial.id for trial in pending}
    prompts = plan.spec.prompts
    return SearchPlan(
        spec=spec,
        higher_is_better=spec.objective != HELD_OUT_LOSS and not parse_metric(spec.objective).lower_is_better,
        cells={trial_id: place.cells for trial_id, place in places.items()},
        wanted=tuple(trial_id for trial_id, place in places.items() if place.is_wanted),
        known={i: read_outcome(folders[i], spec.objective, prompts) for i in places if i not in open_ids},
        begun=tuple(i for i in places if i in open_ids and is_begun(folders[i])),
    )


def is_begun(folder: Path) -> bool:
    """Whether a trial was ever started: what a search has tried is what has a state."""
    return TrialFolder(folder).state.is_file()


def read_outcome(folder: Path, objective: str, prompts: Sequence[str]) -> Outcome:
    """What became of a trial, from its files."""
    state = read_state(folder).get("state")
    if state == "stopped":
        return Outcome("stopped")
    value = read_objective(folder, objective, prompts) if state == "done" else None
    return Outcome("failed") if value is None else Outcome("done", value)


def read_objective(folder: Path, objective: str, prompts: Sequence[str]) -> float | None:
    """The number that a trial is judged by; None if it is not there, or not for every prompt that can have it.

    It is of the selection side wherever the trial has one.
    """
    values: list[float | None] = []
    if objective == HELD_OUT_LOSS:
        train = read_if_valid(TrialFolder(folder).train, TrainFile)
        values = [train.eval_loss] if train is not None and train.curve else []
    elif (scores := read_if_valid(TrialFolder(folder).scores, ScoresFile)) is not None:
        found = {item.prompt: item.value for item in scores.of_choice(objective)}
        try:
            rated, _ = choose_prompts(objective, prompts)
        except UnscoredError:
            return None
        values = [found.get(prompt) for prompt in rated]
    numbers = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(numbers) / len(values) if numbers and len(numbers) == len(values) else None


def count_expected(jobs: Sequence[TrialJob], search: SearchPlan | None) -> int:
    """How many of the trials a run will do."""
    if search is None:
        return len(jobs)
    unchosen = sum(job.trial.id in search.cells and job.trial.id not in search.begun for job in jobs)
    return len(jobs) - unchosen + min(unchosen, search.n_left)


class Suggester(Protocol):
    """Optuna, whoever drives it."""

    def ask(self) -> tuple[str, dict[str, str]]:
        """A suggestion: its number, and its value on every axis."""
        ...

    def tell(self, number: str, outcome: Outcome) -> None:
        """What became of a suggestion."""
        ...

    def add(self, cell: Cell, outcome: Outcome) -> None:
        """What became of something that was not suggested."""
        ...


class CellSearch:
    """Chooses trials one by one until as many as the spec says were tried."""

    def __init__(self, plan: SearchPlan, suggester: Suggester) -> None:
        self.plan = plan
        self._suggester = suggester
        self._axes = tuple(plan.axes)
        self._trials = {self._locate(cell): i for i, cells in plan.cells.items() for cell in cells}
        self._known = dict(plan.known)
        self._told: set[str] = set()
        self._running: dict[str, str | None] = dict.fromkeys(plan.begun, BEGUN)  # None: drawn by lot
        self._lots = list(plan.cells)
        random.Random(plan.spec.seed).shuffle(self._lots)
        self._n_repeats = 0

    def choose(self) -> str | None:
        """The id of the next trial to be run; None if enough were chosen."""
        while len({*self._known, *self._running}) < self.plan.spec.n_trials:
            if self._n_repeats >= MAX_REPEATS:
                number, trial = None, self._draw_lot()
            else:
                number, values = self._suggester.ask()
                trial = self._trials.get(self._locate(values))
            if trial is not None and self._take(trial, number):
                return trial
            if trial is None and number is not None:
                self._repeat(number, Outcome("failed"))  # a combination that is not planned
        return None

    def settle(self, trial: str, outcome: Outcome) -> None:
        """A trial that was chosen, or had been begun before, has come to its end."""
        number = self._running.pop(trial, BEGUN)
        self._known[trial] = outcome
        if number != BEGUN:  # one that had been begun before is told when it is suggested, as if it were now
            self._answer(trial, number, outcome)

    def _take(self, trial: str, number: str | None) -> bool:
        """Whether a suggestion is to be run; one whose end is known, or awaited, is answered at once."""
        if trial in self._running:
            if number is not None:
                self._repeat(number, Outcome("failed"))  # Optuna leaves failed ones out of its account
            return False
        if trial in self._known:
            outcome = self._known[trial]
            if trial in self._told and number is not None:
                self._repeat(number, outcome)
                return False
            self._answer(trial, number, outcome)
            self._n_repeats = 0
            return False
        untold = [i for i in self._known if i not in self._told]
        if untold:
            for i in untold:
                self._answer(i, None, self._known[i])
            if number is not None:
                self._suggester.tell(number, Outcome("failed"))  # it was made without knowing these
            return False
        self._n_repeats = 0
        self._running[trial] = number
        return True

    def _answer(self, trial: str, number: str | None, outcome: Outcome) -> None:
        self._told.add(trial)
        if number is None:
            self._suggester.add(self.plan.cells[trial][0], outcome)
        else:
            self._suggester.tell(number, outcome)

    def _repeat(self, number: str, outcome: Outcome) -> None:
        self._n_repeats += 1
        self._suggester.tell(number, outcome)

    def _draw_lot(self) -> str | None:
        """The first by lot that Optuna has not heard of."""
        return next((i for i in self._lots if i not in self._told and i not in self._running), None)

    def _locate(self, cell: Cell) -> tuple[str, ...]:
        return tuple(cell[axis] for axis in self._axes)
