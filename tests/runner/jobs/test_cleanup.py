"""Cleaning: what no run needs goes, what any run needs stays, and nothing goes while a run is at work."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock
from support.fake_trials import Recorder, plan_named

from lora_bench.cli.main import main
from lora_bench.errors import StoreError
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.runner.jobs.cleanup import UNUSED, find_left_over, remove_left_over
from lora_bench.runner.jobs.job import TrialJob, run_guarded
from lora_bench.store import Store, write_json


def make(draft: Path) -> None:
    (draft / "data").write_bytes(b"x" * 1000)


def ask(*keys: str):
    """A trial that asks the cache for these keys."""

    def execute(trial: TrialPlan, folder: Path, store: Store, progress: Progress) -> None:
        for key in keys:
            store.get_or_make("tokens", key, make)

    return execute


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run with one trial that needs `needed`, in a cache that also holds `other`."""
    runs = tmp_path / "runs"
    plan = plan_named("a")
    write_json(runs / "t" / "plan.json", {"name": "t", "spec": {}, "trials": [plan.trials[1]]})
    job = TrialJob(plan.trials[1], runs / "t" / "trials" / plan.trials[1].id, runs / ".cache")
    assert run_guarded(job, Recorder(), ask("needed")) == "done"
    Store(runs / ".cache").get_or_make("tokens", "other", make)
    return runs


def names(runs: Path) -> set[str]:
    return {path.name for path in (runs / ".cache" / "tokens").iterdir()}


def test_what_no_run_refers_to_is_shown_first_and_removed_with_yes(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean", "--runs-dir", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert ".cache/tokens" in shown
    assert UNUSED in shown
    assert "1 item, 1000 B; nothing was removed; remove them with --yes" in shown
    assert names(runs) == {"needed", "needed.lock", "other", "other.lock"}
    assert main(["clean", "--runs-dir", str(runs), "--yes"]) == 0
    assert "1 item, 1000 B removed" in capsys.readouterr().out
    assert names(runs) == {"needed", "needed.lock"}
    assert main(["clean", "--runs-dir", str(runs), "--yes"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_what_an_earlier_attempt_needed_goes_only_when_the_trial_is_done_without_it(runs: Path) -> None:
    trial = plan_named("a").trials[1]
    job = TrialJob(trial, runs / "t" / "trials" / trial.id, runs / ".cache")

    def fail(trial: TrialPlan, folder: Path, store: Store, progress: Progress) -> None:
        raise ValueError("broken")

    assert run_guarded(job, Recorder(), fail) == "failed"
    assert [item.path.name for item in find_left_over(runs).left_over] == ["other"]
    assert run_guarded(job, Recorder(), ask("other")) == "done"
    assert [item.path.name for item in find_left_over(runs).left_over] == ["needed"]


def test_half_written_files_and_rays_folders_go(runs: Path) -> None:
    for path in (
        runs / ".cache" / "tokens" / ".needed.abcd1234" / "codes.npy",
        runs / "t" / ".ray-abcdefgh" / "tune" / "x",
        runs / "t" / "trials" / ".state.json.abcd1234",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    remove_left_over(runs)
    assert names(runs) == {"needed", "needed.lock"}
    assert not (runs / "t" / ".ray-abcdefgh").exists()
    assert not (runs / "t" / "trials" / ".state.json.abcd1234").exists()


def test_trials_that_the_spec_no_longer_has_go_only_when_asked_for(runs: Path) -> None:
    (old,) = (runs / "t" / "trials").iterdir()
    new = plan_named("b").trials[1]
    write_json(runs / "t" / "plan.json", {"name": "t", "spec": {}, "trials": [new]})
    assert [item.path.name for item in find_left_over(runs).left_over] == ["other"]
    removed = remove_left_over(runs, old_trials=True)
    assert {item.path.name for item in removed.left_over} == {old.name, "needed", "other"}
    assert not old.exists()


def test_nothing_goes_while_a_run_is_at_work(runs: Path) -> None:
    with (
        FileLock(runs / "t" / ".lock", is_singleton=False),
        pytest.raises(StoreError, match=r"t: another process \(pid unknown\) is working on this run"),
    ):
        remove_left_over(runs)
    assert "other" in names(runs)


def test_without_a_record_of_what_a_trial_needs_the_cache_is_left_alone(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next(runs.glob("t/trials/*/cache.txt")).unlink()
    assert find_left_over(runs).left_over == ()
    assert main(["clean", "--runs-dir", str(runs), "--yes"]) == 0
    assert "unused cache entries are unknown: 1 trials or datasets" in capsys.readouterr().err
    assert "other" in names(runs)


def test_a_folder_that_is_not_there_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean", "--runs-dir", str(tmp_path / "nothing")]) == 2
    assert "expected a folder of runs" in capsys.readouterr().err
