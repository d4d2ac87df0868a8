"""The work of a run, as an executor takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_bench.runner.jobs.job import ExecuteTrial, TrialJob
from lora_bench.runner.search.trial_search import SearchPlan
from lora_bench.spec.schema import ResourcesSpec


@dataclass(frozen=True)
class Work:
    """Trials, and what running them takes.

    Attributes:
        resources: of one trial.
        execute: runs one trial; `lora_bench.runner.trial.execute_trial` if None.  Ray finds it by its name in an
            importable module.
        search: chooses some of the trials; None runs all of them.
    """

    jobs: Sequence[TrialJob]
    resources: ResourcesSpec
    execute: ExecuteTrial | None = None
    search: SearchPlan | None = None
