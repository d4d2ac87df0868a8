"""Verdicts of a test, and its level."""

from __future__ import annotations

ALPHA = 0.05
BETTER = "better"
WORSE = "worse"
NO_DIFFERENCE = "no detectable difference"
