"""Budgets of trainable parameters: the size that each kind gets, and what a spec may say."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.errors import SpecError
from lora_bench.forecast.budgets import fit_budget
from lora_bench.models import MusicModel, load_model
from lora_bench.planning.plan import plan_experiment, plan_file
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.spec import ExperimentSpec, load_spec
from lora_bench.spec.budgets import spell_count
from lora_bench.spec.kinds import SETTINGS, Kind, has_setting
from lora_bench.spec.schema import LoraSpec, ModelSpec

SIZED: list[Kind] = [kind for kind in SETTINGS if has_setting(kind, "budget")]  # type: ignore[misc]
POCKET = ModelSpec(id="pocket")
SPEC = {"schema": 1, "name": "budgets", "dataset": {"builtin": "chiptune"}, "prompts": ["tune"]}
BASE = """
schema: 1
name: budgets
dataset: {builtin: chiptune}
prompts: [tune]
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> MusicModel:
    folder = save_random_musicgen(tmp_path_factory.mktemp("model") / "tiny", TINY)
    return load_model(ModelSpec(id=str(folder)), device="cpu")


def count_by_peft(model: MusicModel, lora: LoraSpec) -> int:
    """Trainable parameters of the adapter that PEFT makes."""
    try:
        return model.inject_lora(lora, seed=0).trainable_params
    finally:
        model.remove_adapter()


def plan_text(place: Path, text: str, *overrides: str) -> ExperimentPlan:
    file = place / "budgets.yaml"
    file.write_text(BASE + text, encoding="utf-8")
    return plan_file(load_spec(file, overrides), fit_budget)


def refuse(place: Path, text: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        plan_text(place, text, *overrides)
    return str(caught.value)


@pytest.mark.parametrize("kind", SIZED)
def test_budget_of_each_kind_is_kept_and_the_next_size_of_peft_exceeds_it(
    tiny: MusicModel, kind: Kind
) -> None:
    budget = 9_000
    fitted = fit_budget(LoraSpec(kind=kind, budget=budget, targets="attention"), ModelSpec(id=tiny.info.name))
    n_params = count_by_peft(tiny, fitted)
    assert 0 < n_params <= budget
    size = {"block_size": fitted.block_size * 2} if kind == "oft" else {"rank": fitted.rank + 1}
    if kind == "vera":  # a number per rank and layer: 16 layers, so the next one is 16 away
        assert budget - n_params < len(fitted_layers(tiny))
    assert count_by_peft(tiny, fitted.model_copy(update=size)) > budget


def fitted_layers(model: MusicModel) -> list[str]:
    return [name for name in model.linear_module_names() if "attn" in name]


@pytest.mark.parametrize(
    ("budget", "factor", "rank"),
    [("20k", None, 5), ("40k", 8, 12), ("60k", 4, 9), ("200k", 4, 32), ("1M", 2, 64)],
)
def test_lokr_takes_a_smaller_factor_where_equal_factors_bound_it(
    budget: str, factor: int | None, rank: int
) -> None:
    """48 layers of 256 by 256: equal factors are 16 by 16 and end at 24,576; those of 8, 4 and 2 end higher."""
    fitted = fit_budget(LoraSpec(kind="lokr", budget=budget), POCKET)  # type: ignore[arg-type]
    assert (fitted.factor, fitted.rank) == (factor, rank)


@pytest.mark.parametrize(
    ("text", "n"), [("400k", 400_000), ("1.5M", 1_500_000), ("1234", None), ("0.0001k", None)]
)
def test_numbers_of_parameters_have_units(text: str, n: int | None) -> None:
    if n is None:
        with pytest.raises(ValidationError, match=r"such as 400000, 400k or 1\.5M"):
            LoraSpec.model_validate({"budget": text})
        return
    assert LoraSpec.model_validate({"budget": text}).budget == n
    assert spell_count(n) == text


def test_an_adapter_with_a_budget_is_the_one_of_its_rank(tmp_path: Path) -> None:
    of_budget = plan_text(tmp_path, "defaults: {lora: {budget: 100k}}\n").trials[1]
    of_rank = plan_text(tmp_path, "defaults: {lora: {rank: 4}}\n").trials[1]
    assert of_budget.lora == of_rank.lora
    assert (of_budget.id, of_budget.name, of_budget.budget) == (of_rank.id, "r4-attention", 100_000)
    assert "budget" not in of_rank.model_dump(mode="json")


def test_budgets_and_kinds_are_axes_whose_names_state_the_size(tmp_path: Path) -> None:
    axes = "trials: {grid: {axes: {lora.budget: [50k, 100k], lora.kind: [lora, oft, lokr, full]}}}\n"
    found = plan_text(tmp_path, axes)
    assert [trial.name for trial in found.trials[1:]] == [
        "50k-r2-lora", "50k-b8-oft", "50k-r15-f8-lokr", "full", "100k-r4-lora", "100k-b16-oft", "100k-r16-f4-lokr",
    ]  # fmt: skip
    assert found.trials[4].budget is None
    assert "lora.budget has no effect on full: the kind has no size to choose" in found.notes


def test_rank_and_budget_replace_one_another_and_are_never_stated_together(tmp_path: Path) -> None:
    both = "`rank` and `budget` both give the adapter's size; keep one of them"
    assert both in refuse(tmp_path, "defaults: {lora: {rank: 4, budget: 100k}}\n")
    assert both in refuse(tmp_path, "trials: {variants: [{name: a, lora: {rank: 4, budget: 100k}}]}\n")
    assert both in refuse(
        tmp_path,
        "trials: {grid: {axes: {lora.budget: [50k, 100k]}, zip: {lora.rank: [1, 2], with: lora.budget}}}\n",
    )
    variant = (
        "defaults: {lora: {budget: 100k}}\ntrials: {variants: [{name: a}, {name: b, lora: {rank: 7}}]}\n"
    )
    trials = plan_text(tmp_path, variant).trials[1:]
    assert [(trial.lora.rank, trial.budget) for trial in trials if trial.lora] == [(4, 100_000), (7, None)]
    one = "trials: {variants: [{name: b, lora: {rank: 7}}]}\n"
    lora = plan_text(tmp_path, one, "lora.budget=50k").trials[1].lora
    assert lora is not None
    assert lora.rank == 2


def sizes(found: ExperimentPlan) -> dict[str, tuple[str, int, int | None]]:
    """Kind, size and budget of the trained trials."""
    return {
        trial.name: (lora.kind, lora.block_size if lora.kind == "oft" else lora.rank, trial.budget)
        for trial in found.trials
        if (lora := trial.lora) is not None
    }


def test_an_override_of_the_rank_leaves_the_budget_to_kinds_without_one(tmp_path: Path) -> None:
    budget = "defaults: {lora: {budget: 100k}}\n"
    variants = (
        "trials: {variants: [{name: a}, {name: b, lora.kind: oft}, "
        "{name: c, lora: {kind: oft, budget: 50k, targets: ffn}}]}\n"
    )
    found = sizes(plan_text(tmp_path, budget + variants, "lora.rank=7"))
    assert found["a"] == ("lora", 7, None)
    assert [found[name][2] for name in "bc"] == [100_000, 50_000]
    found = sizes(plan_text(tmp_path, budget + variants, "lora.block_size=4"))
    assert found == {"a": ("lora", 4, 100_000), "b": ("oft", 4, None), "c": ("oft", 4, None)}
    grid = "trials: {grid: {axes: {lora.targets: [attention, ffn], KINDS}}}\n"
    kinds = budget + grid.replace("KINDS", "lora.kind: [lora, oft]")
    found = sizes(plan_text(tmp_path, kinds, "lora.rank=7"))
    assert {name: (item[0], item[2]) for name, item in found.items()} == {
        "attention-lora": ("lora", None), "attention-oft": ("oft", 100_000),
        "ffn-lora": ("lora", None), "ffn-oft": ("oft", 100_000),
    }  # fmt: skip
    ablation = "trials: {variants: [{name: a}]}\nbaseline: a\nablations: {turned: {lora.kind: oft}}\n"
    axis = grid.replace("KINDS", "lora: [{kind: lora}, {kind: oft}]")
    for text, what in ((ablation, "the ablation `turned`"), (axis, "the axis `lora`")):
        told = f"and {what} has kind `oft`, which has no rank; override `lora.budget` instead"
        assert told in refuse(tmp_path, budget + text, "lora.rank=7")
    assert "`lora.rank` changes nothing" in refuse(
        tmp_path, "defaults: {lora: {budget: 100k, kind: oft}}\n", "lora.rank=7"
    )


def test_ablation_of_a_budgeted_baseline_keeps_the_budget(tmp_path: Path) -> None:
    spec = (
        "defaults: {lora: {budget: 300k}}\ntrials: {variants: [{name: base}]}\nbaseline: base\n"
        "ablations: {wide: {lora.targets: all}, fixed: {lora.rank: 3}}\n"
    )
    trials = plan_text(tmp_path, spec).trials[1:]
    assert [(trial.name, trial.lora.rank, trial.budget) for trial in trials if trial.lora] == [
        ("base", 12, 300_000), ("wide", 6, 300_000), ("fixed", 3, None),
    ]  # fmt: skip


def test_too_small_a_budget_names_the_smallest(tmp_path: Path) -> None:
    text = refuse(tmp_path, "trials: {variants: [{name: a, lora: {kind: vera, budget: 10k}}]}\n")
    assert "lora.budget 10k is below the smallest size of kind `vera`" in text
    assert "12,336 trainable parameters; raise the budget to 12336 or more" in text
    assert ":6:" in text  # the line of the variant
    plan_text(tmp_path, "trials: {variants: [{name: a, lora: {kind: vera, budget: 12336}}]}\n")


def test_a_model_of_unknown_sizes_and_a_kind_without_a_size_are_refused(tmp_path: Path) -> None:
    text = refuse(tmp_path, "model: {id: someone/musicgen-other}\ndefaults: {lora: {budget: 100k}}\n")
    assert "the sizes of model `someone/musicgen-other` are unknown" in text
    text = refuse(tmp_path, "trials: {variants: [{name: a, lora: {kind: full, budget: 100k}}]}\n")
    assert "`budget` is no setting of kind `full`" in text
    with pytest.raises(SpecError, match="needs the model's sizes, which this caller does not look up"):
        plan_experiment(ExperimentSpec.model_validate(SPEC | {"defaults": {"lora": {"budget": 100_000}}}))
