"""What was measured on one device forecasts that device only."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_graphs import gpu_by_mock

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.forecast import Forecaster, describe_accuracy, find_device, probe, read_history
from lora_bench.forecast.history import PROBES
from lora_bench.forecast.outcomes import Outcome
from lora_bench.machine import gpus
from lora_bench.machine.gpus import CPU, UNKNOWN
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.spec import ExperimentSpec
from lora_bench.store import write_json

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"
BUCKET = 8


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder in which the driver lists its GPUs: none."""
    monkeypatch.setattr(gpus, "GPU_FOLDERS", tmp_path / "proc")
    return tmp_path / "proc"


def list_gpu(folder: Path, number: int, name: str) -> None:
    place = folder / f"0000:{number:02d}:00.0" / "information"
    place.parent.mkdir(parents=True)
    place.write_text(f"Model: \t\t {name}\nIRQ:   \t\t 16\nGPU UUID: \t GPU-1\n", encoding="utf-8")


def plan_tuned(**changes: Any) -> TrialPlan:
    spec = {
        "schema": 1, "name": "t", "dataset": {"builtin": "chiptune", "clip_s": 1.0}, "prompts": ["a"],
        "generation": {"n_clips": 5, "clip_s": 0.5}, "metrics": ["mfcc20"],
        "defaults": {"train": {"steps": 10, "batch_size": 2}},
    }  # fmt: skip
    return plan_experiment(ExperimentSpec.model_validate(spec | changes)).trials[1]


def finish(runs: Path, name: str, generate_s: float, **state: str) -> TrialPlan:
    """A finished trial, on the device that its state names."""
    trial = plan_tuned()
    folder = runs / name / "trials" / trial.id
    write_json(folder / "trial.json", trial)
    write_json(folder / "train.json", {"wall_s": 1.0, "peak_memory_gib": generate_s})
    done = {"state": "done", "host": socket.gethostname(), "wall_s": {"generate": generate_s}}
    write_json(folder / "state.json", done | state)
    return trial


def test_a_record_counts_for_its_own_device_and_one_without_a_device_for_the_cpu(tmp_path: Path) -> None:
    trial = finish(tmp_path, "old", 100.0)
    finish(tmp_path, "one", 10.0, device=A100)
    finish(tmp_path, "other", 1.0, device=H100)
    history = read_history(tmp_path)
    for device, generate_s in ((CPU, 100.0), (A100, 10.0), (H100, 1.0)):
        found = Forecaster(history, device=device).predict(trial)
        assert (found.n_records, found.memory_gib) == (1, generate_s)
        assert found.time_s == pytest.approx(generate_s + 1.0)
    unknown = Forecaster(history, device=UNKNOWN).predict(trial)
    assert (unknown.time_s, unknown.n_records, unknown.memory_origin) == (None, 0, "shapes")


def test_the_device_is_the_gpu_that_the_driver_lists_or_that_records_name(
    listed: Path, tmp_path: Path
) -> None:
    finish(tmp_path, "old", 1.0)
    history = read_history(tmp_path)
    assert find_device(0, history) == CPU
    assert find_device(1, history) == UNKNOWN
    finish(tmp_path, "one", 1.0, device=A100)
    assert find_device(0.5, read_history(tmp_path)) == A100
    finish(tmp_path, "other", 1.0, device=H100)
    assert find_device(1, read_history(tmp_path)) == UNKNOWN
    list_gpu(listed, 0, H100)
    list_gpu(listed, 1, H100)
    assert find_device(1, read_history(tmp_path)) == H100
    list_gpu(listed, 2, A100)
    assert find_device(1, read_history(tmp_path)) == UNKNOWN


def test_accuracy_is_that_of_forecasts_for_the_same_device() -> None:
    outcomes = [
        Outcome("a", "host", "time", "probe", 30.0, 10.0),
        Outcome("b", "host", "time", "probe", 10.0, 10.0, device=H100),
    ]
    assert "factor of 3.0 in the median" in describe_accuracy(outcomes, "time", "probe", CPU)
    assert "factor of 1.0 in the median" in describe_accuracy(outcomes, "time", "probe", H100)
    assert describe_accuracy(outcomes, "time", "probe", A100) == ""


def test_a_probe_captures_before_it_times_and_keeps_its_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_random_musicgen(tmp_path / "tiny", TINY)
    trial = plan_tuned(model={"id": str(folder)}, generation={"n_clips": 6, "clip_s": 0.5})
    monkeypatch.setattr("lora_bench.models.decoding.small_batch_step.can_stream", lambda _: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: H100)
    monkeypatch.setattr(probe, "_time_training", lambda model, trial, record: record)
    with gpu_by_mock(BUCKET) as device:

        def tell_time() -> float:
            """A clock that only captures move on."""
            return float(device.n_captures)

        monkeypatch.setattr(probe.time, "monotonic", tell_time)
        record = probe.measure_probe(trial, tmp_path)
        n_captures = device.n_captures
    n_positions = 25 + 3
    assert n_captures == math.ceil(n_positions / BUCKET)
    assert record.generate_s == 0.0
    assert record.fixed_s == n_captures
    assert record.device == H100
    (kept,) = (tmp_path / PROBES).glob("*.json")
    assert json.loads(kept.read_text(encoding="utf-8"))["record"]["device"] == H100
    assert kept.stem != probe.make_key(trial, CPU)
    history = read_history(tmp_path)
    assert Forecaster(history, device=H100).predict(trial).n_records == 1
    assert Forecaster(history, device=CPU).predict(trial).n_records == 0
