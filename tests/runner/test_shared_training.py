"""Trials that differ only in what happens after training train once."""

from __future__ import annotations

import csv
import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.chaos_lives import NAME, describe_chaos
from support.training import StopAt

from lora_bench.artifacts import TrainResult
from lora_bench.cli.commands.validate import describe_plan
from lora_bench.cli.outlook import foresee_trials
from lora_bench.models import load_model, memory
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.progress import Progress, SilentProgress
from lora_bench.results.csv_table import render_csv
from lora_bench.results.gather import gather_results
from lora_bench.runner.jobs.cleanup import find_left_over
from lora_bench.runner.trial import train_trial
from lora_bench.spec import ExperimentSpec
from lora_bench.stages.dataset import prepare_dataset
from lora_bench.stages.train import loop
from lora_bench.store import Store, read_json, write_json

TEMPERATURES = {"name": "t{generation.temperature}", "axes": {"generation.temperature": [1.0, 1.2]}}


def plan_two(root: Path, **fields: Any) -> ExperimentPlan:
    """Two temperatures of one adapter."""
    spec = {**describe_chaos(root, n_clips=2, n_variants=1), "trials": {"grid": TEMPERATURES}, **fields}
    return plan_experiment(ExperimentSpec.model_validate(spec))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds model and recordings."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every optimiser step that is taken."""
    taken: list[int] = []
    original = loop.take_step

    def counted(run: Any, *arguments: Any) -> float:
        taken.append(run.state.step)
        return original(run, *arguments)

    monkeypatch.setattr(loop, "take_step", counted)
    return taken


def train_one(trial: TrialPlan, place: Path, progress: Progress | None = None) -> TrainResult:
    """Train as a trial of a run does."""
    progress = progress or SilentProgress()
    files = RunFolder(place / "runs" / NAME).trial(trial.id)
    files.path.mkdir(parents=True, exist_ok=True)
    write_json(files.state, {"state": "running", "wall_s": {"train": 0.0}})
    store = Store(place / "runs" / ".cache", files.cache_uses)
    model = load_model(trial.model)
    manifest = prepare_dataset(trial.dataset, model.info.audio_format, store, progress)
    result = train_trial(trial, model, manifest, files.path, store, progress)
    store.settle_uses()
    write_json(files.state, {"state": "done", "wall_s": {"train": 0.0}})
    return result


def tuned(plan: ExperimentPlan) -> list[TrialPlan]:
    return [trial for trial in plan.trials if trial.train is not None]


def entries(root: Path) -> list[Path]:
    return sorted((root / "runs" / ".cache" / "adapters").glob("*/"))


def weights(result: TrainResult) -> Path:
    return result.adapter / "adapter_model.safetensors"


def test_trials_that_differ_in_sampling_alone_train_once(
    root: Path, tmp_path: Path, steps: list[int]
) -> None:
    plan = plan_two(root)
    first, second = tuned(plan)
    assert [first.training, second.training] == [first.id] * 2
    results = [train_one(trial, tmp_path) for trial in (first, second)]
    assert steps == list(range(12))
    assert [result.adapter.parent.name for result in results] == [first.id, second.id]
    assert weights(results[0]).samefile(weights(results[1]))  # hard links
    assert replace(results[0], adapter=results[1].adapter) == results[1]

    run = RunFolder(tmp_path / "runs" / NAME)
    written = [read_json(run.trial(trial.id).train) for trial in (first, second)]
    assert written[0] == written[1]
    (entry,) = entries(tmp_path)
    assert not TrialFolder(entry).checkpoint.exists()

    # each row costs its training, though one of them did not train
    write_json(run.plan, plan)
    rows = [trial for trial in gather_results(run.path).trials if not trial.is_zero_shot]
    assert [row.wall_s["train"] for row in rows] == [written[0]["wall_s"]] * 2


def test_a_trial_that_shares_with_none_keeps_its_paths_and_trains_the_same(
    root: Path, tmp_path: Path
) -> None:
    (alone,) = tuned(plan_two(root, trials={"variants": [{"name": "alone"}]}))
    assert alone.training is None
    assert "training" not in alone.model_dump(mode="json")
    private = train_one(alone, tmp_path / "alone")
    assert entries(tmp_path / "alone") == []
    shared = train_one(tuned(plan_two(root))[0], tmp_path)
    assert weights(private).read_bytes() == weights(shared).read_bytes()


def test_a_trial_that_later_shares_its_training_lends_its_adapter(
    root: Path, tmp_path: Path, steps: list[int]
) -> None:
    one = {"name": "t{generation.temperature}", "axes": {"generation.temperature": [1.0]}}
    (before,) = tuned(plan_two(root, trials={"grid": one}))
    train_one(before, tmp_path)
    first, second = tuned(plan_two(root))
    assert first.id == before.id
    train_one(second, tmp_path)
    assert len(steps) == 12


def test_a_killed_shared_training_resumes_in_another_trial(
    root: Path, tmp_path: Path, steps: list[int]
) -> None:
    plan = plan_two(root)
    first, second = tuned(plan)
    with pytest.raises(KeyboardInterrupt):
        train_one(first, tmp_path, StopInTraining(5))
    (entry,) = entries(tmp_path)
    assert TrialFolder(entry).checkpoint_state.is_file()
    write_json(RunFolder(tmp_path / "runs" / NAME).plan, plan)
    assert find_left_over(tmp_path / "runs").left_over == ()  # the interrupted trial needs it
    resumed = train_one(second, tmp_path)
    assert steps == [0, 1, 2, 3, 4, *range(4, 12)]  # the step under way was lost
    whole = train_one(first, tmp_path / "whole")
    assert weights(resumed).read_bytes() == weights(whole).read_bytes()


def test_entries_of_the_cache_are_kept_while_a_trial_needs_them(root: Path, tmp_path: Path) -> None:
    plan = plan_two(root)
    first, second = tuned(plan)
    train_one(first, tmp_path)
    train_one(second, tmp_path)
    train_one(second, tmp_path)  # finished, and still in use
    plan_file = RunFolder(tmp_path / "runs" / NAME).plan
    write_json(plan_file, plan)
    assert find_left_over(tmp_path / "runs").left_over == ()
    write_json(plan_file, {**plan.model_dump(mode="json"), "trials": []})
    found = {item.path.parent.name for item in find_left_over(tmp_path / "runs", old_trials=True).left_over}
    assert "adapters" in found


def test_plan_counts_a_shared_training_once(root: Path, tmp_path: Path) -> None:
    plan = plan_two(root)
    _, second = tuned(plan)
    sizes = [item.prediction for item in foresee_trials(plan, tmp_path / "runs") if item.trial.train]
    assert [item.is_trained for item in sizes] == [False, True]
    assert sizes[0].adapter is not None
    assert sizes[0].disk_bytes == (sizes[1].disk_bytes or 0) + sizes[0].adapter.n_bytes
    assert "2 fine-tuned trials (1 training)" in describe_plan(plan)
    train_one(second, tmp_path)
    sizes = [item.prediction for item in foresee_trials(plan, tmp_path / "runs") if item.trial.train]
    assert [item.is_trained for item in sizes] == [True, True]


def test_the_rows_of_a_trajectory_train_once(root: Path, tmp_path: Path, steps: list[int]) -> None:
    variants = [{"name": "r2", "train.keep": [3, 6]}, {"name": "best", "train.keep": "best"}]
    plan = plan_two(root, trials={"variants": variants})
    rows = tuned(plan)
    assert [row.name for row in rows] == ["r2@3", "r2@6", "r2", "best"]
    with pytest.raises(KeyboardInterrupt):
        train_one(rows[0], tmp_path, StopInTraining(5))
    results = {row.name: train_one(row, tmp_path) for row in reversed(rows)}  # another trial resumes
    assert steps == [0, 1, 2, 3, 4, *range(4, 12)]
    assert {name: result.step for name, result in results.items() if name != "best"} == {
        "r2@3": 3, "r2@6": 6, "r2": None,
    }  # fmt: skip
    assert results["r2@6"].curve[-1].step == 6
    losses = {point.step: point.eval_loss for point in results["r2"].curve if point.step in {4, 8, 12}}
    best = min(losses, key=lambda step: losses[step] or 0.0)
    assert results["best"].step == best

    run = RunFolder(tmp_path / "runs" / NAME)
    assert {row.name: read_json(run.trial(row.id).train).get("step") for row in rows} == {
        "r2@3": 3, "r2@6": 6, "r2": None, "best": best,
    }  # fmt: skip
    train_one(rows[0], tmp_path)  # finished
    train_one(rows[3], tmp_path)
    assert len(steps) == 13
    write_json(run.plan, plan)
    cells = list(csv.DictReader(io.StringIO(render_csv(gather_results(run.path)))))
    assert {cell["trial"]: cell["step"] for cell in cells if cell["kind"] == "fine-tuned"} == {
        "r2@3": "3", "r2@6": "6", "r2": "12", "best": str(best),
    }  # fmt: skip


def test_one_process_holds_an_entry_while_others_wait(tmp_path: Path) -> None:
    store = Store(tmp_path, tmp_path / "uses.txt")
    order: list[str] = []
    waits = threading.Event()

    def wait() -> None:
        order.append("waits")
        waits.set()

    def second() -> None:
        with Store(tmp_path).hold("adapters", "k", wait):
            order.append("second")

    other = threading.Thread(target=second)
    with store.hold("adapters", "k", lambda: order.append("never")) as place:
        assert place.is_dir()
        other.start()
        assert waits.wait(30)
        order.append("first")
    other.join(30)
    assert order == ["waits", "first", "second"]
    assert (tmp_path / "uses.txt").read_text() == "adapters/k\n"


class StopInTraining(SilentProgress):
    """Interrupts the run at a step of the training."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.inner: StopAt | None = None

    def start(self, stage: str, total: int | None = None) -> None:
        self.inner = StopAt(self.step, KeyboardInterrupt()) if stage == "train" else None

    def advance(self, n: int = 1, *, note: str = "") -> None:
        if self.inner is not None:
            self.inner.advance(n)


@pytest.mark.parametrize("memory_gib", [0.5, 500.0])
@pytest.mark.parametrize("variants", [TEMPERATURES, None], ids=["shared", "alone"])
def test_a_trial_records_what_auto_came_to_on_this_device(
    root: Path, tmp_path: Path, memory_gib: float, variants: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {
        **describe_chaos(root, n_clips=2, n_variants=1)["defaults"]["train"],
        "gradient_checkpointing": "auto",
    }
    fields = {} if variants is not None else {"trials": {"variants": [{"name": "alone"}]}}
    trial = tuned(plan_two(root, defaults={"train": train}, **fields))[0]
    assert (trial.training is None) is (variants is None)
    monkeypatch.setattr(memory, "find_budget_gib", lambda *_: memory_gib)
    result = train_one(trial, tmp_path)
    is_on = memory_gib == 0.5
    assert result.gradient_checkpointing is is_on
    files = RunFolder(tmp_path / "runs" / NAME).trial(trial.id)
    assert read_json(files.train)["gradient_checkpointing"] is is_on
    assert read_json(files.adapter / "lora_bench.json")["train"]["gradient_checkpointing"] is is_on
