"""Watching trials through their files."""

from __future__ import annotations

from pathlib import Path

from support.fake_trials import Recorder, plan_named

from lora_bench.runner.jobs.job import TrialJob
from lora_bench.runner.jobs.state import TrialView, write_state
from lora_bench.runner.jobs.watch import TrialWatch
from lora_bench.store import write_json


class Shower(Recorder):
    """A display that knows trials."""

    def __init__(self) -> None:
        super().__init__()
        self.views: list[list[TrialView]] = []

    def show_trials(self, trials: list[TrialView]) -> None:
        self.views.append(list(trials))


def make_jobs(tmp_path: Path) -> list[TrialJob]:
    return [TrialJob(trial, tmp_path / trial.id, tmp_path) for trial in plan_named("a").trials]


def test_states_of_an_earlier_run_are_not_taken_for_news(tmp_path: Path) -> None:
    jobs, progress = make_jobs(tmp_path), Recorder()
    write_state(jobs[0].folder, {"state": "failed", "reason": "long ago"})
    watch = TrialWatch(jobs, progress)
    watch.look()
    assert progress.lines == []
    write_state(jobs[0].folder, {"state": "failed", "reason": "just now"})
    watch.look()
    assert len(progress.lines) == 1
    assert progress.lines[0].startswith("zero-shot failed: just now (see ")


def test_each_trial_is_counted_once(tmp_path: Path) -> None:
    jobs, progress = make_jobs(tmp_path), Recorder()
    with TrialWatch(jobs, progress) as watch:
        write_state(jobs[1].folder, {"state": "running"})
        watch.look()
        write_state(jobs[1].folder, {"state": "done"})
        watch.look()
        watch.look()
    assert progress.stages == [("trials", 2)]
    assert progress.n_steps == 1
    assert progress.lines == ["a: running", "a: done"]


def test_a_display_of_trials_gets_stage_and_steps(tmp_path: Path) -> None:
    jobs, progress = make_jobs(tmp_path), Shower()
    watch = TrialWatch(jobs, progress)
    write_state(jobs[1].folder, {"state": "running"})
    write_json(jobs[1].folder / "progress.json", {"stage": "train", "done": 3, "total": 9, "note": "loss 2"})
    watch.look()
    assert progress.views[-1] == [
        TrialView("zero-shot", "waiting"),
        TrialView("a", "running", stage="train", done=3, total=9, note="loss 2"),
    ]
    assert progress.lines == []
