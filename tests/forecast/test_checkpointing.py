"""`train.gradient_checkpointing: auto` is on only where training without it does not fit."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_bench.cli.main import main
from lora_bench.forecast import Forecaster, prediction, read_history
from lora_bench.forecast.checkpointing import (
    Checkpointing,
    estimate_peak_gib,
    resolve_checkpointing,
    set_checkpointing,
)
from lora_bench.forecast.footprint import HALF, Arithmetic, estimate_training
from lora_bench.forecast.history import History
from lora_bench.forecast.shapes import ModelShape, find_shape
from lora_bench.machine import memory as host_memory
from lora_bench.machine.gpus import count_sharing
from lora_bench.models import memory
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.spec import ExperimentSpec
from lora_bench.store import write_json

GIB = 2**30
MEDIUM, LARGE = "facebook/musicgen-medium", "facebook/musicgen-large"
SPEC = """schema: 1
name: t
model: {{id: {model}}}
dataset: {{builtin: chiptune, clip_s: 30}}
prompts: [a]
metrics: [mfcc20]
resources: {{gpu: 1}}
defaults: {{train: {{gradient_checkpointing: {value}}}}}
trials: {{grid: {{name: "b{{train.batch_size}}", axes: {{train.batch_size: [1, 2, 4]}}}}}}
"""


def plan_one(value: object = "auto", model: str = MEDIUM, **train: object) -> TrialPlan:
    spec = {
        "schema": 1, "name": "t", "model": {"id": model}, "dataset": {"builtin": "chiptune", "clip_s": 30.0},
        "prompts": ["a"], "metrics": ["mfcc20"], "defaults": {"train": {"gradient_checkpointing": value, **train}},
    }  # fmt: skip
    return plan_experiment(ExperimentSpec.model_validate(spec)).trials[1]


def find(trial: TrialPlan) -> ModelShape:
    shape = find_shape(trial.model)
    assert shape is not None
    return shape


@pytest.mark.parametrize("has_gpu", [False, True])
def test_it_is_on_above_the_memory_of_the_device_and_off_at_it(has_gpu: bool) -> None:
    trial = plan_one()
    assert trial.lora is not None
    assert trial.train is not None
    shape = find(trial)
    plain = trial.train.model_copy(update={"gradient_checkpointing": False})
    arithmetic = Arithmetic("cuda", HALF) if has_gpu else Arithmetic("cpu")
    footprint = estimate_training(shape, trial.lora, plain, 30.0, arithmetic, keeps_encoders=not has_gpu)
    needed_gib = footprint.predict_peak_gib(arithmetic.device)
    if has_gpu:  # 1.2 times the tensors, and 1 GiB of CUDA
        needed_gib = 1.2 * needed_gib + 1.0

    def resolve(memory_gib: float) -> Checkpointing | None:
        return resolve_checkpointing(trial, shape, memory_gib, has_gpu=has_gpu)

    assert resolve(needed_gib) == Checkpointing(is_on=False, needed_gib=needed_gib, memory_gib=needed_gib)
    below_gib = math.nextafter(needed_gib, 0.0)
    assert resolve(below_gib) == Checkpointing(is_on=True, needed_gib=needed_gib, memory_gib=below_gib)


@pytest.mark.parametrize("value", [False, True])
def test_a_stated_value_stands(value: bool) -> None:
    trial = plan_one(value)
    assert resolve_checkpointing(trial, find(trial), 0.0, has_gpu=True) is None


def test_it_is_off_where_a_size_is_unknown() -> None:
    trial = plan_one()
    assert resolve_checkpointing(trial, None, 1.0, has_gpu=True) == Checkpointing(
        is_on=False, needed_gib=None, memory_gib=1.0
    )
    found = resolve_checkpointing(trial, find(trial), None, has_gpu=True)
    assert found is not None
    assert (found.is_on, found.memory_gib) == (False, None)


def test_an_unresolved_value_is_no_value() -> None:
    trial = plan_one()
    with pytest.raises(ValueError, match=r"train\.gradient_checkpointing is auto; a device makes it true or"):
        estimate_peak_gib(trial, find(trial), has_gpu=True)


def test_ids_depend_on_what_is_asked_and_not_on_the_device() -> None:
    small = "facebook/musicgen-small"
    ids = {value: plan_one(value, small).id for value in (False, True, "auto")}
    assert len(set(ids.values())) == 3
    spec = {
        "schema": 1,
        "name": "t",
        "model": {"id": small},
        "dataset": {"builtin": "chiptune"},
        "prompts": ["a"],
    }
    for value, hash8 in ((False, "014964e9"), (True, "3932872c")):  # of runs before there was `auto`
        train = {"train": {"gradient_checkpointing": value}}
        plain = ExperimentSpec.model_validate({**spec, "metrics": ["mfcc20"], "defaults": train})
        assert plan_experiment(plain).trials[1].hash8 == hash8
    trial = plan_one()
    assert {set_checkpointing(trial, is_on=is_on).id for is_on in (False, True)} == {trial.id}


@pytest.mark.parametrize(
    ("gpu", "model", "line"),
    [
        ("RTX 4090", MEDIUM, "on for 1 of 3 trials: without it up to 28.2 GiB are needed of 22.4"),
        ("RTX 4090", LARGE, "on for 2 of 3 trials: without it up to 39.0 GiB are needed of 22.4"),
        ("H100 80GB", MEDIUM, "off for 3 trials: without it up to 28.2 GiB are needed of 74.5"),
        ("H100 80GB", LARGE, "off for 3 trials: without it up to 39.0 GiB are needed of 74.5"),
    ],
)
def test_plan_says_what_it_comes_to_on_a_card(
    gpu: str, model: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, options = tmp_path / "t.yaml", ["--runs-dir", str(tmp_path / "runs"), "--gpu", gpu]
    spec.write_text(SPEC.format(model=model, value="auto"), encoding="utf-8")
    main(["plan", str(spec), *options])  # fails after the plan: the model is not here
    assert f"gradient checkpointing: {line}\n" in capsys.readouterr().out
    main(["plan", str(spec), *options, "--json"])
    document = json.loads(capsys.readouterr().out)
    predicted = [each["predicted"] for each in document["trials"] if each["train"] is not None]
    n_on = int(line.split()[2]) if line.startswith("on") else 0
    assert sum(each["gradient_checkpointing"]["is_on"] for each in predicted) == n_on
    # the forecast is that of the value: the same as where the spec states it
    stated = tmp_path / "stated.yaml"
    stated.write_text(SPEC.format(model=model, value=str(bool(n_on)).lower()), encoding="utf-8")
    main(["plan", str(stated), *options, "--json"])
    others = [
        each["predicted"]
        for each in json.loads(capsys.readouterr().out)["trials"]
        if each["train"] is not None
    ]
    assert all("gradient_checkpointing" not in each for each in others)
    for one, other in zip(predicted, others, strict=True):
        is_same = one["gradient_checkpointing"]["is_on"] == bool(n_on)
        assert (one["memory_gib"] == other["memory_gib"]) is is_same
        assert (one["time_s"] == other["time_s"]) is is_same


def test_plan_leaves_it_to_the_training_on_an_unknown_gpu_and_looks_at_the_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, runs = tmp_path / "t.yaml", str(tmp_path / "runs")
    spec.write_text(SPEC.format(model=MEDIUM, value="auto"), encoding="utf-8")
    main(["plan", str(spec), "--runs-dir", runs])
    assert "gradient checkpointing: unknown for 3 trials until training starts" in capsys.readouterr().out
    monkeypatch.setattr(prediction, "count_free_bytes", lambda: 7 * GIB)
    main(["plan", str(spec), "--runs-dir", runs, "-o", "resources.gpu=0"])
    out = capsys.readouterr().out
    assert "gradient checkpointing: on for 3 of 3 trials" in out
    assert "GiB are needed of 7.0\n" in out
    spec.write_text(SPEC.format(model=MEDIUM, value="auto").replace("[1, 2, 4]", "[4]"), encoding="utf-8")
    main(["plan", str(spec), "--runs-dir", runs, "-o", "resources.gpu=0"])
    assert "gradient checkpointing: on for 1 of 1 trial: without it" in capsys.readouterr().out


def test_trials_that_share_a_gpu_share_its_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "t.yaml"
    spec.write_text(SPEC.format(model=MEDIUM, value="auto"), encoding="utf-8")
    shared = ["-o", "resources.gpu=0.25", "--gpu", "H100 80GB", "--runs-dir", str(tmp_path / "runs")]
    main(["plan", str(spec), *shared])
    assert "on for 1 of 3 trials: without it up to 28.2 GiB are needed of 18.6" in capsys.readouterr().out
    assert [count_sharing(n) for n in (0.0, 0.1, 0.25, 0.3, 0.5, 1.0, 2.0)] == [1, 10, 4, 3, 2, 1, 1]


def test_the_mend_of_a_misfit_is_not_what_is_set_already(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "t.yaml"
    for value, is_offered in (("false", True), ("true", False), ("auto", False)):
        large = SPEC.replace("[1, 2, 4]", "[64]")
        spec.write_text(large.format(model=MEDIUM, value=value), encoding="utf-8")
        options = ["-o", "generation.batch_size=1", "--gpu", "RTX 4070", "--runs-dir", str(tmp_path / "runs")]
        main(["plan", str(spec), *options])
        out = capsys.readouterr().out
        assert "lower train.batch_size" in out
        assert ("or set train.gradient_checkpointing: auto" in out) is is_offered


def finish(runs: Path, trial: TrialPlan, train: dict[str, Any]) -> None:
    folder = runs / "earlier" / "trials" / trial.id
    write_json(folder / "trial.json", trial)
    wall_s = {"load": 1.0, "dataset": 1.0, "generate": 10.0}
    state = {"state": "done", "host": socket.gethostname(), "n_attempts": 1, "wall_s": wall_s}
    write_json(folder / "state.json", state)
    write_json(folder / "train.json", train)


@pytest.mark.parametrize("used", [False, True])
def test_an_earlier_trial_counts_for_the_value_that_it_used(used: bool, tmp_path: Path) -> None:
    figures = {"wall_s": 40.0, "peak_memory_gib": 1.5}
    finish(tmp_path, plan_one(), {**figures, "gradient_checkpointing": used})
    forecaster = Forecaster(read_history(tmp_path))
    bases = [forecaster.predict(plan_one(value)).memory_basis for value in (used, not used)]
    assert bases == ["same settings", "other settings"]


def test_an_earlier_trial_without_the_value_is_left_out(tmp_path: Path) -> None:
    finish(tmp_path, plan_one(), {"wall_s": 40.0, "peak_memory_gib": 1.5})
    assert read_history(tmp_path) == History(())


def test_memory_of_a_training_is_a_share_of_the_gpu_or_what_is_free_and_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "total_gib", lambda _: 80.0)
    assert memory.find_budget_gib(torch.device("cuda"), 4) == 20.0
    monkeypatch.setattr(memory, "available_bytes", lambda _: 3 * GIB)
    monkeypatch.setattr(memory, "count_resident_bytes", lambda: GIB)
    assert memory.find_budget_gib(torch.device("cpu"), 4) == 4.0


@pytest.mark.parametrize(("allowed", "expected"), [(None, 5), (2, 2), (9, 5)])
def test_free_memory_is_that_of_the_machine_or_of_its_control_group(
    allowed: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    class Free:
        available = 5

    monkeypatch.setattr(psutil, "virtual_memory", Free)
    monkeypatch.setattr(host_memory, "_count_free_in_group", lambda: allowed)
    assert host_memory.count_free_bytes() == expected


@pytest.mark.slow
def test_a_probe_measures_with_the_value_of_this_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_bench.forecast.probe import measure_probe

    monkeypatch.setattr(memory, "find_budget_gib", lambda *_: 0.5)
    spec = {
        "schema": 1, "name": "t", "dataset": {"builtin": "chiptune", "clip_s": 1.0}, "prompts": ["a"],
        "generation": {"n_clips": 2, "clip_s": 0.5}, "metrics": ["mfcc20"],
        "defaults": {"train": {"gradient_checkpointing": "auto", "batch_size": 2}},
    }  # fmt: skip
    trial = plan_experiment(ExperimentSpec.model_validate(spec)).trials[1]
    record = measure_probe(trial, tmp_path)
    assert record.trial == set_checkpointing(trial, is_on=True)
    (known,) = read_history(tmp_path).records
    assert known.trial == record.trial
