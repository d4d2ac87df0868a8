"""Adapters that exist already, in a spec: paths, and settings that make no sense next to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_bench.errors import SpecError
from lora_bench.planning.plan import plan_file
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.spec.loading import load_spec

EARLIER_IDS = ["zero-shot-49ae57dd", "r4-5d35fe5d", "o-8dfcd0b4"]
HEAD = """\
schema: 1
name: study
dataset: {builtin: chiptune}
prompts: [a]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return path


def plan(folder: Path, text: str) -> ExperimentPlan:
    return plan_file(load_spec(write(folder, text)))


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(write(folder, text))
    return [f"{item.place.rpartition('/')[2]} {item.message}" for item in caught.value.problems]


def test_an_existing_adapter_is_one_row_for_any_number_of_training_seeds(tmp_path: Path) -> None:
    made = plan(
        tmp_path,
        "repeats: {train_seeds: [0, 1]}\n"
        "trials: {variants: [{name: mine, lora: {path: ./here}}, {name: r4, lora: {rank: 4}}]}\n",
    )
    assert [trial.name for trial in made.trials] == ["zero-shot", "mine", "r4-s0", "r4-s1"]
    mine = made.trials[1]
    assert (mine.kind, mine.train, mine.train_seed) == ("fine-tuned", None, None)
    assert mine.existing_adapter == (tmp_path / "here").as_posix()
    assert json.loads(mine.model_dump_json())["lora"] == {"path": (tmp_path / "here").as_posix()}
    assert mine.zero_shot == made.trials[0].id


def test_steps_that_the_defaults_keep_are_not_those_of_an_existing_adapter(tmp_path: Path) -> None:
    made = plan(
        tmp_path,
        "defaults: {train: {steps: 4, keep: [2]}}\n"
        "trials: {variants: [{name: mine, lora: {path: ./here}}, {name: r4, lora: {rank: 4}}]}\n",
    )
    assert [trial.name for trial in made.trials] == ["zero-shot", "mine", "r4@2", "r4"]
    assert not made.notes


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("here", "{folder}/here"),
        ("../up", "{parent}/up"),
        ("ada/music", "ada/music"),
        ("ada", "{folder}/ada"),
    ],
)
def test_a_path_is_relative_to_the_spec_and_owner_slash_name_is_a_hub_id(
    tmp_path: Path, stated: str, expected: str
) -> None:
    (tmp_path / "here").mkdir()
    made = plan(tmp_path, f"trials: {{variants: [{{name: mine, lora: {{path: {stated}}}}}]}}\n")
    wanted = expected.format(folder=tmp_path.as_posix(), parent=tmp_path.parent.as_posix())
    assert made.trials[1].existing_adapter == wanted


def test_training_settings_next_to_a_path_are_problems_with_their_places(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "trials:\n  variants:\n    - {name: mine, lora: {path: x, rank: 4, kind: loha}, train.steps: 3}\n",
    )
    assert found == [
        f"study.yaml:7:{column} `{field}` would not be used next to `lora.path`: nothing is trained; remove it"
        for column, field in ((36, "lora.rank"), (45, "lora.kind"), (58, "train.steps"))
    ]


def test_a_training_next_to_a_path_of_the_defaults_says_how_to_train(tmp_path: Path) -> None:
    found = problems(
        tmp_path, "defaults: {lora: {path: x}}\ntrials: {variants: [{name: r4, lora: {rank: 4}}]}\n"
    )
    assert "".join(found) == (
        "study.yaml:6:39 the defaults name an adapter that exists already, so `lora.rank` would not be used next to "
        "`lora.path`: nothing is trained; remove it, or train an adapter here with `lora.path: null`"
    )
    made = plan(
        tmp_path, "defaults: {lora: {path: x}}\ntrials: {variants: [{name: r4, lora: {path: null}}]}\n"
    )
    assert made.trials[1].existing_adapter is None


def test_an_axis_of_adapters_takes_their_names_and_no_axis_of_trainings(tmp_path: Path) -> None:
    axes = "trials: {grid: {axes: {lora.path: [./one, ./two]%s}}}\n"
    assert [trial.name for trial in plan(tmp_path, axes % "").trials] == ["zero-shot", "one", "two"]
    (found,) = problems(tmp_path, axes % ", lora.rank: [1, 2]")
    assert found == (
        "study.yaml:5:24 `lora.path` is an axis next to `lora.rank`, which adapters that exist already do not have; "
        "name them in trials.variants instead"
    )


def test_an_ablation_of_a_training_has_no_effect_on_an_existing_baseline(tmp_path: Path) -> None:
    text = (
        "baseline: mine\ntrials: {variants: [{name: mine, lora: {path: ./x}}]}\n"
        "ablations: {low: {train.lr: 0.001}}\n"
    )
    with pytest.raises(
        SpecError, match=r"`mine` is an adapter that exists already, which `train.lr` does not train"
    ):
        plan(tmp_path, text)


def test_an_existing_baseline_is_compared_with_every_training(tmp_path: Path) -> None:
    made = plan(
        tmp_path,
        "baseline: mine\nrepeats: {train_seeds: [0, 1]}\n"
        "trials: {variants: [{name: mine, lora: {path: ./x}}, {name: r4, lora: {rank: 4}}]}\n",
    )
    mine = next(trial for trial in made.trials if trial.name == "mine")
    assert [trial.baseline_trial for trial in made.trials] == [None, None, mine.id, mine.id]


def test_a_folder_that_is_missing_is_named_at_its_place(tmp_path: Path) -> None:
    file = write(
        tmp_path, "trials: {variants: [{name: mine, lora: {path: ./gone}}, {name: x, lora: {rank: 0}}]}\n"
    )
    with pytest.raises(SpecError) as caught:
        load_spec(file, with_paths=True)
    assert caught.value.problems[0].message == (
        f"`lora.path` is `{tmp_path.as_posix()}/gone`, which does not exist; expected the folder of an adapter as PEFT "
        "writes it, or a hub id such as owner/name"
    )


def test_specs_without_existing_adapters_keep_their_ids(tmp_path: Path) -> None:
    """Ids of e3b703d, before adapters could exist."""
    made = plan(tmp_path, "trials: {variants: [{name: r4, lora: {rank: 4}}, {name: o, lora: {kind: oft}}]}\n")
    assert [trial.id for trial in made.trials] == EARLIER_IDS
