"""Watch of trials in other processes through their files, for a display."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from lora_bench.progress import Progress
from lora_bench.runner.jobs.job import TrialJob
from lora_bench.runner.jobs.state import TrialView, view_trial

LOOK_EVERY_S = 1.0


@runtime_checkable
class TrialsDisplay(Protocol):
    """A display that can show several trials at once."""

    def show_trials(self, trials: Sequence[TrialView]) -> None:
        """Show the current state of all trials."""
        ...


class TrialWatch:
    """Looks at the trials' files once a second while its block runs.

    A display with `show_trials` receives all states; any other receives a line when a trial starts or ends.

    Args:
        jobs: the trials.
        progress: the display.
        n_expected: number of trials that will run if a search chooses among them; None is all.
    """

    def __init__(self, jobs: Sequence[TrialJob], progress: Progress, n_expected: int | None = None) -> None:
        self.jobs = jobs
        self.progress = progress
        self.n_expected = len(jobs) if n_expected is None else n_expected
        self._told: dict[str, str] = {}
        self._fresh: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = {job.trial.id: _written_at(job) for job in jobs}

    def __enter__(self) -> TrialWatch:
        self.progress.start("trials", self.n_expected)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.look()

    def look(self) -> None:
        """Read every trial's files and report changes."""
        views = [self._view(job) for job in self.jobs]
        if isinstance(self.progress, TrialsDisplay):
            self.progress.show_trials(views)
        for job, view in zip(self.jobs, views, strict=True):
            if self._told.get(job.trial.id, "waiting") == view.state:
                continue
            self._told[job.trial.id] = view.state
            if view.state == "failed":
                self.progress.log(f"{view.name} failed: {view.reason} (see {job.files.error})")
            elif not isinstance(self.progress, TrialsDisplay):
                self.progress.log(f"{view.name}: {view.state}")
            if view.state in {"done", "stopped", "failed"}:
                self.progress.advance(note=f"{view.name} {view.state}")

    def has_begun(self, job: TrialJob) -> bool:
        """Return whether the trial's state was written since the watch was created."""
        return _written_at(job) != self._before[job.trial.id]

    def _view(self, job: TrialJob) -> TrialView:
        """Return the state of a trial; `waiting` while its files are those of an earlier run."""
        if job.trial.id not in self._fresh:
            if not self.has_begun(job):
                return TrialView(job.trial.name, "waiting")
            self._fresh.add(job.trial.id)
        return view_trial(job.trial.name, job.folder)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.look()


def _written_at(job: TrialJob) -> int | None:
    """Return the time stamp of a trial's state; None if there is none."""
    try:
        return job.files.state.stat().st_mtime_ns
    except OSError:
        return None
