"""A search through Ray Tune: its `OptunaSearch` suggests, and `CellSearch` keeps to what is planned.

Ray is imported by `driver.py` and by functions here that only it calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_bench.runner.search.optuna import keep_axes, list_first_points, make_distributions, make_sampler
from lora_bench.runner.search.trial_search import Cell, CellSearch, Outcome, SearchPlan
from lora_bench.spec.schema import ResourcesSpec

OBJECTIVE = "objective"


class RaySuggester:
    """`ray.tune.search.optuna.OptunaSearch` as a `Suggester`."""

    def __init__(self, plan: SearchPlan) -> None:
        from ray.tune.search.optuna import OptunaSearch

        self._plan = plan
        self._n_asked = 0
        self._search: Any = OptunaSearch(
            space=make_distributions(plan),
            metric=OBJECTIVE,
            mode="max" if plan.higher_is_better else "min",
            sampler=make_sampler(plan.spec.seed),
            points_to_evaluate=list_first_points(plan) or None,
        )

    def ask(self) -> tuple[str, dict[str, str]]:
        """See `Suggester.ask`."""
        number = str(self._n_asked)
        self._n_asked += 1
        return number, dict(self._search.suggest(number))

    def tell(self, number: str, outcome: Outcome) -> None:
        """See `Suggester.tell`."""
        result = None if outcome.value is None else {OBJECTIVE: outcome.value}
        self._search.on_trial_complete(number, result, error=outcome.state == "failed")

    def add(self, cell: Cell, outcome: Outcome) -> None:
        """See `Suggester.add`."""
        self._search.add_evaluated_point(
            keep_axes(self._plan, cell),
            outcome.value,
            error=outcome.state == "failed",
            pruned=outcome.state == "stopped",
        )


def count_slots(nodes: Sequence[Mapping[str, Any]], resources: ResourcesSpec) -> int:
    """How many trials the nodes hold at once; at least 1."""
    n = 0
    for node in nodes:
        held: Mapping[str, float] = node.get("Resources") or {}
        wanted = ((held.get("CPU", 0.0), resources.cpu), (held.get("GPU", 0.0), resources.gpu))
        n += min(int(there / each + 1e-9) for there, each in wanted if each > 0)
    return max(1, n)


class TrialFeed:
    """What Ray Tune's searcher asks: first the trials that run in any case, then those that are chosen.

    A trial is chosen when there is room for it and not before, so that it is chosen by all that is known.

    Args:
        fixed: ids of trials that run in any case, in order.
        search: chooses the others.
        count_room: how many trials run at once.
    """

    def __init__(self, fixed: Sequence[str], search: CellSearch, count_room: Callable[[], int]) -> None:
        self._fixed = list(fixed)
        self._search = search
        self._count_room = count_room
        self._running: dict[str, str] = {}
        self.is_over = False

    def suggest(self, ray_id: str) -> str | None:
        """A trial's id; None if there is none now, or (`is_over`) none any more."""
        if len(self._running) >= self._count_room():
            return None
        trial = self._fixed.pop(0) if self._fixed else self._search.choose()
        if trial is None:
            self.is_over = True
            return None
        self._running[ray_id] = trial
        return trial

    def complete(self, ray_id: str, result: Mapping[str, Any] | None) -> None:
        """A trial has come to its end; without a result its worker died."""
        trial = self._running.pop(ray_id, None)
        if trial is None or trial not in self._search.plan.cells:
            return
        state, value = (result or {}).get("state"), (result or {}).get(OBJECTIVE)
        if state == "stopped":
            self._search.settle(trial, Outcome("stopped"))
        elif state == "done" and value is not None:
            self._search.settle(trial, Outcome("done", float(value)))
        else:
            self._search.settle(trial, Outcome("failed"))


def make_searcher(
    plan: SearchPlan, fixed: Sequence[str], count_room: Callable[[], int], key: str = "trial"
) -> Any:
    """A `Searcher` of Ray Tune whose configurations are `{key: trial id}`."""
    from ray.tune.search import Searcher

    feed = TrialFeed(fixed, CellSearch(plan, RaySuggester(plan)), count_room)

    class PlannedSearcher(Searcher):
        """Passes Ray Tune's questions on."""

        def suggest(self, trial_id: str) -> Any:
            trial = feed.suggest(trial_id)
            if trial is None:
                return Searcher.FINISHED if feed.is_over else None
            return {key: trial}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            feed.complete(trial_id, None if error else result)

        def save(self, checkpoint_path: str) -> None:
            Path(checkpoint_path).touch()  # the record of a search is the trials' files

        def restore(self, checkpoint_path: str) -> None:
            raise NotImplementedError(checkpoint_path)  # a resumed run makes a fresh searcher

    return PlannedSearcher()
