"""Three files, the same cells: JSON, CSV and parquet."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.fake_run import PROMPT_HTML, PROMPT_KOREAN, FakeRun, FakeTrial, contrast, zero_shot

from lora_bench.artifacts import Unscored
from lora_bench.results.csv_table import CSV_COLUMNS, render_csv
from lora_bench.results.gather import gather_results
from lora_bench.results.parquet_table import render_parquet
from lora_bench.results.run_records import RunResults


@pytest.fixture
def results(tmp_path: Path) -> RunResults:
    tuned = FakeTrial("r4", unscored=(Unscored("mfcc20", PROMPT_KOREAN, "weights are unavailable"),))
    waiting = FakeTrial("r8", state=None, has_scores=False)
    told = [contrast(tuned, "mfcc20", PROMPT_HTML, "better")]
    run = FakeRun(
        [zero_shot(), tuned, waiting], prompts=[PROMPT_HTML, PROMPT_KOREAN], contrasts=told, bias=0.05
    )
    return gather_results(run.write(tmp_path))


def test_csv_and_parquet_hold_the_cells_of_the_json(results: RunResults) -> None:
    table = pq.read_table(io.BytesIO(render_parquet(results))).to_pylist()
    lines = list(csv.DictReader(io.StringIO(render_csv(results))))
    cells = [
        (trial.id, item.metric, item.prompt, getattr(item, "value", None), getattr(item, "reason", None))
        for trial in results.trials
        for item in (*trial.scores, *trial.unscored)
    ]
    assert len(table) == len(lines) == len(cells) == 9
    for row, line, (trial_id, metric, prompt, value, reason) in zip(table, lines, cells, strict=True):
        assert (row["trial_id"], row["metric"], row["prompt"]) == (trial_id, metric, prompt)
        assert (row["value"], row["unscored"]) == (value, reason)
        assert list(row) == list(line) == list(CSV_COLUMNS)
        for name, text in line.items():
            stored = row[name]
            if stored is None:
                assert text == ""
            elif isinstance(stored, float):
                assert float(text) == stored
            else:
                assert text == str(stored)


def test_a_missing_value_is_null_and_numbers_are_numbers(results: RunResults) -> None:
    table = pq.read_table(io.BytesIO(render_parquet(results)))
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["value"] == kinds["delta_detectable"] == "double"
    assert kinds["n_generated"] == "int64"
    assert kinds["prompt"] == "string"
    assert table.column("value").null_count == 4  # one stated, three of the trial that never ran
    assert render_parquet(results) == render_parquet(results)


def test_fields_in_which_trials_differ_are_columns(results: RunResults) -> None:
    changes = ({}, {"train.steps": 10, "lora.targets": ["a", "b"]}, {"train.steps": 20})
    trials = tuple(
        trial.model_copy(update={"changes": change})
        for trial, change in zip(results.trials, changes, strict=True)
    )
    table = pq.read_table(io.BytesIO(render_parquet(results.model_copy(update={"trials": trials}))))
    assert table.column_names[len(CSV_COLUMNS) :] == ["train.steps", "lora.targets"]
    assert str(table.schema.field("train.steps").type) == "int64"
    assert set(table.column("train.steps").to_pylist()) == {None, 10, 20}
    assert set(table.column("lora.targets").to_pylist()) == {None, "a b"}


def test_a_run_without_trials_gives_empty_columns() -> None:
    empty = pq.read_table(io.BytesIO(render_parquet(RunResults(trials=()))))
    assert (empty.num_rows, empty.column_names) == (0, list(CSV_COLUMNS))
    empty.validate(full=True)


def test_every_column_is_valid_to_the_last_bit(results: RunResults) -> None:
    pq.read_table(io.BytesIO(render_parquet(results))).validate(full=True)
