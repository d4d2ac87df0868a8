"""A trial's state on disk: what ran, what failed and why, who holds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_trials import Recorder, execute_fake, plan_named
from filelock import FileLock

from lora_bench.errors import StoreError
from lora_bench.runner import guard
from lora_bench.runner.guard import TrialJob, run_guarded, settle_dead
from lora_bench.runner.state import read_state, view_trial, write_state


def make_job(tmp_path: Path, name: str, inputs: str | None = None) -> TrialJob:
    """A job of that name."""
    trial = plan_named(name).trials[1]
    return TrialJob(trial, tmp_path / "trials" / trial.id, tmp_path / "cache", inputs)


def test_a_finished_trial_is_done_with_its_figures_and_inputs(tmp_path: Path) -> None:
    job, progress = make_job(tmp_path, "good", "key1"), Recorder()
    assert run_guarded(job, progress, execute_fake) == "done"
    state = read_state(job.folder)
    assert (state["state"], state["inputs"], state["model"], state["reason"]) == (
        "done",
        "key1",
        {"name": "fake"},
        None,
    )
    assert state["wall_s"] == {"train": 1.5}
    assert (progress.stages, progress.n_steps) == ([("train", 3)], 3)
    assert not (job.folder / "progress.json").exists()
    assert not (job.folder / "error.txt").exists()


@pytest.mark.parametrize(
    ("name", "cause", "reason"),
    [
        ("bad", "unexpected", "ValueError: broken on purpose"),
        ("data", "data", "music: no audio files"),
        ("memory", "out of memory", "batch 1 needs 9 GiB, 8 GiB are there"),
    ],
)
def test_a_failure_is_kept_with_cause_reason_stage_and_traceback(
    name: str, cause: str, reason: str, tmp_path: Path
) -> None:
    job = make_job(tmp_path, name)
    assert run_guarded(job, Recorder(), execute_fake) == "failed"
    state = read_state(job.folder)
    assert (state["state"], state["cause"], state["reason"], state["stage"]) == (
        "failed",
        cause,
        reason,
        "train",
    )
    error = (job.folder / "error.txt").read_text(encoding="utf-8")
    assert error.startswith("Traceback")
    assert "execute_fake" in error


def test_a_further_attempt_forgets_the_failure_and_counts(tmp_path: Path) -> None:
    job = make_job(tmp_path, "once")
    assert [run_guarded(job, Recorder(), execute_fake) for _ in range(3)] == ["failed", "done", "done"]
    state = read_state(job.folder)
    assert (state["state"], state["n_attempts"], state["wall_s"]) == ("done", 3, {"train": 3.0})
    assert not (job.folder / "error.txt").exists()


def test_an_interrupt_is_written_down_and_passed_on(tmp_path: Path) -> None:
    job = make_job(tmp_path, "stop")
    with pytest.raises(KeyboardInterrupt):
        run_guarded(job, Recorder(), execute_fake)
    state = read_state(job.folder)
    assert (state["state"], state["stage"]) == ("interrupted", "train")


def test_a_full_disk_stops_the_run_and_says_so(tmp_path: Path) -> None:
    job = make_job(tmp_path, "full")
    with pytest.raises(StoreError, match="the disk is full; free some space and run the same command again"):
        run_guarded(job, Recorder(), execute_fake)
    assert read_state(job.folder)["cause"] == "storage"


def test_a_trial_that_somebody_holds_is_refused_with_the_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LOCK_TIMEOUT_S", 0.05)
    job = make_job(tmp_path, "good")
    job.folder.mkdir(parents=True)
    write_state(job.folder, {"state": "running", "pid": 4711, "host": "far"})
    with (
        FileLock(job.folder / ".lock"),
        pytest.raises(StoreError, match="process 4711 on far works on this trial"),
    ):
        run_guarded(job, Recorder(), execute_fake)
    assert read_state(job.folder)["pid"] == 4711
    assert run_guarded(job, Recorder(), execute_fake) == "done"


def test_while_it_runs_the_files_say_what_it_does(tmp_path: Path) -> None:
    job = make_job(tmp_path, "good")
    seen = []

    def look(trial, folder, store, progress):
        progress.start("generate", 8)
        progress.advance(3, note="clip 3")
        seen.append((read_state(folder), view_trial("good", folder)))

    run_guarded(job, Recorder(), look)
    state, view = seen[0]
    assert (state["state"], state["pid"]) == ("running", os.getpid())
    assert (view.state, view.stage, view.total) == ("running", "generate", 8)
    assert view_trial("good", job.folder).state == "done"


def test_only_a_dead_trial_that_says_running_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LOCK_TIMEOUT_S", 0.05)
    job = make_job(tmp_path, "good")
    settle_dead(job, "failed", "its worker died")
    assert read_state(job.folder) == {}
    job.folder.mkdir(parents=True)
    write_state(job.folder, {"state": "running"})
    with FileLock(job.folder / ".lock"):
        settle_dead(job, "failed", "its worker died")
        assert read_state(job.folder)["state"] == "running"
    settle_dead(job, "failed", "its worker died")
    assert read_state(job.folder) == {"state": "failed", "reason": "its worker died", "cause": "worker death"}
    write_state(job.folder, {"state": "done"})
    settle_dead(job, "failed", "its worker died")
    assert read_state(job.folder) == {"state": "done"}


def test_a_damaged_state_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{", encoding="utf-8")
    assert read_state(tmp_path) == {}
    assert view_trial("x", tmp_path).state == "waiting"
