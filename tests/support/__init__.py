"""Shared by tests: small inputs, stand-ins for trials, and ways to look at what a run left."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
"""On the path of every process that imports `support`."""
ROOT = TESTS.parent
