"""Defaults for environment variables that libraries read while they are loaded.

The entry points set them: the command line, and a worker on another machine of a cluster.  Child processes inherit
them.  Importing lora_bench as a library sets nothing: the environment of a process belongs to its program.
"""

from __future__ import annotations

import os

WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""A user who sets one of these has chosen how threads of OpenMP wait."""


def set_defaults() -> None:
    """Set what the user did not set; call it before torch is imported."""
    # torch's threads wait for each other after every product.  Waiting in a loop holds a core that another
    # program needs: see benchmarks/results/busy_machine.md
    if not any(name in os.environ for name in WAIT_SETTINGS):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
