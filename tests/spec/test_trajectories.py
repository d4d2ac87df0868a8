"""`train.keep`: the rows of a trajectory, their names and identities, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_bench.errors import SpecError
from lora_bench.planning.plan import plan_experiment, plan_file
from lora_bench.planning.trainings import count_trainings
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.spec import ExperimentSpec, load_spec

BASE: dict[str, Any] = {
    "schema": 1,
    "name": "t",
    "dataset": {"builtin": "chiptune"},
    "prompts": ["a"],
}


def plan(train: dict[str, Any], **fields: Any) -> ExperimentPlan:
    trials = {"variants": [{"name": "small", "lora.rank": 2}, {"name": "large", "lora.rank": 8}]}
    spec = {**BASE, "defaults": {"train": {"steps": 100, **train}}, "trials": trials, **fields}
    return plan_experiment(ExperimentSpec.model_validate(spec))


def rows(found: ExperimentPlan) -> dict[str, Any]:
    return {trial.name: trial.train and trial.train.keep for trial in found.trials if trial.train}


def test_each_kept_step_is_a_row_and_the_end_has_the_plain_name() -> None:
    found = plan({"keep": [25, 50, 100]})
    assert rows(found) == {
        "small@25": 25, "small@50": 50, "small": None, "large@25": 25, "large@50": 50, "large": None,
    }  # fmt: skip
    small = [trial for trial in found.trials if trial.configuration.startswith("small")]
    assert {trial.training for trial in small} == {small[0].id}
    assert {trial.kept for trial in small} == {(25, 50)}
    assert count_trainings([trial.training for trial in found.trials if trial.train]) == 2
    assert len({trial.id for trial in found.trials}) == 7
    assert rows(plan({"keep": [25, 50]})) == rows(found)  # the last step is always one of them


def test_a_step_that_is_kept_can_be_the_baseline_and_its_ablations_keep_this_step() -> None:
    found = plan({"keep": [25]}, baseline="small@25", ablations={"slow": {"train.lr": 1e-6}})
    assert rows(found) == {
        "small@25": 25, "small": None, "large@25": 25, "large": None, "slow": 25,
    }  # fmt: skip
    assert found.baseline == "small@25"
    first = next(trial for trial in found.trials if trial.name == "small@25")
    compared = {trial.name: trial.baseline_trial for trial in found.trials if trial.baseline_trial}
    assert compared == dict.fromkeys(("small", "large@25", "large", "slow"), first.id)
    with pytest.raises(SpecError, match="`small@26` is not a trial; did you mean `small@25`"):
        plan({"keep": [25]}, baseline="small@26")
    with pytest.raises(
        SpecError, match=r"ablation `same` changes nothing: `lora\.rank` of `small@25` is already 2"
    ):
        plan({"keep": [25]}, baseline="small@25", ablations={"same": {"lora.rank": 2}})


def test_the_end_of_a_trajectory_and_trials_that_keep_nothing_have_the_ids_that_they_had() -> None:
    plain, kept = plan({}), plan({"keep": [25]})
    ends = [trial.id for trial in kept.trials if trial.train is None or trial.train.keep is None]
    assert ends == [trial.id for trial in plain.trials]
    for trial in plain.trials:
        written = trial.model_dump(mode="json")
        assert "kept" not in written
        assert "training" not in written
        assert trial.train is None or "keep" not in written["train"]


def test_one_step_or_the_best_is_the_adapter_of_the_row_itself() -> None:
    assert rows(plan({"keep": "best"})) == {"small": "best", "large": "best"}
    assert rows(plan({"keep": 25})) == {"small": 25, "large": 25}
    assert rows(plan({"keep": 100})) == {"small": None, "large": None}
    grid = {"grid": {"name": "k{train.keep}", "axes": {"train.keep": [25, 50, "best"]}}}
    found = plan({}, trials=grid)
    assert rows(found) == {"k25": 25, "k50": 50, "kbest": "best"}
    assert {trial.kept for trial in found.trials if trial.train} == {(25, 50, "best")}
    assert count_trainings([trial.training for trial in found.trials if trial.train]) == 1


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        ("[50, 25]", "keep is [50, 25]; expected ascending steps, each once, such as [25, 50]"),
        ("[25, 25]", "keep is [25, 25]; expected ascending steps"),
        ("[]", "keep is []; expected ascending steps"),
        ("[25, 200]", "keep is [25, 200], but steps is 100; expected steps up to 100"),
        ("200", "keep is 200, but steps is 100"),
        ("[0]", "expected a whole number of at least 1"),
        ("first", "expected a whole number of at least 1 or `best` or a list"),
    ],
)
def test_steps_that_cannot_be_kept_are_refused_with_their_place(tmp_path: Path, keep: str, told: str) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(
        f"schema: 1\ndataset: {{builtin: chiptune}}\nprompts: [a]\ndefaults:\n  train:\n    steps: 100\n    keep: {keep}\n",
        encoding="utf-8",
    )
    with pytest.raises(SpecError) as caught:
        plan_file(load_spec(file))
    assert told in str(caught.value)
    assert f"{file}:" in str(caught.value)


@pytest.mark.parametrize("search", [{"early_stopping": {"grace_steps": 10}}, {"optuna": {"n_trials": 1}}])
def test_a_search_does_not_judge_the_steps_of_one_training(search: dict[str, Any]) -> None:
    with pytest.raises(
        SpecError, match=r"`train\.keep` of `small` lists steps, which a search would judge one by one"
    ):
        plan({"keep": [25]}, search=search)
    if "early_stopping" in search:
        plan({"keep": "best"}, search=search)


def test_a_training_that_the_baseline_shares_is_not_given_up() -> None:
    stop = {"early_stopping": {"grace_steps": 25, "reduction": 2}}
    half = {"half": {"generation.adapter_scale": 0.5}}
    found = plan({}, baseline="small", ablations=half, search=stop)
    assert {trial.name for trial in found.trials if trial.early_stopping} == {"large"}
