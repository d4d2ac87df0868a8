"""Optuna, imported only where a spec asks for it, and a study of it that answers `searching.CellSearch`."""

from __future__ import annotations

import importlib
from typing import Any

from lora_bench.errors import ResourceError
from lora_bench.runner.search.trial_search import Cell, Outcome, SearchPlan

INSTALL = "uv sync --inexact --extra optuna"


def require_optuna() -> Any:
    """The package optuna.

    Raises:
        ResourceError: it is not installed, or cannot be imported; says what installs it.
    """
    try:
        optuna: Any = importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        missing = error.name or "a module"
        raise ResourceError(
            f"search.optuna: {missing} is not installed; run `{INSTALL}` in the repository (or `pip install optuna`), "
            "or remove search.optuna from the spec to train every planned trial"
        ) from error
    except ImportError as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ResourceError(
            f"search.optuna: optuna is installed but cannot be imported ({reason}); install the locked versions "
            f"with `{INSTALL}` in the repository, or remove search.optuna from the spec"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def make_sampler(seed: int) -> Any:
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), each axis by itself.

    Trials that are still running count as bad ones, so that those side by side do not crowd at one place.
    """
    optuna = require_optuna()
    return optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)


def make_distributions(plan: SearchPlan) -> dict[str, object]:
    """A categorical distribution per axis."""
    optuna = require_optuna()
    return {axis: optuna.distributions.CategoricalDistribution(values) for axis, values in plan.axes.items()}


def list_first_points(plan: SearchPlan) -> list[dict[str, str]]:
    """Where trials stand that are tried first, on the axes that have a choice."""
    return [keep_axes(plan, plan.cells[trial][0]) for trial in plan.wanted]


def keep_axes(plan: SearchPlan, cell: Cell) -> dict[str, str]:
    """A cell without the axes that have a single value."""
    return {axis: cell[axis] for axis in plan.axes}


class StudySuggester:
    """A study in this process; nothing of it is kept, for the trials' files are the record."""

    def __init__(self, plan: SearchPlan) -> None:
        self._optuna = require_optuna()
        self._plan = plan
        self._space = make_distributions(plan)
        self._study = self._optuna.create_study(
            direction="maximize" if plan.higher_is_better else "minimize",
            sampler=make_sampler(plan.spec.seed),
        )
        for point in list_first_points(plan):
            self._study.enqueue_trial(point)

    def ask(self) -> tuple[str, dict[str, str]]:
        """See `Suggester.ask`."""
        trial = self._study.ask(fixed_distributions=self._space)
        return str(trial.number), dict(trial.params)

    def tell(self, number: str, outcome: Outcome) -> None:
        """See `Suggester.tell`."""
        self._study.tell(int(number), outcome.value, state=self._translate(outcome))

    def add(self, cell: Cell, outcome: Outcome) -> None:
        """See `Suggester.add`."""
        self._study.add_trial(
            self._optuna.trial.create_trial(
                state=self._translate(outcome),
                value=outcome.value,
                params=keep_axes(self._plan, cell),
                distributions=self._space,
            )
        )

    def _translate(self, outcome: Outcome) -> Any:
        states = self._optuna.trial.TrialState
        return {"done": states.COMPLETE, "stopped": states.PRUNED, "failed": states.FAIL}[outcome.state]
