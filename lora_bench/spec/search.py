"""The section `search`: spend less on trials that do not look promising."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from lora_bench.spec.section import Section

HELD_OUT_LOSS = "held_out_loss"
DEFAULT_SELECTION_FRAC = 0.1  # half of the default share of references
# fields that users put into `search` itself
_ELSEWHERE = frozenset({"algorithm", "space", "n_trials", "objective", "seed"})


class EarlyStoppingSpec(Section):
    """Asynchronous successive halving (ASHA; Li et al., MLSys 2020) on the held-out loss.

    A trial that reaches a rung continues if its loss is among the best `1 / reduction` of the trials that reached
    it before; otherwise it is stopped, marked as stopped, and has no scores.  The baseline is never stopped.
    """

    grace_steps: Annotated[int, Field(ge=1)] = 200
    """The first rung: steps that every trial makes. Each following rung is `reduction` times as far."""
    reduction: Annotated[float, Field(gt=1.0, le=100.0)] = 3.0
    """One of this many trials advances from a rung to the next."""


class OptunaSpec(Section):
    """Optuna (tree-structured Parzen estimator) chooses which combinations of `trials.grid` are trained.

    Without a grid it chooses among the variants. It tries the baseline first. The zero-shot model, ablations and
    variants next to a grid run in any case and do not count. Reports leave out what is not tried.
    """

    n_trials: Annotated[int, Field(ge=1)]
    """Number of combinations to try; the first ten are random, so it is worth trying many more than ten."""
    objective: Annotated[str, Field(min_length=1, max_length=200)] = HELD_OUT_LOSS
    """`held_out_loss` at the end of training, or one of the `metrics`: its mean over the prompts."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the sampler; with one trial at a time, the same seed and results lead to the same choices."""


class SearchSpec(Section):
    """Spends less on trials that do not look promising."""

    early_stopping: EarlyStoppingSpec | None = None
    """Stop trials whose held-out loss is behind; null trains all of them to the end."""
    optuna: OptunaSpec | None = None
    """Train only the trials that Optuna chooses; null trains all of them."""

    @property
    def decides(self) -> bool:
        """Whether measurements decide which trials are trained to the end."""
        return self.early_stopping is not None or self.optuna is not None

    @model_validator(mode="before")
    @classmethod
    def _say_how_it_is_written(cls, data: Any) -> Any:
        asked = sorted(_ELSEWHERE & data.keys()) if isinstance(data, dict) else []
        if asked:
            raise ValueError(
                f"`{asked[0]}` does not belong here; write a search as `search: {{optuna: {{n_trials: 12, objective: "
                "held_out_loss, seed: 0}}`, its algorithm is Optuna's TPE, and it chooses among trials.grid"
            )
        return data
