"""Trials with tracks to select by: what decides does not read the tracks that score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_data import Recorder, load_tiny, make_manifest

from lora_bench.artifacts import Manifest, Split
from lora_bench.errors import StoppedEarlyError
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.runner import trial as runner_trial
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.store import Store, read_json, write_json

Train = Callable[[TrialPlan, Manifest], Path]
THREE_SIDES: tuple[tuple[Split, float], ...] = (
    ("train", 2.5),
    ("train", 2.0),
    ("selection", 1.5),
    ("eval", 1.5),
    ("eval", 1.5),
)
TWO_SIDES: tuple[tuple[Split, float], ...] = (
    ("train", 2.5),
    ("train", 2.0),
    ("train", 1.5),
    ("eval", 1.5),
    ("eval", 1.5),
)


class GenerationBeginsError(Exception):
    """Training is over."""


def plan_trials(place: Path) -> list[TrialPlan]:
    """Two trials that early stopping compares after two of four steps."""
    train = {"steps": 4, "batch_size": 2, "eval_every": 2}
    spec = {
        "schema": 1,
        "name": "t",
        "model": {"id": str(place / "model")},
        "dataset": {"path": place / "music"},
        "prompts": ["a song"],
        "generation": {"n_clips": 2, "clip_s": 0.5},
        "metrics": ["mfcc20"],
        "defaults": {"train": train},
        "trials": {"variants": [{"name": "good", "lora.rank": 2}, {"name": "bad", "lora.rank": 4}]},
        "search": {"early_stopping": {"grace_steps": 2, "reduction": 2.0}},
    }
    plan = plan_experiment(ExperimentSpec.model_validate(spec))
    return [trial for trial in plan.trials if trial.train is not None]


def seal_tracks(manifest: Manifest) -> Manifest:
    """The manifest after the audio of its references was deleted."""
    for track in manifest.of_split("eval"):
        track.audio.unlink()
    return manifest


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trains one trial after another, with these tracks, until generation begins."""
    load_tiny(tmp_path / "model")

    def begin_generation(*_: object) -> None:
        raise GenerationBeginsError

    monkeypatch.setattr(runner_trial, "_generate", begin_generation)

    def run(trial: TrialPlan, manifest: Manifest) -> Path:
        monkeypatch.setattr("lora_bench.stages.dataset.prepare_dataset", lambda *_: manifest)
        folder = RunFolder(tmp_path / "run").trial(trial.id)
        runner_trial.execute_trial(trial, folder.path, Store(tmp_path / "store"), Recorder())
        return folder.path

    return run


def test_training_and_early_stopping_pass_while_the_tracks_that_score_cannot_be_read(
    train: Train, tmp_path: Path
) -> None:
    manifest = seal_tracks(make_manifest(tmp_path / "audio", tracks=THREE_SIDES))
    good, bad = plan_trials(tmp_path)
    with pytest.raises(GenerationBeginsError):
        train(good, manifest)
    curve = read_json(RunFolder(tmp_path / "run").trial(good.id).train)["curve"]
    assert [point["step"] for point in curve if point["eval_loss"] is not None] == [0, 2, 4]
    rungs = RunFolder(tmp_path / "run").trial(good.id).rungs
    record = read_json(rungs)
    record["rungs"]["2"]["loss"] = 0.0  # which nothing beats
    write_json(rungs, record)
    with pytest.raises(StoppedEarlyError, match="its held-out loss"):
        train(bad, manifest)


def test_without_tracks_to_select_by_training_reads_those_that_score(train: Train, tmp_path: Path) -> None:
    manifest = seal_tracks(make_manifest(tmp_path / "audio", tracks=TWO_SIDES))
    with pytest.raises(FileNotFoundError):
        train(plan_trials(tmp_path)[0], manifest)


def test_held_out_loss_is_that_of_the_selection_tracks(train: Train, tmp_path: Path) -> None:
    """The same tracks as the only held-out ones give the same losses."""
    manifest = make_manifest(tmp_path / "audio", tracks=THREE_SIDES)
    others = replace(manifest, key="selection as references").seal()
    as_references = replace(
        others,
        tracks=tuple(replace(t, split="eval" if t.split == "selection" else t.split) for t in others.tracks),
        slices=tuple(replace(s, split="eval" if s.split == "selection" else s.split) for s in others.slices),
    )
    curves: list[list[tuple[int, float | None, float | None]]] = []
    for number, data in enumerate((manifest, as_references)):
        trial = plan_trials(tmp_path)[0].model_copy(update={"id": f"t{number}"})
        with pytest.raises(GenerationBeginsError):
            train(trial, data)
        curve = read_json(RunFolder(tmp_path / "run").trial(trial.id).train)["curve"]
        curves.append([(point["step"], point["train_loss"], point["eval_loss"]) for point in curve])
    assert curves[0] == curves[1]
