"""The records of a run: their JSON Schema, and files of other versions and programs."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from lora_bench.errors import StoreError
from lora_bench.results.json_schema import FILE, write_schema_text
from lora_bench.results.reading import read_results_file, render_record
from lora_bench.results.run_records import RESULTS_SCHEMA
from lora_bench.store import write_json

jsonschema = pytest.importorskip("jsonschema")
REPORTS = sorted((Path(__file__).parents[2] / "reports").glob("*/results.json"))
TRIAL = {"name": "small", "scores": [{"metric": "mfcc20", "value": 1.0}]}


def read_schema() -> str:
    return resources.files("lora_bench.results").joinpath(FILE).read_text(encoding="utf-8")


def read(folder: Path, document: object) -> Any:
    (folder / "results.json").write_text(json.dumps(document), encoding="utf-8")
    return read_results_file(folder / "results.json")


def test_the_shipped_schema_is_that_of_the_records() -> None:
    assert read_schema() == write_schema_text()


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.parent.name)
def test_committed_results_are_valid_and_come_out_byte_for_byte(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    validator = jsonschema.Draft202012Validator(json.loads(read_schema()))
    assert [error.message for error in validator.iter_errors(json.loads(text))] == []
    results = read_results_file(path)
    if results.schema_version == RESULTS_SCHEMA:  # an earlier one is read, and written in the present form
        assert render_record(results) == text


def test_the_schema_refuses_a_score_in_words() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(read_schema()))
    document = {"trials": [{"id": "a", "name": "a", "configuration": "a", "scores": [{"metric": "m"}]}]}
    assert not validator.is_valid(document)
    document["trials"][0]["scores"][0]["value"] = "good"
    assert not validator.is_valid(document)
    document["trials"][0]["scores"][0]["value"] = 1.5
    assert validator.is_valid(document)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([1], "holds a list, expected an object"),
        ({"trials": [1]}, "`trials[0]` is 1, expected an object"),
        ({"trials": [{"lr": 1}]}, "`trials[0]` is {'lr': 1}, expected an object with a name"),
        ({"trials": [TRIAL | {"state": "asleep"}]}, "`trials[0].state` is 'asleep', expected 'done', "),
        ({"trials": [TRIAL | {"peak_memory_gib": "2"}]}, "`trials[0].peak_memory_gib` is '2', expected a number"),
        ({"trials": [TRIAL | {"trainable_params": True}]}, "is True, expected a whole number"),
        ({"trials": [TRIAL], "complete": "yes"}, "`complete` is 'yes', expected true or false"),
        ({"trials": [TRIAL], "name": "a/b"}, "`name` is 'a/b', expected a name without slashes"),
        ({"trials": [TRIAL], "contrasts": [{"configuration": "a", "metric": "m"}]}, "`contrasts[0].delta` is missing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_its_value_and_what_was_expected(
    document: object, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreError) as caught:
        read(tmp_path, document)
    assert str(caught.value).startswith(f"{tmp_path}/results.json: not in the form of a run (")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("field", ["value", "se", "corrected"])
def test_a_number_that_is_not_finite_is_refused(field: str, number: str, tmp_path: Path) -> None:
    score = {"metric": "m", "value": 1.0, field: "?"}
    text = json.dumps({"trials": [{"name": "a", "scores": [score]}]}).replace('"?"', number)
    (tmp_path / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match="expected a finite number"):
        read_results_file(tmp_path / "results.json")


def test_fields_of_another_version_are_kept_and_absent_ones_have_defaults(tmp_path: Path) -> None:
    score = TRIAL["scores"][0] | {"ranks": [1, 2]}
    found = read(
        tmp_path, {"trials": [TRIAL | {"scores": [score], "mood": "good"}], "weather": {"rain": True}}
    )
    trial = found.trials[0]
    assert (trial.id, trial.configuration, trial.state, trial.unscored) == ("small", "small", "done", ())
    assert (found.name, found.complete, trial.scores[0].prompt) == (tmp_path.name, False, None)
    written = json.loads(render_record(found))
    assert written["weather"] == {"rain": True}
    assert written["trials"][0]["mood"] == "good"
    assert written["trials"][0]["scores"] == [score]


def test_text_that_is_no_utf_8_survives_reading_and_writing(tmp_path: Path) -> None:
    document = {"name": "odd", "trials": [], "spec": {"a\udcff": "b\udcff"}, "source": "c\udcff.yaml"}
    write_json(tmp_path / "results.json", document)
    assert json.loads(render_record(read_results_file(tmp_path / "results.json"))) == document


def test_records_cannot_be_changed(tmp_path: Path) -> None:
    found = read(tmp_path, {"trials": [TRIAL]})
    with pytest.raises(ValueError, match="frozen"):
        found.trials[0].state = "failed"
