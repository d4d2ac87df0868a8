"""`dataset.size`: nested parts of the training side, with the other sides as they are."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, get_args

import pytest

from lora_bench.artifacts import AudioFormat, Manifest, Slice, Split, Track
from lora_bench.cli.main import main
from lora_bench.errors import DatasetError, SpecError
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.sources import list_sources
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.results.run_records import RunResults
from lora_bench.spec import ExperimentSpec
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.dataset import take_training
from lora_bench.store import to_jsonable
from lora_bench.study.table import collect_rows, read_grid

N_TRAIN = 8


def make_manifest() -> Manifest:
    """Eight training tracks of 30, 60, ... seconds, two to select by and three references."""
    sides: list[Split] = []
    for side in get_args(Split):
        sides += [side] * {"train": N_TRAIN, "selection": 2, "eval": 3}[side]
    tracks = tuple(
        Track(f"{place:016x}", f"{place}.wav", Path("a.npy"), "c", side, 30.0 * (place + 1))
        for place, side in enumerate(sides)
    )
    slices = tuple(Slice(track.id, track.split, 0, 100, 100, "c") for track in tracks)
    return Manifest("key", "m", Path(), AudioFormat(100, 1), 1.0, tracks, (), slices, "soxr")


def take(size: dict[str, Any] | None, seed: int = 0) -> Manifest:
    spec = DatasetSpec.model_validate({"builtin": "chiptune", "size": size, "split": {"seed": seed}})
    return take_training(make_manifest(), spec)


def ids(manifest: Manifest, side: Split = "train") -> set[str]:
    found = {track.id for track in manifest.of_split(side)}
    assert {cut.track_id for cut in manifest.slices if cut.split == side} == found
    return found


def test_a_smaller_part_is_contained_in_a_larger_one() -> None:
    parts = [ids(take({"tracks": n})) for n in range(1, N_TRAIN + 1)]
    assert [len(part) for part in parts] == list(range(1, N_TRAIN + 1))
    assert all(small < large for small, large in itertools.pairwise(parts))
    assert len({frozenset(ids(take({"tracks": 3}, seed))) for seed in range(10)}) > 3


def test_the_other_sides_stay_the_same() -> None:
    whole = make_manifest()
    for size in ({"tracks": 1}, {"minutes": 3}):
        part = take(size)
        for side in ("selection", "eval"):
            assert part.of_split(side) == whole.of_split(side)
        assert part.key != whole.key
    assert take({"tracks": 2}).key != take({"tracks": 3}).key


def test_minutes_take_whole_tracks_in_the_same_order_until_there_are_enough() -> None:
    by_tracks = [take({"tracks": n}) for n in range(1, N_TRAIN + 1)]
    totals = [sum(track.duration_s for track in part.of_split("train")) / 60.0 for part in by_tracks]
    for minutes in (0.1, 2.0, 5.0, totals[3], totals[-1]):
        n = next(place for place, total in enumerate(totals) if total >= minutes)
        assert ids(take({"minutes": minutes})) == ids(by_tracks[n])


@pytest.mark.parametrize("size", [None, {"tracks": "all"}, {"minutes": "all"}])
def test_all_leaves_the_dataset_and_its_identity_as_they_are(size: dict[str, Any] | None) -> None:
    assert take(size) == make_manifest()
    spec = DatasetSpec.model_validate({"builtin": "chiptune", "size": size})
    assert spec == DatasetSpec(builtin="chiptune")
    assert "size" not in spec.model_dump(mode="json")


def test_more_than_the_training_side_has_is_refused() -> None:
    with pytest.raises(
        DatasetError, match=r"size\.tracks is 9, but the training side has 8 tracks; expected up to 8"
    ):
        take({"tracks": 9})
    with pytest.raises(DatasetError, match=r"size\.minutes is 60, but the training side has 18\.0 minutes"):
        take({"minutes": 60})


def plan(**fields: Any) -> ExperimentPlan:
    spec = {"schema": 1, "name": "t", "dataset": {"builtin": "chiptune"}, "prompts": ["a"], **fields}
    return plan_experiment(ExperimentSpec.model_validate(spec))


SIZES = {"grid": {"axes": {"dataset.size.tracks": [16, "all", 4, 8]}}}


def test_sizes_are_an_axis_with_names_one_zero_shot_model_and_one_source() -> None:
    found = plan(trials=SIZES)
    assert [trial.name for trial in found.trials] == ["zero-shot", "tracks16", "all", "tracks4", "tracks8"]
    assert {trial.zero_shot for trial in found.trials[1:]} == {found.trials[0].id}
    assert len(list_sources(to_jsonable(found.trials))) == 1
    assert len({trial.id for trial in found.trials}) == 5
    plain = plan(trials={"variants": [{"name": "all"}]})
    assert [trial.id for trial in plain.trials] == [found.trials[0].id, found.trials[2].id]


def test_sizes_are_compared_with_the_baseline_and_ablated() -> None:
    found = plan(
        trials={"variants": [{"name": "r8"}]}, baseline="r8", ablations={"few": {"dataset.size.tracks": 4}}
    )
    few = found.trials[-1]
    assert (few.name, few.baseline_trial) == ("few", found.trials[1].id)


def test_the_study_orders_sizes_by_number_with_all_last() -> None:
    found = plan(trials=SIZES)
    trials = [
        {
            "id": trial.id, "name": trial.name, "configuration": trial.configuration, "kind": trial.kind,
            "changes": trial.changes, "train_seed": trial.train_seed, "train": {}, "lora": {},
            "scores": [{"metric": "m", "prompt": None, "value": 1.0, "n_generated": 2, "n_reference": 2, "dim": 1}],
        }
        for trial in found.trials
    ]  # fmt: skip
    results = RunResults.model_validate({"schema": 1, "trials": trials, "spec": to_jsonable(found.spec)})
    grid = read_grid(results.spec)
    assert [level.label for level in grid.axes[0].levels] == ["4", "8", "16", "all"]
    rows, _ = collect_rows(results, grid, "m", None)
    assert {row.configuration: row.position for row in rows[1:]} == {
        "tracks16": (2,), "all": (3,), "tracks4": (0,), "tracks8": (1,),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ({}, "give one of `tracks` (such as 8) and `minutes` (such as 30), got neither"),
        ({"tracks": 4, "minutes": 3}, "got both"),
    ],
)
def test_a_size_has_one_measure(size: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="give one of") as caught:
        plan(dataset={"builtin": "chiptune", "size": size})
    assert told in str(caught.value)


def test_plan_refuses_a_size_that_the_training_side_does_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(
        "schema: 1\ndataset: {builtin: chiptune}\nprompts: [a]\n"
        "trials: {grid: {axes: {dataset.size.tracks: [4, 33, all]}}}\n",
        encoding="utf-8",
    )
    assert main(["validate", str(file)]) != 0
    assert "dataset.size.tracks is 33, but the training side has 32 tracks" in capsys.readouterr().err


def test_an_unknown_size_is_refused_with_its_place(tmp_path: Path) -> None:
    from lora_bench.spec import load_spec

    file = tmp_path / "t.yaml"
    file.write_text(
        "schema: 1\ndataset: {builtin: chiptune}\nprompts: [a]\n"
        "trials: {grid: {axes: {dataset.size.tracks: [4, most]}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(SpecError, match=r"t\.yaml:4:\d+: .*expected a whole number of at least 1 or `all`"):
        load_spec(file)
