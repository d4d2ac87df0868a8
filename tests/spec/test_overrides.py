"""What `-o` changes: every trial, its name, and nothing in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_bench.errors import SpecError
from lora_bench.planning.plan import plan_file
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.spec import load_spec
from lora_bench.spec.grid import rename_value

HEAD = "schema: 1\nname: t\ndataset: {builtin: chiptune}\nprompts: [a]\n"
VARIANTS = "trials: {variants: [{name: r4-attention, lora: {rank: 4}}, {name: r16-all, lora: {rank: 16, targets: all}}]}\n"
GRID = 'trials: {grid: {name: "r{lora.rank}-{lora.targets}", axes: {lora.targets: [attention, ffn]}}}\n'
Plan = Callable[..., ExperimentPlan]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Plans a spec of the head and more lines, with overrides."""

    def make(text: str, *overrides: str) -> ExperimentPlan:
        path = tmp_path / "t.yaml"
        path.write_text(HEAD + text, encoding="utf-8")
        return plan_file(load_spec(path, overrides))

    return make


def ranks(found: ExperimentPlan) -> dict[str, int]:
    """Rank by name of the trained trials."""
    return {trial.name: trial.lora.rank for trial in found.trials if trial.lora is not None}


def refuse(plan: Plan, text: str, *overrides: str) -> list[str]:
    """The problems that overrides have."""
    with pytest.raises(SpecError) as caught:
        plan(text, *overrides)
    return [str(problem) for problem in caught.value.problems]


def test_an_override_reaches_trials_that_state_the_field_themselves_and_their_names_follow(
    plan: Plan,
) -> None:
    found = plan(VARIANTS, "lora.rank=8")
    assert ranks(found) == {"r8-attention": 8, "r8-all": 8}
    assert found.override_effects == (
        "r8-attention (in the spec: r4-attention): lora.rank 4 -> 8, lora.alpha 8 -> 16",
        "r8-all (in the spec: r16-all): lora.rank 16 -> 8, lora.alpha 32 -> 16",
    )


def test_ablations_of_a_renamed_baseline_stay(plan: Plan) -> None:
    found = plan(VARIANTS + "baseline: r4-attention\nablations: {slow: {train.lr: 1.0e-5}}\n", "lora.rank=8")
    assert list(ranks(found)) == ["r8-attention", "r8-all", "slow"]
    renamed, other = found.override_effects
    assert renamed == "r8-attention (in the spec: r4-attention), slow: lora.rank 4 -> 8, lora.alpha 8 -> 16"
    assert other.startswith("r8-all (in the spec: r16-all): ")


def test_a_budget_takes_the_place_of_a_rank(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(HEAD + VARIANTS, encoding="utf-8")
    loaded = load_spec(path, ["lora.budget=50k"])
    assert [variant.name for variant in loaded.spec.trials.variants] == ["r4-attention", "r16-all"]
    assert loaded.effects == (
        "r4-attention: lora.rank 4 -> none, lora.alpha 8 -> none, lora.budget none -> 50k",
        "r16-all: lora.rank 16 -> none, lora.alpha 32 -> none, lora.budget none -> 50k",
    )


def test_kept_steps_are_rows_that_are_added_and_left_out(plan: Plan) -> None:
    kept = "defaults: {train: {keep: [100]}}\n"
    assert plan(VARIANTS, "train.keep=[100]").override_effects == ("added: r4-attention@100, r16-all@100",)
    assert plan(VARIANTS + kept, "train.keep=null").override_effects == (
        "left out: r4-attention@100, r16-all@100",
    )


def test_another_system_has_no_training_to_override(plan: Plan) -> None:
    other = VARIANTS.replace("targets: all}}]", "targets: all}}, {name: other, external: {clips: a}}]")
    assert "other" not in " ".join(plan(other, "train.lr=0.5").override_effects)


def test_zero_shot_alone_can_be_asked_for(plan: Plan) -> None:
    found = plan("", "trials.zero_shot_only=true")
    assert [trial.name for trial in found.trials] == ["zero-shot"]
    assert found.override_effects == ("trials.zero_shot_only: false -> true",)


def test_a_tuned_field_is_not_overridden_but_named_with_its_mend(plan: Plan) -> None:
    for tune in ("{train.lr: [1.0e-4, 1.0e-3], seed: 7}", "{train: {lr: [1.0e-4, 1.0e-3]}}"):
        [problem] = refuse(plan, VARIANTS + f"tune: {tune}\n", "train.lr=0.5")
        assert (
            "`train.lr` is what `tune` looks for; override its values, as in `-o tune.train.lr=[0.5]`"
            in problem
        )


@pytest.mark.parametrize("written", ["lora.rank: 4", "lora: {rank: 4}", "lora: {rank: 4, dropout: 0}"])
def test_it_does_not_matter_how_a_variant_writes_the_field(plan: Plan, written: str) -> None:
    text = f"trials: {{variants: [{{name: one, {written}}}]}}\n"
    for override in ("lora.rank=8", "lora={rank: 8}"):
        assert ranks(plan(text, override)) == {"one": 8}


def test_a_name_that_states_a_default_follows_it(plan: Plan) -> None:
    text = "defaults: {lora: {rank: 8}}\ntrials: {variants: [{name: r8-attention}]}\n"
    assert ranks(plan(text, "lora.rank=32")) == {"r32-attention": 32}
    assert ranks(plan("", "lora.rank=8", "lora.targets=ffn")) == {"r8-ffn": 8}


def test_names_of_combinations_and_of_the_baseline_are_made_from_the_overridden_values(plan: Plan) -> None:
    text = f"baseline: r16-ffn\nablations: {{slow: {{train.lr: 1e-5}}}}\n{GRID}"
    found = plan(text, "lora.rank=2")
    assert ranks(found) == {"r2-attention": 2, "r2-ffn": 2, "slow": 2}
    assert found.baseline == "r2-ffn"
    renamed = plan(f"baseline: r4-attention\n{VARIANTS}", "lora.rank=8")
    assert renamed.baseline == "r8-attention"


def test_a_change_of_all_trials_is_one_line_and_other_changes_are_told_too(plan: Plan) -> None:
    found = plan(VARIANTS, "train.steps=5", "metrics=[mfcc20]", "repeats.train_seeds=[1, 2]")
    assert found.override_effects == (
        "all 2 trials: train.steps 1000 -> 5",
        "metrics: [mfcc20-seed, mfcc20, encodec] -> [mfcc20]",
        "repeats.train_seeds: [0] -> [1, 2]",
    )


def test_a_variant_that_is_overridden_by_its_place_is_renamed_unless_the_override_names_it(
    plan: Plan,
) -> None:
    assert ranks(plan(VARIANTS, "trials.variants.0.lora.rank=6")) == {"r6-attention": 6, "r16-all": 16}
    named = ("trials.variants.0.lora.rank=6", "trials.variants.0.name=r4-mine")
    assert ranks(plan(VARIANTS, *named)) == {"r4-mine": 6, "r16-all": 16}


def test_an_axis_of_the_grid_is_not_overridden_but_named_with_its_mend(plan: Plan) -> None:
    text = "trials: {grid: {axes: {lora.rank: [4, 8]}, zip: {train.lr: [1e-3, 1e-4], with: lora.rank}}}\n"
    (problem,) = refuse(plan, text, "lora.rank=8")
    assert problem == (
        "-o lora.rank=8: `lora.rank` is an axis of the grid; override its values, as in "
        "`-o trials.grid.axes.lora.rank=[8]`"
    )
    (linked,) = refuse(plan, text, "train.lr=1")
    assert (
        "`train.lr` follows the axis `lora.rank`; override its values, as in `-o trials.grid.zip.train.lr="
        in linked
    )
    section = "trials: {grid: {axes: {lora: [{rank: 4}, {rank: 8}]}}}\n"
    assert "is an axis of the grid" in refuse(plan, section, "lora.rank=8")[0]
    found = plan(text, "trials.grid.axes.lora.rank=[4, 16]")
    assert ranks(found) == {"r4": 4, "r16": 16}
    assert found.override_effects == ("left out: r8", "added: r16")


def test_an_ablations_field_is_not_overridden_but_named_with_its_mend(plan: Plan) -> None:
    text = f"baseline: r4-attention\nablations: {{slow: {{train.lr: 1e-5}}}}\n{VARIANTS}"
    (problem,) = refuse(plan, text, "train.lr=1")
    assert (
        "is what the ablation `slow` changes; override it there with `-o ablations.slow.train.lr=1`"
        in problem
    )
    assert plan(text, "defaults.train.lr=1").trials[1].train.lr == 1.0  # pyright: ignore[reportOptionalMemberAccess]


def test_trials_that_become_equal_are_named(plan: Plan) -> None:
    text = "trials: {variants: [{name: small, lora: {rank: 4}}, {name: large, lora: {rank: 8}}]}\n"
    (problem,) = refuse(plan, text, "train.steps=7", "lora.rank=8")
    assert problem.startswith(
        "-o lora.rank=8: trials `small` and `large` become equal, because they differ only in "
    )
    assert "`lora.rank`" in problem
    assert "`-o trials.variants.1.KEY=VALUE`" in problem


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["defaults.lora.rank=8"], "because each sets `lora.rank` itself; `-o lora.rank=...` changes it"),
        (["lora.targets=all", "lora.targets=ffn"], "is given again later"),
        (["generation.guidance=3"], "already have this value"),
        (["name=t"], "already have this value"),
        (["dataset.path=x", "dataset.builtin=chiptune"], "another override undoes it"),
        (["datasets.other.builtin=chiptune"], "no trial takes it from there"),
    ],
)
def test_an_override_that_changes_nothing_is_an_error(plan: Plan, overrides: list[str], words: str) -> None:
    (problem,) = refuse(plan, VARIANTS, *overrides)
    assert problem.startswith(f"-o {overrides[0]}: `{overrides[0].partition('=')[0]}` ")
    assert words in problem


def test_a_value_that_holds_already_may_stand_next_to_one_that_does_not(plan: Plan) -> None:
    found = plan(VARIANTS, "generation.guidance=3", "train.steps=5")
    assert found.override_effects[-1] == (
        "generation.guidance already has this value: -o generation.guidance=... changes nothing"
    )


def test_a_field_of_the_dataset_reaches_named_datasets(plan: Plan, tmp_path: Path) -> None:
    text = (
        "datasets: {one: {builtin: chiptune}, two: {path: music}}\n"
        "trials: {grid: {axes: {dataset: [one, two]}}}\n"
    )
    found = plan(text, "dataset.clip_s=4")
    assert {trial.dataset.clip_s for trial in found.trials} == {4.0}
    assert "is an axis of the grid" in refuse(plan, text, "dataset.path=x")[0]
    variants = "datasets: {two: {path: music}}\ntrials: {variants: [{name: a, dataset: two}]}\n"
    assert {trial.dataset.path for trial in plan(variants, f"dataset.path={tmp_path}").trials} == {tmp_path}
    assert {trial.dataset.builtin for trial in plan(variants, "dataset={builtin: chiptune}").trials} == {
        "chiptune"
    }


def test_an_override_can_give_what_the_spec_lacks(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("schema: 1\nprompts: [a]\n", encoding="utf-8")
    assert load_spec(path, ["dataset.builtin=chiptune"]).spec.dataset.builtin == "chiptune"


@pytest.mark.parametrize(
    ("name", "field", "before", "after", "renamed"),
    [
        ("r4", "lora.rank", 4, 8, "r8"),
        ("rank-4-ffn", "lora.rank", 4, 8, "rank-8-ffn"),
        ("r4a16", "lora.alpha", 16.0, 32.0, "r4a32"),
        ("lr1e-3", "train.lr", 0.001, 0.5, "lr0.5"),
        ("bs8", "train.batch_size", 8, 4, "bs4"),
        ("r40", "lora.rank", 4, 8, "r40"),
        ("v4", "lora.rank", 4, 8, "v4"),
        ("my-attention.2", "lora.targets", "attention", "attention+ffn", "my-attention+ffn.2"),
        ("inattention", "lora.targets", "attention", "all", "inattention"),
        ("musicgen-small-x", "model.id", "facebook/musicgen-small", "facebook/musicgen-large", "musicgen-large-x"),
        ("dora-true", "lora.use_dora", True, False, "dora-true"),
    ],
)  # fmt: skip
def test_a_name_follows_the_value_that_it_states(
    name: str, field: str, before: object, after: object, renamed: str
) -> None:
    assert rename_value(name, field, before, after) == renamed
