"""Sources: what trials of a run share, and several of them in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.tiny_experiment import SPEC, results, run, write_music

from lora_bench.planning.sources import list_sources
from lora_bench.store import read_json


def plan_trial(name: str, **more: Any) -> dict[str, Any]:
    trial = {
        "id": name,
        "model": {"id": "pocket"},
        "dataset": {"path": "/music/a", "builtin": None},
        "generation": {"clip_s": 8.0, "n_clips": 4, "guidance": 3.0},
    }
    return trial | more


def test_trials_of_one_model_and_dataset_are_one_source_in_the_runs_folder() -> None:
    guided = plan_trial("z", generation={"clip_s": 8.0, "n_clips": 4, "guidance": 1.0})
    (source,) = list_sources([plan_trial("x"), plan_trial("y"), guided])
    assert source.trial_ids == ("x", "y", "z")
    assert source.label == "a"
    assert source.place(Path("/run")) == Path("/run")


@pytest.mark.parametrize(
    ("changed", "label"),
    [
        ({"dataset": {"path": "/music/b"}}, "b"),
        ({"model": {"id": "facebook/musicgen-small"}}, "a, musicgen-small"),
        ({"generation": {"clip_s": 4.0, "n_clips": 4}}, "a, clips of 4.0 s"),
        ({"dataset": {"path": "/other/a"}}, None),
    ],
    ids=str,
)
def test_another_source_has_its_own_folder_and_label(changed: dict[str, Any], label: str | None) -> None:
    first, second = list_sources([plan_trial("x"), plan_trial("y", **changed)])
    assert first.place(Path("/run")) == Path("/run")
    assert second.folder.parts[0] == "data"
    assert second.folder.name.endswith(second.key)
    assert first.label != second.label
    assert label is None or second.label == label


def test_no_trials_have_no_sources() -> None:
    assert list_sources([]) == []


TWO = """datasets:
  first: {path: music, captions: {text: "chiptune game loop"}, clip_s: 2, split: {by: track, eval_frac: 0.5, seed: 0}}
  second: {path: more, captions: {text: "chiptune game loop"}, clip_s: 2, split: {by: track, eval_frac: 0.5, seed: 1}}
dataset: first
"""


@pytest.mark.slow
def test_a_run_over_two_datasets_measures_each_trial_against_its_own(tmp_path: Path) -> None:
    write_music(tmp_path / "more")
    (tmp_path / "more" / "tune0.wav").unlink()
    head, _, tail = SPEC.partition("dataset:")
    spec = head + TWO + tail.partition("\n")[2]
    spec = (
        spec.partition("trials:")[0]
        + 'trials: {grid: {name: "{dataset}", axes: {dataset: [first, second]}}}\n'
    )
    assert run(tmp_path, spec=spec) == 0
    found = results(tmp_path)
    assert found["complete"] is True
    first, second = found["sources"]
    assert (first["label"], second["label"]) == ("music", "more")
    assert (first["dataset"]["n_tracks"], second["dataset"]["n_tracks"]) == (6, 5)
    assert {floor["source"] for floor in found["floors"]} == {"music", "more"}
    assert len(found["floors"]) == 2 * 2 * 3
    run_folder = tmp_path / "runs" / "tiny"
    described = read_json(run_folder / second["folder"] / "dataset.json")
    assert "tune0.wav" not in {track["source"] for track in described["manifest"]["tracks"]}
    assert list((run_folder / second["folder"] / "reference_clips").glob("*.wav"))
    tuned = [trial for trial in found["trials"] if trial["kind"] == "fine-tuned"]
    assert len({trial["zero_shot"] for trial in tuned}) == 2
    compared = {seed["trial"] for item in found["contrasts"] for seed in item["seeds"]}
    assert compared == {trial["id"] for trial in tuned}
    report = (tmp_path / "reports" / "tiny" / "details.md").read_text(encoding="utf-8")
    assert "real-vs-real (more)" in report
    assert "## Datasets" in report
    assert "different references" in report
    study = read_json(run_folder / "study.json")
    assert [axis["field"] for axis in study["axes"]] == ["dataset"]
