"""The words for the outcome of a contrast, and the rule that gives them."""

from __future__ import annotations

from enum import StrEnum

ALPHA = 0.05
"""One less the confidence of intervals; of simultaneous ones, the risk of any false verdict in a family."""

FEW = 10
"""Intervals over fewer clips or tracks than this are rough."""


class Verdict(StrEnum):
    """A configuration against another, on the primary metric."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    """The whole interval lies within the margin."""
    INCONCLUSIVE = "inconclusive"
    """The interval holds zero and reaches beyond the margin."""


def judge(low: float, high: float, margin: float | None, *, lower_is_better: bool) -> Verdict:
    """Return the verdict that follows from the interval of a difference.

    Args:
        low: lower end of the simultaneous interval.
        high: upper end.
        margin: largest difference that counts as none; None if there is no such margin.
        lower_is_better: True for distances.
    """
    if low > 0.0 or high < 0.0:
        return Verdict.BETTER if (high < 0.0) == lower_is_better else Verdict.WORSE
    if low == high == 0.0 or (margin is not None and -margin < low and high < margin):
        return Verdict.EQUIVALENT
    return Verdict.INCONCLUSIVE
