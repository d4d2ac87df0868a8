"""Learning rates by kind: resolved before a trial has its identity, refused where a kind has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_bench.errors import SpecError
from lora_bench.planning.plan import plan_file
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.spec import load_spec
from lora_bench.spec.json_schema import build_json_schema

Plan = Callable[..., ExperimentPlan]
BASE = "schema: 1\nname: t\ndataset: {builtin: chiptune}\nprompts: [a]\n"
RATES = "defaults: {train: {lr: {lora: 1e-4, vera: 1e-2}}}\n"
KINDS = "trials: {variants: [{name: a}, {name: b, lora: {kind: vera}}]}\n"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    def make(text: str, *overrides: str) -> ExperimentPlan:
        file = tmp_path / "t.yaml"
        file.write_text(BASE + text, encoding="utf-8")
        return plan_file(load_spec(file, overrides))

    return make


def rates(plan: ExperimentPlan) -> dict[str, object]:
    return {trial.name: trial.train.lr for trial in plan.trials if trial.train is not None}


def test_trials_are_those_with_the_plain_numbers(plan: Plan) -> None:
    found = plan(RATES + KINDS)
    assert rates(found) == {"a": 1e-4, "b": 1e-2}
    plain = plan("trials: {variants: [{name: a}, {name: b, lora: {kind: vera}, train.lr: 1e-2}]}\n")
    assert [trial.id for trial in found.trials] == [trial.id for trial in plain.trials]
    assert found.trials[2].train == plain.trials[2].train


def test_rates_may_be_stated_in_axes_variants_ablations_and_overrides(plan: Plan) -> None:
    axes = "trials: {grid: {axes: {train.lr: [{lora: 1e-4, vera: 1e-2}, {lora: 2e-4, vera: 2e-2}], lora.kind: [lora, vera]}}}\n"
    assert rates(plan(axes)) == {
        "lr0.0001-lora": 1e-4, "lr0.01-vera": 1e-2, "lr0.0002-lora": 2e-4, "lr0.02-vera": 2e-2,
    }  # fmt: skip
    for variant in ("train: {lr: {lora: 3e-4}}", "train.lr: {lora: 3e-4}"):
        assert rates(plan(f"trials: {{variants: [{{name: a, {variant}}}]}}\n")) == {"a": 3e-4}
    ablated = plan(
        f"{RATES}trials: {{variants: [{{name: a}}]}}\nbaseline: a\nablations: {{other: {{lora.kind: vera}}}}\n"
    )
    assert rates(ablated) == {"a": 1e-4, "other": 1e-2}
    assert rates(plan(KINDS, "train.lr={lora: 5e-4, vera: 0.5}")) == {"a": 5e-4, "b": 0.5}
    assert rates(plan(RATES + KINDS, "train.lr.vera=0.5")) == {"a": 1e-4, "b": 0.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "defaults: {train: {lr: {lora: 1e-4, oft: 1e-3}}}\n" + KINDS,
            "`train.lr` has rates for lora, oft, but none for kind `vera`; add `vera: <rate>`",
        ),
        ("defaults: {train: {lr: {lorra: 1e-4}}}\n", "`lorra` is no kind of adapter; did you mean `lora`?"),
        ("defaults: {train: {lr: {lora: -1}}}\n", "expected a number above 0"),
        (
            "defaults: {train: {lr: fast}}\n",
            "is the text 'fast'; expected a number above 0 or a mapping (`key: value` lines)",
        ),
        ("defaults: {train: {lr: {}}}\n", "`defaults.train.lr` is a mapping with 0 keys"),
    ],
)
def test_wrong_rates_are_refused_by_name(plan: Plan, text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan(text)
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


def test_editors_know_both_forms() -> None:
    found = build_json_schema()["$defs"]["TrainSpec"]["properties"]["lr"]["anyOf"]
    assert {form["type"] for form in found} == {"number", "object"}
    assert "vera" in json.dumps(found)
