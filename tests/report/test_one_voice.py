"""Every verdict of a report, wherever it stands, is that of the one contrast in `results.json`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_run import PLAIN_PROMPTS, FakeRun, FakeTrial, contrast, zero_shot

from lora_bench.metrics.verdicts import Verdict
from lora_bench.report.audio.choose_clips import Heard
from lora_bench.report.cells import DESCRIPTIVE, prompt_label
from lora_bench.report.contents import build_report
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Table, write_plain
from lora_bench.results.csv_table import render_csv
from lora_bench.results.gather import gather_results
from lora_bench.results.reading import read_results_file
from lora_bench.results.run_records import RESULTS_SCHEMA, RunResults

SHIPPED = [
    path
    for path in sorted((Path(__file__).parents[2] / "reports").glob("*/results.json"))
    if json.loads(path.read_text(encoding="utf-8"))["schema"] == RESULTS_SCHEMA
]
Place = tuple[str, str, str]


def list_verdicts(view: RunView) -> dict[Place, str]:
    """Verdict by configuration, metric and label of the prompt, as the contrasts have them."""
    return {
        (item.configuration, item.metric, prompt_label(view, item.prompt)): item.verdict or DESCRIPTIVE
        for item in view.results.contrasts
        if item.kind == "zero-shot"
    }


def list_shown(view: RunView) -> Iterator[tuple[Place, str]]:
    """The same, as the tables of the report have them."""
    report = build_report(view, Heard(()))
    folded = [block for fold in report.details for block in fold.blocks]
    for table in (block for block in (*report.front, *folded) if isinstance(block, Table)):
        headers = [write_plain(column.header) for column in table.columns]
        if "verdict" not in headers or "less the baseline" in table.caption:
            continue
        for row in table.rows:
            cells = dict(zip(headers, (write_plain(cell.text) for cell in row), strict=True))
            metric = table.caption.partition(":")[0] if "prompt" in cells else view.primary_metric or ""
            yield (cells["configuration"], metric, cells.get("prompt", view.pooled)), cells["verdict"]


def check_voice(results: RunResults, folder: Path) -> None:
    view = RunView(results, folder)
    expected = list_verdicts(view)
    shown = list(list_shown(view))
    assert {place for place, _ in shown} == set(expected)
    assert [(place, verdict) for place, verdict in shown if verdict != expected[place]] == []
    for cell in csv.DictReader(io.StringIO(render_csv(results))):
        configuration = next(trial.configuration for trial in results.trials if trial.id == cell["trial_id"])
        place = configuration, cell["metric"], prompt_label(view, cell["prompt"] or None)
        if cell["delta"]:
            assert (cell["verdict"] or DESCRIPTIVE) == expected[place]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_reports_have_one_verdict_per_contrast(path: Path) -> None:
    check_voice(read_results_file(path), path.parent)


def test_a_study_has_one_verdict_per_contrast_in_all_its_tables(tmp_path: Path) -> None:
    trials = [FakeTrial(name, seed=seed) for name in ("r2", "r4", "r8", "r16") for seed in (0, 1)]
    told = [
        contrast(trial, metric, prompt, verdict if metric == "mfcc20" else None, delta=delta)
        for trial, verdict, delta in zip(trials[::2], Verdict, (-0.4, 0.4, 0.0, -0.1), strict=True)
        for metric in ("mfcc20", "encodec")
        for prompt in (*PLAIN_PROMPTS, None)
    ]
    run = FakeRun(trials=[zero_shot(), *trials], metrics=["mfcc20", "encodec"], contrasts=told).write(
        tmp_path
    )
    check_voice(gather_results(run), run)
