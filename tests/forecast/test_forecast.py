"""Predictions against the loaded model, and against what earlier trials wrote."""

from __future__ import annotations

import json
import math
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from lora_bench.cli.main import main
from lora_bench.cli.targets import find_unmatched_targets
from lora_bench.forecast import (
    Forecaster,
    History,
    describe_accuracy,
    forecast_cache,
    keep_outcomes,
    read_history,
    read_outcomes,
)
from lora_bench.forecast.adapters import match_targets, size_adapter
from lora_bench.forecast.history import PROBES, ProbeRecord, make_record
from lora_bench.forecast.remaining import read_step
from lora_bench.forecast.scaling import scale_figure
from lora_bench.forecast.shapes import find_shape
from lora_bench.machine.gpus import UNKNOWN
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.results.run_files import TrainFile
from lora_bench.slugs import prompt_slugs
from lora_bench.spec import ExperimentSpec
from lora_bench.spec.schema import LoraSpec, ModelSpec
from lora_bench.store import write_json, write_text

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


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (
            ["q_proj", ".*decoder.*fc1"],
            ["`.*decoder.*fc1` matches no module", "`re:.*decoder.*fc1` matches 6"],
        ),
        (
            ["re:fc1", "q_prj"],
            ["`re:fc1` matches no", "begin it with `.*`: `re:.*fc1`", "did you mean `q_proj`"],
        ),
        (["fc1", "zzz"], ["`zzz` matches no module", "groups are self_attention", "encoder_attn.q_proj, "]),
        ("re:.*nothing", ["`re:.*nothing` matches no module"]),
        (["re:(", "fc1"], ["`re:(` matches no module"]),
        (["attention", "re:.*fc[12]"], []),
        ("attention+ffn", []),
    ],
)
def test_every_target_without_a_module_is_refused_before_anything_runs(
    targets: str | list[str], words: list[str]
) -> None:
    spec = {
        "schema": 1, "name": "t", "dataset": {"builtin": "chiptune"}, "prompts": ["a"],
        "defaults": {"lora": {"targets": targets}},
    }  # fmt: skip
    problems = find_unmatched_targets(plan_experiment(ExperimentSpec.model_validate(spec)), "t.yaml")
    text = "\n".join(map(str, problems))
    assert bool(problems) == bool(words)
    assert all(each in text for each in words), text
    assert all(str(problem).startswith("t.yaml: `lora.targets` of `") for problem in problems)


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
    on_gpu = Forecaster(read_history(tmp_path), device=UNKNOWN).predict(tuned)
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
    assert found.time_basis == "same settings"
    (_, longer) = plan(
        defaults={"train": {"steps": 20, "batch_size": 2}}, generation={"n_clips": 10, "clip_s": 2.0}
    )
    assert forecaster.predict(longer).time_s == pytest.approx(2 + 20 + 4 + 80)
    assert forecaster.predict(longer).time_basis == "other settings"


def test_a_line_through_two_amounts_tells_work_from_what_each_trial_takes() -> None:
    assert scale_figure([(10.0, 15.0)], 20.0) == 30.0
    assert scale_figure([(10.0, 15.0), (20.0, 25.0)], 100.0) == pytest.approx(105.0)
    assert scale_figure([(10.0, 15.0), (20.0, 25.0)], 1.0) == pytest.approx(6.0)
    assert scale_figure([(10.0, 5.0), (20.0, 25.0)], 40.0) == pytest.approx(50.0)  # no negative start
    assert scale_figure([(10.0, 25.0), (20.0, 20.0)], 40.0) == pytest.approx(
        40.0
    )  # the nearest, in proportion
    assert scale_figure([], 1.0) is None


@pytest.mark.parametrize(
    ("changes", "memory_is_same", "time_is_same"),
    [
        ({"repeats": {"train_seeds": [7]}}, True, True),
        ({"defaults": {"train": {"steps": 10, "batch_size": 2, "lr": 0.5}}}, True, True),
        ({"defaults": {"train": {"steps": 20, "batch_size": 2}}}, True, False),
        ({"defaults": {"lora": {"rank": 64}, "train": {"steps": 10, "batch_size": 2}}}, False, False),
        ({"defaults": {"train": {"steps": 10, "batch_size": 3}}}, False, False),
        ({"metrics": ["mfcc20-seed"]}, True, False),
        ({"generation": {"n_clips": 6, "clip_s": 2.0}}, True, False),
        ({"generation": {"n_clips": 5, "clip_s": 2.0, "quantization": "int8"}}, True, False),
    ],
)
def test_a_figure_is_measured_only_if_the_settings_that_decide_it_are_the_same(
    changes: dict[str, Any], memory_is_same: bool, time_is_same: bool, runs: Path
) -> None:
    found = Forecaster(read_history(runs)).predict(plan(**changes)[1])
    assert (found.memory_basis == "same settings") is memory_is_same
    assert (found.time_basis == "same settings") is time_is_same


def test_what_is_finished_is_not_charged_again(runs: Path) -> None:
    forecaster, (_, trial) = Forecaster(read_history(runs)), plan()
    folder = runs / "mine" / "trials" / trial.id
    whole = forecaster.predict(trial, folder).time_s
    assert whole == pytest.approx(54.0)
    facts = json.dumps({"__metadata__": {"state": json.dumps({"step": 5})}}).encode()
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "state.safetensors").write_bytes(len(facts).to_bytes(8, "little") + facts)
    assert forecaster.predict(trial, folder).time_s == pytest.approx(34.0)  # half of 40 s of training
    (folder / "adapter").mkdir()
    write_json(folder / "train.json", {})
    trained = forecaster.predict(trial, folder)
    assert trained.time_s == pytest.approx(14.0)
    assert (trained.is_trained, trained.memory_gib) == (True, None)
    for slug in prompt_slugs(trial.prompts).values():
        for clip in range(9):
            write_text(folder / "clips" / slug / f"{clip:03}.wav", "")
    assert forecaster.predict(trial, folder).time_s == pytest.approx(4.0)


def test_a_checkpoint_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    for data in (b"", b"x", b"\xff" * 20, (2).to_bytes(8, "little") + b"{}"):
        (tmp_path / "c").write_bytes(data)
        assert read_step(tmp_path / "c") == 0


def test_forecasts_are_kept_next_to_what_was_measured(runs: Path) -> None:
    forecaster, (zero_shot, trial) = Forecaster(read_history(runs)), plan(metrics=["mfcc20-seed"])
    predictions = {item.id: forecaster.predict(item) for item in (zero_shot, trial)}
    assert predictions[trial.id].time_s == pytest.approx(54.0)
    finish(runs, trial, {}, {"peak_memory_gib": 3.0}, attempt_s=27.0)
    keep_outcomes(runs, runs / "earlier", predictions)
    time, memory = [item for item in read_outcomes(runs) if item.trial == trial.id]
    assert (time.basis, time.factor, memory.basis, memory.factor) == (
        "other settings", pytest.approx(2.0), "same settings", pytest.approx(2.0),
    )  # fmt: skip
    assert describe_accuracy(read_outcomes(runs), "time", "other settings") == (
        "; such forecasts were off by a factor of 2.0 in the median, 2.0 at most (1 trial)"
    )
    assert describe_accuracy(read_outcomes(runs), "time", "same settings") == ""
    place = runs / ".cache" / "forecast" / "outcomes.jsonl"
    place.write_text("{\n[]\n" + place.read_text(encoding="utf-8"), encoding="utf-8")
    assert len(read_outcomes(runs)) == 2
    assert read_history(runs).records[0].origin == "trial"  # it is no record of a trial


def test_plan_marks_what_is_scaled_and_says_how_far_that_was_off(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = {"trial": "x", "host": socket.gethostname(), "kind": "time", "basis": "other settings"}
    line = json.dumps(outcome | {"predicted": 30.0, "measured": 10.0})
    write_text(runs / ".cache" / "forecast" / "outcomes.jsonl", f"{line}\n")
    spec = runs / "t.yaml"
    text = """schema: 1
dataset: {builtin: chiptune, clip_s: 4}
prompts: [a, b]
generation: {n_clips: 5, clip_s: 2}
metrics: [mfcc20]
defaults: {train: {steps: 10, batch_size: 2}}
trials: {variants: [{name: same}, {name: longer, train: {steps: 30}}]}
"""
    spec.write_text(text, encoding="utf-8")
    assert main(["plan", str(spec), "--runs-dir", str(runs)]) == 0
    rows = capsys.readouterr().out.splitlines()
    same, longer = rows[3].split(), rows[4].split()
    assert (same[10:12], same[-3:]) == (["1.5", "GiB"], ["54", "s", "new"])
    assert (longer[10:12], longer[-3:]) == (["1.5", "GiB"], ["~2", "min", "new"])
    assert "memory with pocket: from earlier trials with the same settings on this machine" in rows
    assert (
        "time with pocket: ~ is scaled from 2 earlier trials on this machine, with other settings; such forecasts "
        "were off by a factor of 3.0 in the median, 3.0 at most (1 trial)"
    ) in rows
    assert "of disk, including about 1" in rows[-1]  # 145 MB of cache
    assert "MB of cache" in rows[-1]


def test_the_cache_is_forecast_until_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    for song in range(3):
        soundfile.write(folder / f"{song}.wav", np.zeros(8_000 * 10), 8_000)
    spec = {"dataset": {"path": folder.as_posix(), "captions": {"text": "a"}}}
    base = {"schema": 1, "name": "t", "prompts": ["a"], "metrics": ["mfcc20"]}
    planned = plan_experiment(ExperimentSpec.model_validate(base | spec))
    samples = 30 * 16_000 * 4  # 30 s at the model's rate as float32
    assert forecast_cache(planned, tmp_path / "run") == pytest.approx(samples, rel=0.2)
    write_json(tmp_path / "run" / "dataset.json", {})
    assert forecast_cache(planned, tmp_path / "run") == 0
    built_in = plan_experiment(ExperimentSpec.model_validate(base | {"dataset": {"builtin": "chiptune"}}))
    assert forecast_cache(built_in, tmp_path / "other") == pytest.approx(145e6, rel=0.05)  # measured


def test_memory_is_that_of_the_same_settings_or_differs_by_what_shapes_say(runs: Path) -> None:
    same = Forecaster(read_history(runs)).predict(plan()[1])
    assert same.memory_gib == 1.5
    assert same.memory_basis == "same settings"
    (_, larger) = plan(defaults={"train": {"batch_size": 4}})
    found = Forecaster(read_history(runs)).predict(larger)
    empty = Forecaster(History(()))
    shapes = [empty.predict(trial).memory_gib or 0.0 for trial in (plan()[1], larger)]
    assert found.memory_gib == pytest.approx(
        1.5 + shapes[1] - shapes[0]
    )  # not twice: most of it is not batch
    assert found.memory_basis == "other settings"
    finish(runs, larger, {"generate": 10.0}, {"wall_s": 40.0, "peak_memory_gib": 2.0})
    (_, largest) = plan(defaults={"train": {"batch_size": 8}})
    from_nearest = Forecaster(read_history(runs)).predict(largest).memory_gib
    shapes.append(empty.predict(largest).memory_gib or 0.0)
    assert from_nearest == pytest.approx(2.0 + shapes[2] - shapes[1])


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
    record = make_record(trial, {"wall_s": {"generate": 20.0}}, TrainFile(wall_s=40.0, peak_memory_gib=1.0))
    probe = ProbeRecord(socket.gethostname(), "2026-01-01T00:00:00", replace(record, origin="probe"))
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
    figures = [v for v in (record.train_s, record.generate_s, record.peak_memory_gib) if v is not None]
    assert len(figures) == 3
    assert all(math.isfinite(v) and v > 0 for v in figures)
    assert Forecaster(read_history(tmp_path)).predict(trial).origin == "probe"
