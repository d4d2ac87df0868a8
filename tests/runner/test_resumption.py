"""Growing an experiment does only what is new, and trials that were stopped early are never results."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.chaos_lives import NAME, live, plan_chaos

from lora_bench import models
from lora_bench.evaluation import trial_scores as judging
from lora_bench.models import device as devices
from lora_bench.models import loading
from lora_bench.models.model_files import find_model_folder, hash_weights
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.progress import SilentProgress
from lora_bench.runner import preparation, trial
from lora_bench.spec import ExperimentSpec
from lora_bench.stages import generate, tokens, train
from lora_bench.stages.dataset import prepare_dataset, recordings
from lora_bench.store import Store, hash_file, hash_json, read_json, to_jsonable, write_json


def change(plan: ExperimentPlan, **fields: Any) -> ExperimentPlan:
    """The plan of the same spec with other fields."""
    return plan_experiment(ExperimentSpec.model_validate({**to_jsonable(plan.spec), **fields}))


class Executions:
    """Counts what is done, by stage: recordings, slices, training steps, clips, embedded clips."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def count(self, patch: pytest.MonkeyPatch, owner: Any, name: str, stage: str, size: Any) -> None:
        original = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.counts[stage] += size(*arguments)
            return original(*arguments, **named)

        patch.setattr(owner, name, counted)

    def take(self) -> dict[str, int]:
        """What was done since the last time."""
        found = {stage: n for stage, n in self.counts.items() if n}
        self.counts.clear()
        return found


@pytest.fixture(scope="module")
def executions() -> Iterator[Executions]:
    found = Executions()
    with pytest.MonkeyPatch.context() as patch:
        found.count(patch, recordings, "_write_prepared", "recordings", lambda *_: 1)
        found.count(patch, tokens, "_encode", "token sets", lambda *_: 1)
        found.count(patch, train.loop, "take_step", "steps", lambda *_: 1)
        found.count(patch, generate, "save_clips", "clips", lambda _, codes, *__: len(codes))
        found.count(patch, judging, "score_metric", "scored metrics", lambda *_: 1)
        found.count(patch, preparation, "prepare_source", "preparations", lambda *_: 1)
        found.count(patch, models, "load_model", "models", lambda *_: 1)
        yield found


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, executions: Executions) -> tuple[Path, ExperimentPlan]:
    """A finished run of zero-shot and one adapter: 2 clips of one prompt each."""
    root = tmp_path_factory.mktemp("grown")
    plan = plan_chaos(root, n_clips=2, n_variants=1)
    executions.take()
    assert live(plan, root) == 0
    return root, plan


def test_an_experiment_grows_without_doing_anything_again(
    grown: tuple[Path, ExperimentPlan], executions: Executions
) -> None:
    root, plan = grown
    first = executions.take()
    assert (first["recordings"], first["token sets"], first["steps"], first["clips"]) == (5, 1, 12, 4)

    assert live(plan, root) == 0
    assert executions.take() == {}

    more = change(plan, generation={**to_jsonable(plan.spec.generation), "n_clips": 3})
    assert live(more, root) == 0
    done = executions.take()
    assert done["clips"] == 2
    assert not {"recordings", "token sets", "steps"} & done.keys()

    metric = change(more, metrics=["encodec", "mmd/encodec"])
    assert live(metric, root) == 0
    done = executions.take()
    assert not {"recordings", "token sets", "steps", "clips"} & done.keys()

    prompt = change(metric, prompts=["noise", "more noise"])
    assert live(prompt, root) == 0
    done = executions.take()
    assert done["clips"] == 2 * 3
    assert not {"recordings", "token sets", "steps", "preparations"} & done.keys()

    variant = change(
        prompt, trials={"variants": [{"name": "r1", "lora.rank": 1}, {"name": "new", "lora.rank": 3}]}
    )
    assert live(variant, root) == 0
    done = executions.take()
    assert (done["steps"], done["clips"], done["models"]) == (12, 2 * 3, 1)
    assert not {"recordings", "token sets", "preparations"} & done.keys()
    results = json.loads((root / "runs" / NAME / "results.json").read_text(encoding="utf-8"))
    assert results["complete"]
    assert {trial["name"]: len(trial["scores"]) + len(trial["unscored"]) for trial in results["trials"]} == {
        "zero-shot": 6, "r1": 6, "new": 6,
    }  # fmt: skip


@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16], ids=str)
def test_an_adapter_is_used_again_only_in_the_arithmetic_that_it_was_trained_in(
    wanted: torch.dtype,
    grown: tuple[Path, ExperimentPlan],
    executions: Executions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`model.dtype: auto` may mean another type where a run is continued."""
    root, plan = grown
    shutil.copytree(root / "runs", tmp_path / "runs")
    folder = tmp_path / "runs" / NAME / "trials" / plan.trials[1].id
    monkeypatch.setattr(loading, "choose_dtype", lambda *_: wanted)
    executions.take()
    trial.execute_trial(plan.trials[1], folder, Store(tmp_path / "runs" / ".cache"), SilentProgress())
    done = executions.take()
    is_same = wanted == torch.float32
    assert (done.get("steps", 0), done.get("clips", 0)) == ((0, 0) if is_same else (12, 2))
    notes = json.loads((folder / "adapter" / "lora_bench.json").read_text(encoding="utf-8"))
    record = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    assert record["key"] == notes["run_key"]


def test_the_state_names_a_gpu_and_is_silent_about_a_cpu(
    grown: tuple[Path, ExperimentPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, plan = grown
    shutil.copytree(root / "runs", tmp_path / "runs")
    folder = tmp_path / "runs" / NAME / "trials" / plan.trials[1].id
    store = Store(tmp_path / "runs" / ".cache")
    assert "device" not in trial.execute_trial(plan.trials[1], folder, store, SilentProgress())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(devices, "is_gpu", lambda _: True)
    found = trial.execute_trial(plan.trials[1], folder, store, SilentProgress())
    assert found.get("device") == "NVIDIA A100-SXM4-80GB"


def test_a_run_of_an_earlier_version_keeps_its_adapters_and_clips(
    grown: tuple[Path, ExperimentPlan], executions: Executions, tmp_path: Path
) -> None:
    """It knew a model by its files, and said so in its keys."""
    root, plan = grown
    shutil.copytree(root / "runs", tmp_path / "runs")
    folder = tmp_path / "runs" / NAME / "trials" / plan.trials[1].id
    store = Store(tmp_path / "runs" / ".cache")
    tuned = plan.trials[1]
    model = models.load_model(tuned.model)
    former = hash_weights(find_model_folder(tuned.model).path)
    assert former != model.info.weights_hash
    manifest = prepare_dataset(tuned.dataset, model.info.audio_format, store, SilentProgress())
    tokens_key = tokens.token_key(manifest, replace(model.info, weights_hash=former))
    assert tuned.lora is not None
    assert tuned.train is not None
    (key,) = train.former_adapter_keys({former: tokens_key}, model, tuned.lora, tuned.train, 0)
    notes = folder / "adapter" / "lora_bench.json"
    write_json(notes, {**read_json(notes), "run_key": key, "weights_hash": former})
    sampling = {
        "clip_s": 0.5, "guidance": 3.0, "temperature": 1.0, "top_k": 250, "seed": 0, "quantization": None,
    }  # fmt: skip
    adapter = hash_file(folder / "adapter" / "adapter_model.safetensors")
    mark = {"weights": former, "adapter": adapter, "sampling": sampling}
    (folder / "clips" / "key").write_text(hash_json(mark), encoding="utf-8")
    executions.take()
    trial.execute_trial(tuned, folder, store, SilentProgress())
    assert not {"steps", "clips"} & executions.take().keys()


@pytest.mark.parametrize(("field", "n_made"), [("guidance", 2), ("overlap_s", 0), ("batch_size", 0)])
def test_clips_are_made_again_only_if_what_they_depend_on_changes(
    grown: tuple[Path, ExperimentPlan], executions: Executions, tmp_path: Path, field: str, n_made: int
) -> None:
    root, plan = grown
    shutil.copytree(root / "runs", tmp_path / "runs")
    tuned = plan.trials[1]
    folder = tmp_path / "runs" / NAME / "trials" / tuned.id
    generation = tuned.generation.model_copy(update={field: 10})
    executions.take()
    changed = tuned.model_copy(update={"generation": generation})
    trial.execute_trial(changed, folder, Store(tmp_path / "runs" / ".cache"), SilentProgress())
    assert executions.take().get("clips", 0) == n_made


def test_guards_of_before_recall_and_coverage_are_measured_again(
    grown: tuple[Path, ExperimentPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, plan = grown
    shutil.copytree(root / "runs", tmp_path / "runs")
    tuned = plan.trials[1]
    folder, store = tmp_path / "runs" / NAME / "trials" / tuned.id, Store(tmp_path / "runs" / ".cache")
    guards = folder / "guards.json"
    with monkeypatch.context() as patch:
        patch.setattr(judging, "GUARDS_VERSION", 1)
        trial.execute_trial(tuned, folder, store, SilentProgress())
    write_json(guards, {**read_json(guards), "guards": []})
    trial.execute_trial(tuned, folder, store, SilentProgress())
    assert read_json(guards)["guards"]
    before = guards.stat().st_mtime_ns
    trial.execute_trial(tuned, folder, store, SilentProgress())
    assert guards.stat().st_mtime_ns == before


def test_a_trial_with_complete_caches_trains_without_text_encoder_and_codec(
    grown: tuple[Path, ExperimentPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, plan = grown
    events: list[str] = []
    load, read, step = models.load_model, loading.load_encoder, train.loop.take_step

    def note_load(*arguments: Any) -> Any:
        events.append("model")
        return load(*arguments)

    def note_read(folder: Path, name: str, weights_hash: str, part: str) -> Any:
        events.append(part)
        return read(folder, name, weights_hash, part)

    def note_step(*arguments: Any) -> float:
        events.append("step")
        return step(*arguments)

    monkeypatch.setattr(models, "load_model", note_load)
    monkeypatch.setattr(loading, "load_encoder", note_read)
    monkeypatch.setattr(train.loop, "take_step", note_step)
    variant = change(
        plan, trials={"variants": [{"name": "r1", "lora.rank": 1}, {"name": "lean", "lora.rank": 5}]}
    )
    assert live(variant, root) == 0
    own = events[events.index("step") - 1 :]
    assert own[:13] == ["model", *["step"] * 12]
    assert set(own[13:]) == {"audio_encoder", "text_encoder"}  # to generate


def test_a_trial_that_is_behind_is_stopped_marked_and_without_scores(
    grown: tuple[Path, ExperimentPlan], executions: Executions, tmp_path: Path
) -> None:
    _, plan = grown
    slow = {"lora.rank": 1, "train.lr": 1e-9}  # its loss stays where it began
    dataset = to_jsonable(plan.spec.dataset)
    spec = {
        "dataset": {
            **dataset,
            "split": {**dataset["split"], "selection_frac": 0.2},
        },  # with and without a search
        "search": {"early_stopping": {"grace_steps": 4, "reduction": 2.0}},
        "trials": {"variants": [{"name": "ahead", "train.lr": 1e-2}, {"name": "behind", **slow}]},
    }
    executions.take()
    tested = change(plan, **spec)
    assert live(tested, tmp_path) == 0
    assert executions.take()["steps"] == 12 + 4
    results = json.loads((tmp_path / "runs" / NAME / "results.json").read_text(encoding="utf-8"))
    found = {trial["name"]: trial for trial in results["trials"]}
    assert {name: trial["state"] for name, trial in found.items()} == {
        "zero-shot": "done", "ahead": "done", "behind": "stopped",
    }  # fmt: skip
    assert found["behind"]["scores"] == []
    assert found["behind"]["reason"].startswith("stopped early at step 4 of 12: its held-out loss ")
    assert {gap["cause"] for gap in found["behind"]["unscored"]} == {"stated"}
    assert not any("behind" in json.dumps(item) for item in results["contrasts"])
    assert not list((tmp_path / "runs" / NAME / "trials").glob("behind-*/checkpoint"))
    report = (tmp_path / "reports" / NAME / "details.md").read_text(encoding="utf-8")
    assert "stopped early at step 4 of 12" in report
    assert live(tested, tmp_path) == 0
    assert executions.take() == {}  # a stopped trial is not taken up again
    without = change(tested, search={})
    assert live(without, tmp_path) == 0
    assert executions.take()["steps"] == 12  # unless early stopping is taken out of the spec
