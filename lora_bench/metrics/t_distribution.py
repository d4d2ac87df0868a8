"""Student's t without `scipy.stats`, whose import alone takes as long as checking a spec."""

from __future__ import annotations

from scipy import special

CONFIDENCE = 0.95


def t_reach(freedom: float) -> float:
    """How many standard errors a 95 % interval reaches to either side."""
    return float(special.stdtrit(freedom, 0.5 + CONFIDENCE / 2.0))


def t_probability(t_value: float, freedom: float) -> float:
    """Two-sided p-value."""
    return float(2.0 * special.stdtr(freedom, -abs(t_value)))
