"""The words for the outcome of a test, and the level that tests are held to."""

from __future__ import annotations

from enum import StrEnum

ALPHA = 0.05


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
