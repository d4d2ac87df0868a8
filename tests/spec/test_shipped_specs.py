"""The specs that are shipped are valid and counted, and editors find their schema."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml
from support import ROOT

from lora_bench.api import plan_experiment
from lora_bench.spec import load_spec
from lora_bench.spec.json_schema import write_schema_text

FOLDER = ROOT / "specs"
N_SHIPPED = 17
N_BASES = 7
BASES = sorted(FOLDER.glob("base/*.yaml"))
SHIPPED = sorted(path for path in FOLDER.glob("**/*.yaml") if path not in BASES)
STUDIES = [path for path in SHIPPED if path.stem in {"rank_ablation", "target_ablation", "rank_targets"}]


def show_shipped(path: Path) -> str:
    """A spec's place below `specs/`."""
    return path.relative_to(FOLDER).as_posix()


def test_all_shipped_specs_are_counted() -> None:
    assert len(SHIPPED) == N_SHIPPED, [path.name for path in SHIPPED]
    assert len(BASES) == N_BASES, [path.name for path in BASES]
    assert len(STUDIES) == 6


@pytest.mark.parametrize("path", SHIPPED, ids=show_shipped)
def test_shipped_spec_is_valid_and_planned(path: Path) -> None:
    plan = plan_experiment(load_spec(path))
    assert plan.name == show_shipped(path).removesuffix(".yaml").replace("/", "-")
    assert plan.is_tuning or plan.trials[0].kind == "zero-shot"
    assert any(trial.kind == "fine-tuned" for trial in plan.trials)


@pytest.mark.parametrize("path", SHIPPED, ids=show_shipped)
def test_shipped_spec_begins_with_what_it_is_and_its_command(path: Path) -> None:
    comments = path.read_text(encoding="utf-8").split("schema:")[0]
    assert f"lora-bench run specs/{show_shipped(path)}" in comments


@pytest.mark.parametrize("path", [*STUDIES, *BASES], ids=show_shipped)
def test_studies_name_the_json_schema_in_their_first_line(path: Path) -> None:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    stated = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / stated).resolve() == FOLDER.parent / "lora_bench" / "spec" / "schema.json"


@pytest.mark.parametrize("path", STUDIES, ids=show_shipped)
def test_studies_have_a_grid_a_baseline_and_three_training_seeds(path: Path) -> None:
    plan = plan_experiment(load_spec(path))
    assert plan.spec.trials.grid is not None
    assert plan.baseline is not None
    assert plan.spec.repeats.train_seeds == [0, 1, 2]
    assert {trial.train_seed for trial in plan.trials if trial.configuration == plan.baseline} == {0, 1, 2}


def read_shipped_schema() -> dict[str, object]:
    return json.loads(resources.files("lora_bench.spec").joinpath("schema.json").read_text(encoding="utf-8"))


def test_shipped_json_schema_is_current() -> None:
    shipped = resources.files("lora_bench.spec").joinpath("schema.json").read_text(encoding="utf-8")
    assert shipped == write_schema_text(), "run: python -m lora_bench.spec.json_schema"


def test_json_schema_is_a_valid_schema_with_descriptions() -> None:
    schema = read_shipped_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    rank = schema["$defs"]["LoraSpec"]["properties"]["rank"]
    assert rank["description"].startswith("Rank of the update")
    assert (rank["minimum"], rank["maximum"]) == (1, 1024)


@pytest.mark.parametrize("path", [*SHIPPED, *BASES], ids=show_shipped)
def test_json_schema_accepts_shipped_spec(path: Path) -> None:
    jsonschema.Draft202012Validator(read_shipped_schema()).validate(
        yaml.safe_load(path.read_text(encoding="utf-8"))
    )


ACCEPTED = """
schema: 1
extends: base.yaml
dataset: own
datasets: {own: {path: music}}
prompts: [a, {file: p.txt}]
prompt_sets: {far: {file: q.txt}}
baseline: a
trials:
  variants: [{name: a, lora: {rank: 4}, train.lr: 0.1, dataset: own}]
  grid:
    name: "r{lora.rank}"
    axes: {lora.rank: [4, 8], dataset: [own]}
    zip: {lora.alpha: [8, 16], with: lora.rank}
    exclude: [{lora.rank: 4, dataset: own}]
ablations: {x: {train: {steps: 5}}}
"""
REFUSED = [
    "modle: {}",
    "defaults: {lora: {rnak: 3}}",
    "generation: {n_clips: 1}",
    "metrics: [mfcc21]",
    "trials: {variants: [{lora: {rank: 4}}]}",
    "trials: {variants: [{name: a, lora.rnak: 4}]}",
    "trials: {grid: {axes: {lora.rnak: [4]}}}",
    "ablations: {x: {train.steps: 5, train.batch_size: 4}}",
]


def test_json_schema_accepts_the_whole_grammar() -> None:
    jsonschema.Draft202012Validator(read_shipped_schema()).validate(yaml.safe_load(ACCEPTED))


@pytest.mark.parametrize("line", REFUSED)
def test_json_schema_refuses_what_loading_refuses(line: str) -> None:
    document = {"schema": 1, "dataset": {"builtin": "chiptune"}, "prompts": ["a"], **yaml.safe_load(line)}
    assert list(jsonschema.Draft202012Validator(read_shipped_schema()).iter_errors(document))
