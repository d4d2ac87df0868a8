"""Trials one after the other in this process: no Ray, easy to debug; a search drives Optuna itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lora_bench.errors import InterruptedRunError
from lora_bench.machine.gpus import limit_gpus, require_gpus
from lora_bench.progress import Progress
from lora_bench.results.trial_files import read_state
from lora_bench.runner.jobs.job import TrialJob, run_guarded
from lora_bench.runner.jobs.workers import Workers
from lora_bench.runner.search.trial_search import (
    CellSearch,
    Outcome,
    SearchPlan,
    count_expected,
    read_outcome,
)
from lora_bench.runner.work import Work


def run_local(work: Work, progress: Progress) -> None:
    """Run trials in order, those that a search chooses after the others.

    Raises:
        ResourceError: a trial takes a GPU and there is none, or a search is asked for without optuna.
        StoreError: the disk is full, or another process holds a trial.
        InterruptedRunError: the run was stopped; finished trials are kept.
    """
    require_gpus(work.resources.gpu)
    with Workers(work.resources.n_workers) as workers:
        _run_in_order(work, progress, workers)


def _run_in_order(work: Work, progress: Progress, workers: Workers) -> None:
    n_done, n_expected = 0, count_expected(work.jobs, work.search)
    for number, job in enumerate(
        work.jobs if work.search is None else _choose_jobs(work.jobs, work.search), 1
    ):
        label = f"{job.trial.name} ({number}/{n_expected})"
        try:
            with limit_gpus(work.resources.gpu):
                state = run_guarded(job, LabelledProgress(progress, label), work.execute, workers)
        except (KeyboardInterrupt, SystemExit, InterruptedRunError) as error:
            raise InterruptedRunError(
                f"stopped in trial {job.trial.name}; {n_done} of {n_expected} trials are done and kept; resume "
                "the run with the same command"
            ) from error
        n_done += state == "done"
        if state == "stopped":
            progress.log(f"{label} {read_state(job.folder).get('reason')}")
        if state == "failed":
            progress.log(f"{label} failed: {read_state(job.folder).get('reason')} (see {job.files.error})")


def _choose_jobs(jobs: Sequence[TrialJob], search: SearchPlan) -> Iterator[TrialJob]:
    """Jobs that run in any case, then those that Optuna chooses by what became of the ones before."""
    from lora_bench.runner.search.optuna import StudySuggester

    chosen = CellSearch(search, StudySuggester(search))
    by_id = {job.trial.id: job for job in jobs}
    fixed = [job for job in jobs if job.trial.id not in search.cells]
    for job in [*fixed, *(by_id[trial] for trial in search.begun)]:
        yield job
        if job.trial.id in search.cells:
            chosen.settle(job.trial.id, _read(job, search))
    while (trial := chosen.choose()) is not None:
        yield by_id[trial]
        chosen.settle(trial, _read(by_id[trial], search))


def _read(job: TrialJob, search: SearchPlan) -> Outcome:
    return read_outcome(job.folder, search.spec.objective, job.trial.prompts)


class LabelledProgress:
    """Passes everything on, with the trial's name before each stage."""

    def __init__(self, inner: Progress, label: str) -> None:
        self.inner = inner
        self.label = label

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins."""
        self.inner.start(f"{self.label}: {stage}", total)

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Steps are done."""
        self.inner.advance(n, note=note)

    def log(self, message: str) -> None:
        """One line."""
        self.inner.log(f"{self.label}: {message}")
