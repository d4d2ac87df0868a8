"""Parents, overrides, paths, prompts and names of datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_bench.errors import SpecError, UsageError
from lora_bench.spec import load_spec

HEAD = "schema: 1\ndataset: {builtin: chiptune}\nprompts: [a]\n"


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file below the test's folder."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def test_parents_merge_mappings_and_replace_lists(write) -> None:
    write("base/one.yaml", "prompts: [x, y]\ngeneration: {n_clips: 7, clip_s: 3}\nmetrics: [mfcc20]\n")
    write("base/two.yaml", "generation: {clip_s: 4}\nmodel: {dtype: float32}\n")
    path = write("t.yaml", HEAD + "extends: [base/one.yaml, base/two.yaml]\ngeneration: {guidance: 2}\n")
    loaded = load_spec(path)
    assert loaded.spec.prompts == ["a"]
    assert (loaded.spec.generation.n_clips, loaded.spec.generation.clip_s) == (7, 4.0)
    assert loaded.spec.generation.guidance == 2.0
    assert loaded.spec.metrics == ["mfcc20"]
    assert [file.name for file in loaded.files] == ["one.yaml", "two.yaml", "t.yaml"]


def test_grandparents_are_read_relative_to_the_parent(write) -> None:
    write("far/grand.yaml", "generation: {n_clips: 9}\n")
    write("near/parent.yaml", "extends: ../far/grand.yaml\n")
    path = write("t.yaml", HEAD + "extends: near/parent.yaml\n")
    assert load_spec(path).spec.generation.n_clips == 9


def test_specs_that_extend_each_other_are_refused_with_the_circle(write) -> None:
    write("b.yaml", "extends: a.yaml\n")
    path = write("a.yaml", HEAD + "extends: b.yaml\n")
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    (problem,) = caught.value.problems
    assert problem.place.endswith("b.yaml:1:10")
    assert "in a circle" in problem.message
    assert problem.message.count("a.yaml") == 2


def test_a_parent_may_be_reached_by_two_ways(write) -> None:
    write("root.yaml", "generation: {n_clips: 5}\n")
    write("left.yaml", "extends: root.yaml\n")
    write("right.yaml", "extends: root.yaml\n")
    path = write("t.yaml", HEAD + "extends: [left.yaml, right.yaml]\n")
    assert load_spec(path).spec.generation.n_clips == 5


def test_the_name_is_the_files_own_and_never_a_parents(write) -> None:
    write("parent.yaml", HEAD + "name: parent\n")
    assert load_spec(write("child.yaml", "extends: parent.yaml\n")).spec.name == "child"
    assert load_spec(write("other.yaml", "extends: parent.yaml\nname: mine\n")).spec.name == "mine"


def test_problems_of_a_parent_are_placed_in_the_parent(write) -> None:
    write("parent.yaml", "# a comment\ngeneration:\n  n_clips: 0\n")
    path = write("t.yaml", HEAD + "extends: parent.yaml\ngeneration: {clip_s: 3}\n")
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    (problem,) = caught.value.problems
    assert problem.place.endswith("parent.yaml:3:12")


def test_a_childs_source_of_data_undoes_the_parents(write) -> None:
    write("parent.yaml", "dataset: {path: music, clip_s: 5}\n")
    path = write("t.yaml", "schema: 1\nprompts: [a]\nextends: parent.yaml\ndataset: {builtin: chiptune}\n")
    dataset = load_spec(path).spec.dataset
    assert (dataset.path, dataset.builtin, dataset.clip_s) == (None, "chiptune", 5.0)


def test_relative_paths_are_relative_to_the_file_that_states_them(write, tmp_path: Path) -> None:
    write("base/parent.yaml", "dataset: {path: ../music}\nmodel: {id: ./weights}\n")
    write("base/prompts.txt", "")
    path = write("specs/t.yaml", "schema: 1\nprompts: [a]\nextends: ../base/parent.yaml\n")
    spec = load_spec(path).spec
    assert spec.dataset.path == tmp_path / "music"
    assert spec.model.id == (tmp_path / "base/weights").as_posix()


def test_paths_on_an_axis_are_made_absolute(write, tmp_path: Path) -> None:
    grid = "trials: {grid: {axes: {dataset.path: [one, ../two], model.id: [pocket, ./m]}}}\n"
    path = write("specs/t.yaml", HEAD + grid)
    grid_spec = load_spec(path).spec.trials.grid
    assert grid_spec is not None
    assert grid_spec.axes["dataset.path"] == [
        (tmp_path / "specs/one").as_posix(),
        (tmp_path / "two").as_posix(),
    ]
    assert grid_spec.axes["model.id"] == ["pocket", (tmp_path / "specs/m").as_posix()]


def test_hub_ids_stay_as_they_are_unless_such_a_folder_lies_beside_the_spec(write, tmp_path: Path) -> None:
    path = write("t.yaml", HEAD + "model: {id: some/model}\n")
    assert load_spec(path).spec.model.id == "some/model"
    (tmp_path / "some/model").mkdir(parents=True)
    assert load_spec(path).spec.model.id == (tmp_path / "some/model").as_posix()


def test_a_relative_path_in_an_override_is_relative_to_the_current_folder(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("specs/t.yaml", HEAD)
    monkeypatch.chdir(tmp_path)
    assert load_spec(path, ["dataset.path=music"]).spec.dataset.path == tmp_path / "music"
    assert load_spec(path, ["dataset.path=music"]).spec.dataset.builtin is None


def test_overrides_are_typed_validated_and_recorded(write) -> None:
    path = write("t.yaml", HEAD + "defaults: {lora: {rank: 4}}\n")
    overrides = ("lora.rank=8", "train.lr=1e-3", "generation.top_k=null", "prompts=[x, y]", "name=other")
    loaded = load_spec(path, overrides)
    assert loaded.overrides == overrides
    assert (loaded.spec.defaults.lora.rank, loaded.spec.defaults.train.lr) == (8, 1e-3)
    assert loaded.spec.generation.top_k is None
    assert (loaded.spec.prompts, loaded.spec.name) == (["x", "y"], "other")


def test_an_override_reaches_into_lists_and_dotted_keys(write) -> None:
    text = "trials:\n  variants: [{name: a, lora.rank: 2}]\n  grid: {axes: {train.lr: [1e-3, 1e-4]}}\n"
    path = write("t.yaml", HEAD + text)
    overrides = [
        "trials.variants.0.lora.rank=6",
        "trials.grid.axes.train.lr.1=0.5",
        "trials.variants.0.name=b",
    ]
    trials = load_spec(path, overrides).spec.trials
    assert (trials.variants[0].name, trials.variants[0].changes) == ("b", {"lora.rank": 6})
    assert trials.grid is not None
    assert trials.grid.axes == {"train.lr": [1e-3, 0.5]}


def test_prompts_come_from_files_and_sets(write) -> None:
    write("p.txt", "\ufeff# a comment\nfirst\n\n  second  \nfourth\u2028part\x85\x1cand\n")
    path = write(
        "t.yaml",
        "schema: 1\ndataset: {builtin: chiptune}\nprompts: [zero, {file: p.txt}]\nprompt_sets: {far: [third, first]}\n",
    )
    spec = load_spec(path).spec
    assert spec.prompts == ["zero", "first", "second", "fourth\u2028part\x85\x1cand", "third"]
    assert spec.prompt_sets == {"far": ["third", "first"]}


def test_a_named_dataset_stands_for_its_section(write) -> None:
    text = "schema: 1\nprompts: [a]\ndatasets: {own: {path: music, clip_s: 3}}\ndataset: own\n"
    spec = load_spec(write("t.yaml", text)).spec
    assert spec.dataset == spec.datasets["own"]
    assert spec.dataset.clip_s == 3.0


def test_a_spec_that_cannot_be_opened_is_a_usage_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be opened \(No such file or directory\)"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="cannot be opened"):
        load_spec(tmp_path)


def test_fields_are_located_in_the_file(write) -> None:
    path = write("t.yaml", HEAD + "trials:\n  variants:\n    - {name: a}\n    - {name: b}\n")
    loaded = load_spec(path)
    assert loaded.locate("trials.variants[1].name").endswith("t.yaml:7:8")
    assert loaded.locate("generation.n_clips").endswith("t.yaml:1:1")
