"""The words for the outcome of a test, the level that tests are held to, and what a test can reach."""

from __future__ import annotations

from enum import StrEnum

ALPHA = 0.05
N_PERMUTATIONS = 999
"""Random label swaps of a paired test."""


def smallest_p_value(n_pairs: int) -> float:
    """Return the smallest p-value of a two-sided label-swap test.

    Few pairs have few assignments of labels, and the opposite of the observed one is as extreme.
    """
    if 2**n_pairs <= N_PERMUTATIONS + 1:
        return 2.0 / 2**n_pairs
    return 1.0 / (N_PERMUTATIONS + 1)


class Verdict(StrEnum):
    """A score against another: better, worse, or not distinguished from it."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no detectable difference"


class SeparationVerdict(StrEnum):
    """The separation of prompts after fine-tuning, against that before."""

    REDUCED = "reduced"
    RAISED = "raised"
    NO_CHANGE = "no detectable change"


class MoveVerdict(StrEnum):
    """The direction in which fine-tuning moved a prompt's clips."""

    TOWARDS = "towards the genre"
    AWAY = "away from the genre"
    NO_MOVE = "no detectable move"
