"""Student's t without `scipy.stats`, whose import takes as long as checking a spec."""

from __future__ import annotations

from scipy import special

from lora_bench.metrics.verdicts import ALPHA


def t_reach(freedom: float, alpha: float = ALPHA) -> float:
    """Return the half-width of a two-sided interval of confidence `1 - alpha`, in standard errors."""
    return float(special.stdtrit(freedom, 1.0 - alpha / 2.0))


def t_probability(t_value: float, freedom: float) -> float:
    """Return the two-sided p-value."""
    return float(2.0 * special.stdtr(freedom, -abs(t_value)))


def detectable_difference(se: float, freedom: float, alpha: float = ALPHA, power: float = 0.8) -> float:
    """Return the difference that a test at level `alpha` finds with a probability of `power`."""
    return se * (t_reach(freedom, alpha) + float(special.stdtrit(freedom, power)))
