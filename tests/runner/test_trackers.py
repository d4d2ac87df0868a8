"""Trackers get the curves and scores of trials from their files, and nothing without being asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from lora_bench.artifacts import LossPoint, Score
from lora_bench.errors import ResourceError
from lora_bench.progress import SilentProgress
from lora_bench.runner import trackers as tracking
from lora_bench.runner.trackers import TrialFeed, open_trackers, track_trials
from lora_bench.store import write_json


class Notebook:
    """A tracker that keeps what it is told; the `n_good` first figures only, where that is given."""

    def __init__(self, n_good: int | None = None) -> None:
        self.told: list[tuple[str, str, float, int]] = []
        self.n_good = n_good
        self.is_closed = False

    def log(self, trial_id: str, name: str, value: float, step: int) -> None:
        if self.n_good is not None and len(self.told) >= self.n_good:
            raise ConnectionError("the service is gone")
        self.told.append((trial_id, name, value, step))

    def close(self) -> None:
        self.is_closed = True


class Log(SilentProgress):
    """Keeps lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)


def write_running(folder: Path, step: int, loss: float) -> None:
    write_json(folder / "state.json", {"state": "running"})
    write_json(
        folder / "progress.json", {"stage": "train", "done": step, "total": 9, "note": f"loss {loss:.3f}"}
    )


def write_done(folder: Path) -> None:
    curve = [LossPoint(0, None, 4.0, 1e-4, 0.0), LossPoint(9, 3.0, 3.5, 5e-5, 1.0)]
    write_json(folder / "train.json", {"curve": curve})
    scores = [Score("mfcc20", "A March", 0.5, 2, 4, 20, corrected=0.25), Score("encodec", None, 7.0, 2, 4, 8)]
    write_json(folder / "scores.json", {"scores": scores})
    write_json(folder / "state.json", {"state": "done"})


FINISHED = [
    ("t", "loss/held-out", 4.0, 0),
    ("t", "train/learning rate", 1e-4, 0),
    ("t", "loss/training", 3.0, 9),
    ("t", "loss/held-out", 3.5, 9),
    ("t", "train/learning rate", 5e-5, 9),
    ("t", "score mfcc20/a-march", 0.25, 9),
    ("t", "score encodec/all prompts", 7.0, 9),
]


def test_a_trial_is_followed_step_by_step_and_told_whole_when_it_is_done(tmp_path: Path) -> None:
    folder, notebook = tmp_path / "trials" / "t", Notebook()
    feed = TrialFeed([notebook], tmp_path, ["t"], SilentProgress())
    feed.look()
    write_running(folder, 1, 4.5)
    feed.look()
    feed.look()  # nothing new
    write_running(folder, 2, 4.25)
    feed.look()
    assert notebook.told == [("t", "live/loss", 4.5, 1), ("t", "live/loss", 4.25, 2)]
    write_done(folder)
    feed.look()
    feed.look()
    assert notebook.told[2:] == FINISHED


def test_results_of_an_earlier_attempt_are_not_told_as_new(tmp_path: Path) -> None:
    folder, notebook = tmp_path / "trials" / "t", Notebook()
    write_done(folder)
    feed = TrialFeed([notebook], tmp_path, ["t"], SilentProgress())
    feed.look()
    assert notebook.told == []
    write_running(folder, 1, 4.0)
    feed.look()
    write_done(folder)
    feed.look()
    assert notebook.told == [("t", "live/loss", 4.0, 1), *FINISHED]


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    good, bad, log = Notebook(), Notebook(n_good=1), Log()
    feed = TrialFeed([bad, good], tmp_path, ["t"], log)
    write_done(tmp_path / "trials" / "t")
    feed._stale.clear()
    feed.look()
    feed.close()
    assert good.told == FINISHED
    assert len(bad.told) == 1
    assert log.lines == ["Notebook failed and is disabled: the service is gone"]
    assert good.is_closed


def read_events(file: Path) -> list[tuple[str, float, int]]:
    """Scalars of an event file; the records' checksums are checked."""
    data, found, at = file.read_bytes(), [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        assert int.from_bytes(data[at + 8 : at + 12], "little") == masked_crc32c(data[at : at + 8])
        event = Event.FromString(data[at + 12 : at + 12 + length])
        found += [(value.tag, value.simple_value, event.step) for value in event.summary.value]
        at += 12 + length + 4
    return found


def test_tensorboard_files_hold_every_figure(tmp_path: Path) -> None:
    with track_trials(["tensorboard"], tmp_path, {"t": {}}, SilentProgress()):
        write_done(tmp_path / "trials" / "t")
    (file,) = (tmp_path / "tensorboard" / "t").iterdir()
    told = read_events(file)
    assert [(step, pytest.approx(value)) for _, value, step in told] == [(s, v) for _, _, v, s in FINISHED]
    assert "loss/held-out" in {name for name, _, _ in told}


def test_a_package_that_is_not_there_is_named_before_any_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ResourceError, match="mlflow needs the package mlflow, which is not installed"):
        open_trackers(["mlflow"], tmp_path, {})


def test_mlflow_gets_one_run_per_trial_with_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    class Client:
        """Records calls as mlflow's client takes them."""

        def __getattr__(self, name: str) -> Any:
            def call(*args: Any, **options: Any) -> Any:
                calls.append((name, *args, *options.values()))
                info = ModuleType("info")
                info.run_id = "r1"  # type: ignore[attr-defined]
                made = ModuleType("run")
                made.info = info  # type: ignore[attr-defined]
                return {"get_experiment_by_name": None, "create_experiment": "e1"}.get(name, made)

            return call

    module = ModuleType("mlflow")
    module.MlflowClient = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    (tracker,) = open_trackers(["mlflow"], tmp_path, {"t": {"lora": {"rank": 4}}})
    tracker.log("t", "loss/training", 3.0, 9)
    tracker.log("t", "score mfcc20@codec/all prompts", 2.0, 10)
    tracker.close()
    assert [call[0] for call in calls] == [
        "get_experiment_by_name", "create_experiment", "create_run", "log_param", "log_metric", "log_metric",
        "set_terminated",
    ]  # fmt: skip
    assert calls[4] == ("log_metric", "r1", "loss/training", 3.0, 9)
    assert calls[5][2] == "score mfcc20 codec/all prompts"  # MLflow refuses @


def test_nothing_is_opened_without_being_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "open_trackers", lambda *_: pytest.fail("opened"))
    with track_trials([], tmp_path, {"t": {}}, SilentProgress()):
        pass
    assert list(tmp_path.iterdir()) == []
