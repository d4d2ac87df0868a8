"""Student's t without `scipy.stats`, whose import takes as long as checking a spec."""

from __future__ import annotations

from scipy import special

CONFIDENCE = 0.95


def t_reach(freedom: float) -> float:
    """Return the half-width of a 95 % interval in standard errors."""
    return float(special.stdtrit(freedom, 0.5 + CONFIDENCE / 2.0))


def t_probability(t_value: float, freedom: float) -> float:
    """Return the two-sided p-value."""
    return float(2.0 * special.stdtr(freedom, -abs(t_value)))
