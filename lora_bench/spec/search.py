"""The section `search`: what is done with more ideas than machines."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from lora_bench.spec.schema import Section

OPTUNA_FIELDS = frozenset({"algorithm", "optuna", "space", "n_trials"})


class EarlyStoppingSpec(Section):
    """Asynchronous successive halving (ASHA; Li et al., MLSys 2020) on the held-out loss.

    A trial that reaches a rung goes on if its loss is among the best `1 / reduction` of those that reached
    it before; otherwise it is stopped, marked as such, and has no scores.  The baseline is never stopped.
    """

    grace_steps: Annotated[int, Field(ge=1)] = 200
    """Steps that every trial may make: the first rung. The next ones are `reduction` times as far each."""
    reduction: Annotated[float, Field(gt=1.0, le=100.0)] = 3.0
    """One trial in so many goes on from a rung to the next."""


class SearchSpec(Section):
    """Spends less on trials that do not look promising."""

    early_stopping: EarlyStoppingSpec | None = None
    """Stops trials whose held-out loss is behind; null trains all of them to their end."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_optuna(cls, data: Any) -> Any:
        asked = sorted(OPTUNA_FIELDS & data.keys()) if isinstance(data, dict) else []
        if asked:
            raise ValueError(
                f"`{asked[0]}` would let the package optuna choose trials through Ray Tune, which this version does "
                "not do, whether or not optuna is installed; state the candidates under trials.grid, and let "
                "search.early_stopping end the weaker ones"
            )
        return data
