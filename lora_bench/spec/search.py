"""The section `search`: what is done with more ideas than machines."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from lora_bench.spec.schema import Section

HELD_OUT_LOSS = "held_out_loss"
# How others write it, or where it would have stood; `trials.grid` is the space here.
_ELSEWHERE = frozenset({"algorithm", "space", "n_trials", "objective", "seed"})


class EarlyStoppingSpec(Section):
    """Asynchronous successive halving (ASHA; Li et al., MLSys 2020) on the held-out loss.

    A trial that reaches a rung goes on if its loss is among the best `1 / reduction` of those that reached
    it before; otherwise it is stopped, marked as such, and has no scores.  The baseline is never stopped.
    """

    grace_steps: Annotated[int, Field(ge=1)] = 200
    """Steps that every trial may make: the first rung. The next ones are `reduction` times as far each."""
    reduction: Annotated[float, Field(gt=1.0, le=100.0)] = 3.0
    """One trial in so many advances from a rung to the next."""


class OptunaSpec(Section):
    """Optuna (tree-structured Parzen estimator) chooses which combinations of `trials.grid` are trained.

    Without a grid it chooses among the variants. The baseline is the first to be tried; zero-shot, ablations
    and variants beside a grid are trained in any case and do not count. What is not tried has no row anywhere.
    """

    n_trials: Annotated[int, Field(ge=1)]
    """Combinations that are tried in all; the first ten are drawn at random, so far more than ten are worth it."""
    objective: Annotated[str, Field(min_length=1, max_length=200)] = HELD_OUT_LOSS
    """`held_out_loss` at the end of training, or one of `metrics`: the mean of its values over the prompts."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the sampler; with one trial at a time the same seed and results make the same choices."""


class SearchSpec(Section):
    """Spends less on trials that do not look promising."""

    early_stopping: EarlyStoppingSpec | None = None
    """Stops trials whose held-out loss is behind; null trains all of them to their end."""
    optuna: OptunaSpec | None = None
    """Trains only some of the planned trials, which Optuna chooses; null trains all of them."""

    @model_validator(mode="before")
    @classmethod
    def _say_how_it_is_written(cls, data: Any) -> Any:
        asked = sorted(_ELSEWHERE & data.keys()) if isinstance(data, dict) else []
        if asked:
            raise ValueError(
                f"`{asked[0]}` does not stand here; a search is written `search: {{optuna: {{n_trials: 12, objective: "
                "held_out_loss, seed: 0}}`, its algorithm is Optuna's TPE, and what it chooses among is trials.grid"
            )
        return data
