"""Features that worker processes compute ahead are those that scoring computes by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.sleeping_gpu import stand_in, write_tunes
from lora_bench.artifacts import AudioFormat, GeneratedClips, Manifest, Track
from lora_bench.audio import save_wav
from lora_bench.errors import ResourceError
from lora_bench.evaluation.trial_guards import measure_held_out
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.run_folder import SourceFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import SilentProgress
from lora_bench.runner import preparation
from lora_bench.runner.ahead import FeaturesAhead
from lora_bench.runner.experiment import run_experiment
from lora_bench.runner.jobs import workers as worker_module
from lora_bench.runner.jobs.workers import Workers
from lora_bench.spec import ExperimentSpec
from lora_bench.spec.data_size import DataSizeSpec
from lora_bench.stages.dataset import take_training
from lora_bench.store import Store

RATE_HZ = 16_000
METRICS = ["mfcc20", "mmd/mfcc20", "encodec"]


class InThisProcess(Workers):
    """Does tasks at once."""

    def submit(self, what: str, n_steps: int, function: Any, *arguments: Any) -> None:
        function(lambda _: None, *arguments)


def make_sound(seed: int, seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((1, int(seconds * RATE_HZ)))).astype(np.float32)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    tracks = []
    for number, split in enumerate(("train", "eval")):
        np.save(tmp_path / f"{number}.npy", make_sound(number, 6.0))
        tracks.append(Track(f"id{number}", f"{number}.wav", tmp_path / f"{number}.npy", "chip", split, 6.0))
    return Manifest("key", "tunes", tmp_path, AudioFormat(RATE_HZ, 1), 6.0, tuple(tracks), (), (), "none")


@pytest.fixture
def clips(tmp_path: Path) -> GeneratedClips:
    files = tuple(tmp_path / f"{number:03d}.wav" for number in range(2))
    for number, file in enumerate(files):
        save_wav(file, make_sound(100 + number, 3.0), RATE_HZ)
    return GeneratedClips("a waltz", files, 0.0)


def plan_trial() -> TrialPlan:
    document = {
        "schema": 1,
        "name": "t",
        "dataset": {"builtin": "chiptune"},
        "prompts": ["a waltz"],
        "generation": {"n_clips": 2, "clip_s": 3},
        "metrics": METRICS,
        "trials": {"variants": [{"name": "r4"}]},
    }
    return plan_experiment(ExperimentSpec.model_validate(document)).trials[0]


def compute(workers: Workers, place: Path, manifest: Manifest, clips: GeneratedClips) -> dict[str, bytes]:
    """What lies in the cache afterwards."""
    with workers:
        ahead = FeaturesAhead(workers, plan_trial(), manifest, manifest, Store(place, place / "uses.txt"))
        ahead.add_references()
        ahead.add_controls()
        ahead.add_clips(clips)
        workers.finish("features", SilentProgress())
    files = [file for file in place.rglob("*") if file.is_file() and file.suffix != ".lock"]
    return {file.relative_to(place).as_posix(): file.read_bytes() for file in files if file.suffix != ".txt"}


def test_workers_leave_the_same_bytes_as_this_process_also_after_a_death(
    tmp_path: Path, manifest: Manifest, clips: GeneratedClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_call = worker_module._Worker.call

    def call_and_kill(self: Any, function: Any, arguments: Any, hear: Any) -> Any:
        def hear_and_kill(note: str) -> None:
            hear(note)
            if note == "000":
                self._process.kill()

        return real_call(self, function, arguments, hear_and_kill)

    with monkeypatch.context() as patched:
        patched.setattr(worker_module._Worker, "call", call_and_kill)
        with pytest.raises(ResourceError, match="SIGKILL while it computed mfcc20 of 'a waltz' of clip 000"):
            compute(Workers(1), tmp_path / "ahead", manifest, clips)
    assert len(list((tmp_path / "ahead").glob("embeddings/[!.]*/"))) == 1  # of the references
    ahead = compute(Workers(1), tmp_path / "ahead", manifest, clips)
    here = compute(InThisProcess(1), tmp_path / "here", manifest, clips)
    kinds = [name.partition("/")[0] for name in here]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "embeddings": 2, "clip_sound": 2, "mfcc_scale": 1, "guard_frames": 1,
    }  # fmt: skip
    assert ahead == here


def test_preparation_measures_the_control_that_scoring_of_a_smaller_training_side_takes(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = replace(manifest.tracks[0], id="id2"), replace(manifest.tracks[1], id="id3")
    whole = replace(manifest, tracks=(*manifest.tracks, *more))
    trial = plan_trial()
    data = trial.dataset.model_copy(update={"size": DataSizeSpec(tracks=1)})
    trial = trial.model_copy(update={"dataset": data})
    store = Store(tmp_path / "store", tmp_path / "uses.txt")
    model = SimpleNamespace(info=SimpleNamespace(audio_format=manifest.format))
    monkeypatch.setattr("lora_bench.models.load_model", lambda _: model)
    for name, made in {
        "prepare_dataset": lambda *_: whole,
        "Workers": InThisProcess,
        "_save_excerpts": lambda *_: None,
        "measure_floors": lambda *_: ([], []),
        "write_json": lambda *_: None,
    }.items():
        monkeypatch.setattr(preparation, name, made)
    preparation.prepare_source(trial, "key", SourceFolder(tmp_path / "run"), store, SilentProgress(), 1)
    (measured,) = (tmp_path / "store").glob("clip_sound/[!.]*/")
    measure_held_out(take_training(whole, data), trial.generation.clip_s, store)
    assert list((tmp_path / "store").glob("clip_sound/[!.]*/")) == [measured]  # taken from the cache


def test_without_workers_nothing_is_computed_ahead(
    tmp_path: Path, manifest: Manifest, clips: GeneratedClips
) -> None:
    assert compute(Workers(0), tmp_path / "none", manifest, clips) == {}


def run(place: Path, cpu: int, n_clips: int = 3) -> dict[str, bytes]:
    """Scores and guards of an experiment on a stand-in for a GPU."""
    document = {
        "schema": 1,
        "name": "overlap",
        "model": {"id": "pocket"},
        "dataset": {"path": place.parent / "music", "captions": {"text": "tune"}, "clip_s": 4},
        "prompts": ["tune", "a slow tune"],
        "generation": {"n_clips": n_clips, "clip_s": 4},
        "metrics": ["mfcc20", "loudness", "encodec"],
        "defaults": {"train": {"steps": 1}},
        "trials": {"variants": [{"name": "r4"}]},
        "resources": {"gpu": 1, "cpu": cpu},
    }
    plan = plan_experiment(ExperimentSpec.model_validate(document))
    with stand_in(0.1, 0.01) as timeline:
        code = run_experiment(plan, runs_dir=place, reports_dir=place / "reports", progress=SilentProgress())
    assert code == 0
    assert len(timeline.workers) == (0 if cpu == 1 else (2 + 1) + 2 * (1 + 2 * 3))
    files = [file for name in ("scores", "guards") for file in place.glob(f"overlap/trials/*/{name}.json")]
    return {file.relative_to(place).as_posix(): file.read_bytes() for file in files}


@pytest.mark.slow
def test_a_run_with_workers_gives_the_scores_of_one_without(tmp_path: Path) -> None:
    write_tunes(tmp_path / "music", 6, 12.0)
    serial = run(tmp_path / "serial", 1)
    assert len(serial) == 4
    assert run(tmp_path / "ahead", 3) == serial
