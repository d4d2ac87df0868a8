"""A trial that does nothing, where Ray's workers can import it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.store import Store


def do_nothing(trial: TrialPlan, folder: Path, store: Store, progress: Progress) -> dict[str, Any]:  # noqa: ARG001
    """No stage, no figures."""
    return {}
