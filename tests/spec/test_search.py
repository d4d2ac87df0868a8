"""The section `search.optuna`: what it takes, and what it is refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_bench.cli.commands.validate import describe_plan
from lora_bench.errors import SpecError
from lora_bench.planning.plan import plan_experiment, plan_file
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.spec import ExperimentSpec, load_spec

BASE: dict[str, Any] = {
    "schema": 1,
    "name": "t",
    "dataset": {"builtin": "chiptune"},
    "prompts": ["a"],
    "metrics": ["mfcc20"],
    "trials": {"grid": {"axes": {"lora.rank": [2, 8], "lora.targets": ["attention", "all", "ffn"]}}},
    "search": {"optuna": {"n_trials": 4}},
}
TEXT = """schema: 1
name: t
dataset: {builtin: chiptune}
prompts: [a]
metrics: [mfcc20, melody-agreement, tag-adherence]
"""
GRID = "trials: {grid: {axes: {lora.rank: [2, 8], lora.targets: [attention, all]}}}\n"


def plan_with(**fields: Any) -> ExperimentPlan:
    return plan_experiment(ExperimentSpec.model_validate({**BASE, **fields}))


def places(plan: ExperimentPlan) -> dict[str, Any]:
    """Per fine-tuned trial its cells and whether it is wanted; None if it runs in any case."""
    return {
        trial.name: trial.search and (list(trial.search.cells), trial.search.is_wanted)
        for trial in plan.trials
        if trial.kind == "fine-tuned"
    }


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (
            GRID + "search: {optuna: {n_trials: 4}}",
            "7:19: ",
            "`search.optuna.n_trials` is 4, and trials has 4 to choose among; give fewer, or drop search.optuna",
        ),
        (
            GRID + "search: {optuna: {n_trials: 2, objective: mfcc2}}",
            "7:32: ",
            "is `mfcc2`; expected held_out_loss or one of metrics (mfcc20, melody-agreement, tag-adherence); did you mean `mfcc20`?",
        ),
        (GRID + "search: {optuna: {}}", "7:", "`search.optuna.n_trials` is missing"),
        (GRID + "search: {optuna: {n_trials: 0}}", "7:", "a whole number of at least 1"),
        (
            GRID + "search: {optuna: {n_trials: 2, sampler: cma}}",
            "7:",
            "is not a field of `search.optuna`",
        ),
        (
            GRID + "search: {algorithm: optuna, n_trials: 2}",
            "7:",
            "`algorithm` does not belong here; write a search as `search: {optuna: {n_trials: 12, objective: ",
        ),
        (
            GRID + "search: {optuna: {n_trials: 2}}\nrepeats: {train_seeds: [0, 1]}",
            "",
            "search.optuna judges a combination by one training, but repeats has 2 train_seeds",
        ),
        (
            "trials: {grid: {axes: {lora.rank: [2, 8], dataset.clip_s: [5, 10]}}}\nsearch: {optuna: {n_trials: 2}}",
            "",
            "they differ in dataset.clip_s, which changes what the number means",
        ),
        (
            GRID.replace("lora.targets: [attention, all]", "generation.guidance: [1, 3]")
            + "search: {optuna: {n_trials: 2}}",
            "",
            "is held_out_loss, which does not depend on generation.guidance; choose one of the metrics",
        ),
        (
            GRID + "search: {optuna: {n_trials: 2, objective: tag-adherence}}",
            "7:32: ",
            "is `tag-adherence`, and no prompt names a tag of the tagger; choose another",
        ),
        (
            GRID + "search: {optuna: {n_trials: 2, objective: melody-agreement}}",
            "7:32: ",
            "which compares trials whose clips follow the same melodies; set generation.melodies to one folder",
        ),
        (
            GRID.replace("lora.targets: [attention, all]", "generation.melodies: [a, b]")
            + "search: {optuna: {n_trials: 2, objective: melody-agreement}}",
            "7:32: ",
            "which compares trials whose clips follow the same melodies; set generation.melodies to one folder",
        ),
        (
            GRID.replace("]}}}", "]}}, variants: [{name: x, lora.rank: 8}, {name: y, lora.rank: 2}]}")
            + "search: {optuna: {n_trials: 1}}",
            "",
            "2 of its candidates are also named elsewhere and run in any case (x, y); raise it",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_with_its_place(
    text: str, place: str, words: str, tmp_path: Path
) -> None:
    spec = tmp_path / "t.yaml"
    spec.write_text(TEXT + text + "\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        plan_file(load_spec(spec))
    (problem,) = caught.value.problems
    assert words in str(problem)
    assert f"t.yaml:{place}" in str(problem)


def test_combinations_of_the_grid_are_the_space_and_the_baseline_is_wanted() -> None:
    plan = plan_with(baseline="r8-all", ablations={"slow": {"train.lr": 1e-6}})
    found = places(plan)
    assert found["r2-attention"] == ([{"lora.rank": "2", "lora.targets": "attention"}], False)
    assert found["r8-all"] == ([{"lora.rank": "8", "lora.targets": "all"}], True)
    assert found["slow"] is None
    assert plan.n_to_run == 1 + 1 + 4
    assert "7 fine-tuned trials (a search tries 4 of 6)" in describe_plan(plan)


def test_variants_beside_a_grid_are_trained_in_any_case_and_without_one_are_the_space() -> None:
    variants = [{"name": "x", "lora.rank": 3}, {"name": "y", "lora.rank": 5}]
    beside = places(plan_with(trials={**BASE["trials"], "variants": variants}))
    assert (beside["x"], beside["y"]) == (None, None)
    alone = places(plan_with(trials={"variants": variants}, search={"optuna": {"n_trials": 1}}))
    assert alone == {"x": ([{"variant": "x"}], False), "y": ([{"variant": "y"}], False)}


def test_equal_combinations_are_one_candidate_at_several_places() -> None:
    grid = {"axes": {"lora.rank": [2, 8], "lora.alpha": [None, 4, 16]}}
    found = places(plan_with(trials={"grid": grid}, search={"optuna": {"n_trials": 2}}))
    assert len(found) == 4
    assert [{"lora.rank": "2", "lora.alpha": "none"}, {"lora.rank": "2", "lora.alpha": "4"}] in [
        cells for cells, _ in found.values()
    ]


def test_values_that_read_alike_stay_apart() -> None:
    from lora_bench.spec.grid import label_values

    assert label_values([1.0, 1, "1", {"a": 1}, True]) == ["1", "1 #2", "1 #3", "1 #4", "true"]


@pytest.mark.parametrize("stated", [0.0, 0.25])
def test_a_search_is_no_part_of_a_trials_identity_nor_of_what_it_is_finished_for(stated: float) -> None:
    from lora_bench.runner.freshness import inputs_key

    dataset = {"builtin": "chiptune", "split": {"selection_frac": stated}}
    searched, whole = plan_with(dataset=dataset), plan_with(dataset=dataset, search={})
    assert [trial.id for trial in searched.trials] == [trial.id for trial in whole.trials]
    assert [inputs_key(trial) for trial in searched.trials] == [inputs_key(trial) for trial in whole.trials]
    assert all(trial.search is None for trial in whole.trials)


def selection_fracs(plan: ExperimentPlan) -> set[float | None]:
    return {trial.dataset.split.selection_frac for trial in plan.trials}


def test_what_a_search_decides_by_is_taken_from_the_training_side_unless_the_spec_says_otherwise() -> None:
    stopping = {"early_stopping": {"grace_steps": 10}}
    assert selection_fracs(plan_with()) == {0.1}
    assert selection_fracs(plan_with(search=stopping)) == {0.1}
    assert selection_fracs(plan_with(search={})) == {None}
    zero = {"builtin": "chiptune", "split": {"selection_frac": 0}}
    assert selection_fracs(plan_with(dataset=zero)) == {None}
    assert selection_fracs(plan_with(dataset=zero, search={})) == {None}


def test_trials_without_a_selection_side_are_those_of_a_spec_that_does_not_speak_of_one() -> None:
    zero = {"builtin": "chiptune", "split": {"selection_frac": 0}}
    plain, stated = plan_with(search={}), plan_with(search={}, dataset=zero)
    assert [trial.id for trial in stated.trials] == [trial.id for trial in plain.trials]
    # as earlier versions named it
    assert plain.trials[0].id == "zero-shot-49ae57dd"


def test_a_selection_side_is_kept_in_the_spec_and_in_plans_that_are_read_again() -> None:
    plan = plan_with(dataset={"builtin": "chiptune", "split": {"selection_frac": 0}})
    again = ExperimentPlan.model_validate_json(plan.model_dump_json(by_alias=True))
    assert again.spec.dataset.split.selection_frac == 0.0
    assert plan_experiment(again.spec) == again


def test_named_datasets_and_variants_of_a_search_have_a_selection_side_each() -> None:
    plan = plan_with(
        trials={"variants": [{"name": "a"}, {"name": "b", "lora.rank": 2}, {"name": "c", "lora.rank": 3}]},
        search={"optuna": {"n_trials": 2}},
        baseline="a",
        ablations={"more": {"dataset.split.selection_frac": 0.3}},
    )
    assert {trial.name: trial.dataset.split.selection_frac for trial in plan.trials if trial.lora} == {
        "a": 0.1,
        "b": 0.1,
        "c": 0.1,
        "more": 0.3,
    }


def test_a_sampling_axis_can_be_searched_by_a_metric() -> None:
    grid = {"axes": {"lora.rank": [2, 8], "generation.guidance": [1.0, 3.0]}}
    plan = plan_with(trials={"grid": grid}, search={"optuna": {"n_trials": 2, "objective": "mfcc20"}})
    assert sum(trial.search is not None for trial in plan.trials) == 4
