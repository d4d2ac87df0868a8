"""Predictions against the loaded model, and against what earlier trials wrote."""

from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any

import pytest

from lora_bench.forecast import Forecaster, History, read_history
from lora_bench.forecast.adapters import match_targets, size_adapter
from lora_bench.forecast.history import PROBES, make_record
from lora_bench.forecast.shapes import find_shape
from lora_bench.plan import TrialPlan, plan_experiment
from lora_bench.spec import ExperimentSpec
from lora_bench.spec.schema import LoraSpec, ModelSpec
from lora_bench.store import to_jsonable, write_json

TARGETS: tuple[str | list[str], ...] = (
    "self_attention", "cross_attention", "attention", "ffn", "heads", "conditioning", "all", "attention+ffn",
    ["q_proj", "v_proj"], ["self_attn.q_proj"], ["layers.0"], ["attention", "fc1"], "re:.*fc[12]", ["lm_heads"],
)  # fmt: skip


def plan(**sections: Any) -> tuple[TrialPlan, ...]:
    """Trials of a small experiment on the embedded model."""
    base = {
        "schema": 1, "name": "t", "dataset": {"builtin": "chiptune", "clip_s": 4.0}, "prompts": ["a", "b"],
        "generation": {"n_clips": 5, "clip_s": 2.0}, "metrics": ["mfcc20"],
        "defaults": {"train": {"steps": 10, "batch_size": 2}},
    }  # fmt: skip
    return plan_experiment(ExperimentSpec.model_validate(base | sections)).trials


def finish(
    runs: Path, trial: TrialPlan, wall_s: dict[str, float], train: dict[str, Any] | None = None, **state: Any
) -> None:
    """Files of a finished trial."""
    folder = runs / "earlier" / "trials" / trial.id
    write_json(folder / "trial.json", trial)
    done = {"state": "done", "host": socket.gethostname(), "n_attempts": 1, "wall_s": wall_s}
    write_json(folder / "state.json", done | state)
    if train is not None:
        write_json(folder / "train.json", train)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """An earlier run of a zero-shot and a fine-tuned trial."""
    zero_shot, tuned = plan()
    finish(tmp_path, zero_shot, {"load": 1.0, "dataset": 1.0, "generate": 10.0, "score": 2.0})
    stages = {"load": 1.0, "dataset": 1.0, "train": 41.0, "generate": 10.0, "score": 2.0}
    finish(tmp_path, tuned, stages, {"wall_s": 40.0, "peak_memory_gib": 1.5})
    return tmp_path


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_an_adapters_size_is_that_of_the_injected_one(
    targets: str | list[str], use_dora: bool, pocket: Any
) -> None:
    lora = LoraSpec(rank=3, targets=targets, use_dora=use_dora)
    shape = find_shape(ModelSpec())
    assert shape is not None
    found = size_adapter(shape, lora)
    injected = pocket.inject_lora(lora, seed=0)
    pocket.remove_adapter()
    assert found.trainable_params == injected.trainable_params
    assert sum(found.matched_modules.values()) == sum(injected.matched_modules.values())
    assert found.problem is None


@pytest.fixture(scope="module")
def pocket() -> Any:
    """The embedded model."""
    from lora_bench.models import load_model

    return load_model(ModelSpec(), device="cpu")


def test_names_of_layers_are_those_of_the_model(pocket: Any) -> None:
    shape = find_shape(ModelSpec())
    assert shape is not None
    assert {linear.name for linear in shape.linears} == set(pocket.linear_module_names())
    info = pocket.info
    assert (shape.sample_rate_hz, shape.channels) == (
        info.audio_format.sample_rate_hz,
        info.audio_format.channels,
    )
    assert (shape.hop_samples, shape.n_codebooks) == (info.hop_samples, info.n_codebooks)


def test_a_target_that_matches_nothing_is_said_and_others_are_counted() -> None:
    shape = find_shape(ModelSpec())
    assert shape is not None
    matched, problem = match_targets(["q_proj", "nothing"], shape.linears)
    assert len(matched) == 12
    assert problem == "target `nothing` matches no module of the model"


def test_published_sizes_are_those_of_the_papers_model() -> None:
    small = find_shape(ModelSpec(id="facebook/musicgen-small"))
    assert small is not None
    # 24 layers x 8 projections of 1024 x 1024: rank 16 gives 192 x 16 x 2048
    assert size_adapter(small, LoraSpec(rank=16)).trainable_params == 192 * 16 * 2048
    stereo = find_shape(ModelSpec(id="facebook/musicgen-stereo-large"))
    assert stereo is not None
    assert (stereo.channels, stereo.n_codebooks) == (2, 8)
    assert find_shape(ModelSpec(id="somebody/else")) is None


def test_without_an_earlier_run_time_is_not_known_and_memory_is_estimated(tmp_path: Path) -> None:
    zero_shot, tuned = plan()
    found = Forecaster(read_history(tmp_path)).predict(tuned)
    assert (found.time_s, found.origin, found.memory_origin) == (None, "none", "shapes")
    assert found.memory_gib == pytest.approx(1.0, abs=0.25)  # mostly Python and its libraries
    on_gpu = Forecaster(read_history(tmp_path), has_gpu=True).predict(tuned)
    assert on_gpu.memory_gib == pytest.approx(0.1, abs=0.1)
    untrained = Forecaster(read_history(tmp_path)).predict(zero_shot)
    assert (untrained.memory_gib, untrained.memory_origin) == (None, "none")
    assert found.adapter is not None
    n_samples = 2 * 16_000
    clips = 10 * (44 + 2 * n_samples + 128 + 2 * 4 * 100)
    assert found.disk_bytes == clips + found.adapter.n_bytes


def test_time_is_in_proportion_to_steps_and_clips_of_earlier_trials(runs: Path) -> None:
    forecaster = Forecaster(read_history(runs))
    zero_shot, tuned = plan()
    assert forecaster.predict(zero_shot).time_s == pytest.approx(14.0)
    found = forecaster.predict(tuned)
    assert (found.origin, found.memory_origin, found.n_records) == ("earlier trials", "earlier trials", 2)
    assert found.time_s == pytest.approx(54.0)
    (_, longer) = plan(
        defaults={"train": {"steps": 20, "batch_size": 2}}, generation={"n_clips": 10, "clip_s": 2.0}
    )
    assert forecaster.predict(longer).time_s == pytest.approx(2 + 20 + 4 + 80)


def test_memory_is_that_of_the_same_load_or_in_proportion_to_it(runs: Path) -> None:
    same = Forecaster(read_history(runs)).predict(plan()[1])
    assert same.memory_gib == 1.5
    (_, larger) = plan(defaults={"train": {"batch_size": 4}})
    assert Forecaster(read_history(runs)).predict(larger).memory_gib == 3.0
    finish(runs, larger, {"generate": 10.0}, {"wall_s": 40.0, "peak_memory_gib": 2.0})
    (_, largest) = plan(defaults={"train": {"batch_size": 8}})
    assert Forecaster(read_history(runs)).predict(largest).memory_gib == pytest.approx(3.0)


@pytest.mark.parametrize("state", [{"state": "failed"}, {"host": "another"}, {"n_attempts": 2}], ids=str)
def test_trials_that_failed_resumed_or_ran_elsewhere_do_not_count(
    state: dict[str, Any], tmp_path: Path
) -> None:
    finish(tmp_path, plan()[0], {"generate": 10.0}, **state)
    assert read_history(tmp_path) == History(())


def test_damaged_records_are_left_out(runs: Path) -> None:
    for place in runs.glob("*/trials/*/trial.json"):
        place.write_text("{", encoding="utf-8")
    assert read_history(runs) == History(())


@pytest.mark.parametrize(
    "way", [{"precision": "bfloat16"}, {"gradient_checkpointing": True}, {"compile": True}], ids=str
)
def test_memory_and_time_come_from_steps_that_were_computed_alike(
    way: dict[str, Any], tmp_path: Path
) -> None:
    train = {"steps": 10, "batch_size": 2}
    plain, other = (plan(defaults={"train": train | changes})[1] for changes in ({}, way))
    stages = {"generate": 10.0}
    finish(tmp_path, plain, stages, {"wall_s": 40.0, "peak_memory_gib": 1.5})
    finish(tmp_path, other, stages, {"wall_s": 20.0, "peak_memory_gib": 0.5})
    forecaster = Forecaster(read_history(tmp_path))
    assert [forecaster.predict(trial).memory_gib for trial in (plain, other)] == [1.5, 0.5]
    assert [forecaster.predict(trial).time_s for trial in (plain, other)] == pytest.approx([50.0, 30.0])


def test_a_probe_counts_where_there_is_no_trial(tmp_path: Path, runs: Path) -> None:
    trial = plan()[1]
    record = make_record(trial, {"generate": 20.0}, {"wall_s": 40.0, "peak_memory_gib": 1.0})
    probe = {"host": socket.gethostname(), "record": to_jsonable(record) | {"origin": "probe"}}
    write_json(tmp_path / "empty" / PROBES / "x.json", probe)
    found = Forecaster(read_history(tmp_path / "empty")).predict(trial)
    assert found.origin == "probe"
    assert found.time_s == pytest.approx(60.0)
    write_json(runs / PROBES / "x.json", probe)
    assert Forecaster(read_history(runs)).predict(trial).origin == "earlier trials"


@pytest.mark.slow
def test_a_probe_measures_the_embedded_model(tmp_path: Path) -> None:
    from lora_bench.forecast.probe import measure_probe

    trial = plan(dataset={"builtin": "chiptune", "clip_s": 1.0}, generation={"n_clips": 2, "clip_s": 0.5})[1]
    record = measure_probe(trial, tmp_path)
    assert record.train_rate is not None
    assert record.generate_rate is not None
    assert record.peak_memory_gib is not None
    assert all(
        math.isfinite(v) and v > 0 for v in (record.train_rate, record.generate_rate, record.peak_memory_gib)
    )
    assert Forecaster(read_history(tmp_path)).predict(trial).origin == "probe"
