"""A trial's state on disk: what ran, what failed and why, who holds it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from support.fake_trials import Recorder, execute_fake, plan_named

from lora_bench.errors import StoppedEarlyError, StoreError
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.results.trial_files import read_state
from lora_bench.runner.jobs import job as guard
from lora_bench.runner.jobs.job import TrialJob, run_guarded, settle_dead
from lora_bench.runner.jobs.state import view_trial, write_state
from lora_bench.runner.stage_times import StageClock
from lora_bench.store import Store, write_json


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


def leave_killed(folder: Path) -> None:
    """Files of an attempt that loaded for 2 s and was killed while training, 12.3 s after that began."""
    write_state(folder, {"state": "running", "n_attempts": 1, "wall_s": {"load": 1.0}})
    kept = {"wall_s": {"load": 2.0}, "stage": "train", "began_at_s": 1000.0}
    write_json(folder / "stages.json", kept)
    write_json(folder / "progress.json", {"stage": "train", "done": 5, "total": 9, "at_s": 1012.3})


def test_the_time_of_a_killed_attempt_counts_until_its_last_step(tmp_path: Path) -> None:
    job = make_job(tmp_path, "good")
    leave_killed(job.folder)
    assert run_guarded(job, Recorder(), execute_fake) == "done"
    assert read_state(job.folder)["wall_s"] == {"load": 3.0, "train": 13.8}  # 12.3 and 1.5
    assert not (job.folder / "stages.json").exists()


def test_the_time_of_a_dead_attempt_counts_once(tmp_path: Path) -> None:
    job = make_job(tmp_path, "good")
    leave_killed(job.folder)
    settle_dead(job, "interrupted", "the worker died")
    assert read_state(job.folder)["wall_s"] == {"load": 3.0, "train": 12.3}
    assert run_guarded(job, Recorder(), execute_fake) == "done"
    assert read_state(job.folder)["wall_s"] == {"load": 3.0, "train": 13.8}


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), StoppedEarlyError("behind")])
def test_the_time_of_an_attempt_that_ended_early_counts(error: BaseException, tmp_path: Path) -> None:
    job, outcomes = make_job(tmp_path, "good"), iter([error, None])

    def execute(trial: TrialPlan, folder: Path, store: Store, progress: Progress) -> dict[str, Any]:
        clock = StageClock(folder)
        with clock.stage("train"):
            clock.wall_s["train"] = 4.0
            if (outcome := next(outcomes)) is not None:
                raise outcome
        return {"wall_s": clock.wall_s}

    with suppress(KeyboardInterrupt):
        run_guarded(job, Recorder(), execute)
    first_s = read_state(job.folder)["wall_s"]["train"]
    assert first_s >= 4.0
    assert run_guarded(job, Recorder(), execute) == "done"
    assert read_state(job.folder)["wall_s"]["train"] > first_s + 3.9  # times are rounded to 0.001 s


def test_a_damaged_record_of_times_is_no_obstacle(tmp_path: Path) -> None:
    job = make_job(tmp_path, "good")
    for text in ("{", "[]", '{"wall_s": 3}', '{"wall_s": {"train": 2}, "stage": "train", "began_at_s": 5}'):
        (job.folder).mkdir(parents=True, exist_ok=True)
        (job.folder / "stages.json").write_text(text, encoding="utf-8")
        assert run_guarded(job, Recorder(), execute_fake) == "done"


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
        pytest.raises(StoreError, match="process 4711 on far is working on this trial"),
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
