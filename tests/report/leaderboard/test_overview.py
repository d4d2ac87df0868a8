"""Across runs: what may be set side by side is, what may not is told why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.fake_run import PROMPT_HTML, FakeRun, FakeTrial, write_json, zero_shot

from lora_bench.cli.main import main
from lora_bench.report.leaderboard.comparability import explain_difference
from lora_bench.report.render import render_report


def write_run(folder: Path, name: str, base: float = 0.5, **changes: Any) -> Path:
    return FakeRun(trials=[zero_shot(), FakeTrial(f"r4-{name}", base=base)], name=name, **changes).write(
        folder
    )


def change_json(path: Path, change: dict[str, Any]) -> None:
    """Replace values at dotted places."""
    document = json.loads(path.read_text(encoding="utf-8"))
    for place, value in change.items():
        *parents, last = place.split(".")
        part = document
        for parent in parents:
            part = part[parent]
        part[last] = value
    write_json(path, document)


def render(folder: Path) -> tuple[str, str]:
    assert main(["index", str(folder / "runs"), "--reports-dir", str(folder / "reports")]) == 0
    reports = folder / "reports"
    return (reports / "leaderboard.md").read_text(encoding="utf-8"), (reports / "index.html").read_text(
        encoding="utf-8"
    )


def rows_of(text: str, header: str) -> list[list[str]]:
    """Cells below the first header row that begins with `header`."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {header} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.split("|")[1:-1]])
    return rows


def test_runs_that_agree_share_a_leaderboard_in_order_of_their_values(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "first", base=0.5)
    write_run(tmp_path / "runs", "second", base=0.3)
    text, page = render(tmp_path)
    rows = rows_of(text, "place")
    assert [row[1] for row in rows] == ["r4-second", "r4-first", "zero-shot", "zero-shot"]
    assert rows[0][4] == "0.500 (uncorrected)"  # over all prompts: 0.3 + 0.2, rounded as its interval
    assert "Values marked (uncorrected) are not corrected for the bias" in " ".join(text.split())
    assert "Not comparable" not in text + page
    assert set(re.findall(r'href="#(.*?)"', page)) <= set(re.findall(r'id="(.*?)"', page))


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("dataset.json", {"manifest.key": "0ther"}, "data (c0ffee and 0ther)"),
        ("plan.json", {"spec.generation.n_clips": 150}, "clips per prompt (10 and 150)"),
        ("plan.json", {"spec.generation.guidance": 1.0}, "guidance scale (3 and 1)"),
        ("plan.json", {"spec.generation.seed": 9}, "noise seed (0 and 9)"),
    ],
)
def test_runs_that_differ_stand_apart_with_the_reason(
    tmp_path: Path, file: str, change: dict[str, Any], reason: str
) -> None:
    write_run(tmp_path / "runs", "first")
    change_json(write_run(tmp_path / "runs", "second") / file, change)
    text, _ = render(tmp_path)
    assert f"**Not comparable with set 1**: different {reason}." in text
    assert "Comparable set 1: first" in text
    assert "Comparable set 2: second" in text


def test_other_prompts_are_counted_and_other_metrics_have_their_own_section(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "first", prompts=["a", "b", "c"])
    write_run(tmp_path / "runs", "second", prompts=["a", "b"], metrics=["mfcc20", "encodec"])
    text, _ = render(tmp_path)
    assert "prompts (3 prompts and 2, 2 in common)" in text
    assert "## encodec" in text
    assert [row[2] for row in rows_of(text.split("## encodec")[1], "place")] == ["second", "second"]


def test_another_encoder_setting_is_another_metric() -> None:
    ours = {"metric's weights": "abc", "data": "x"}
    assert explain_difference(ours, ours) == []
    assert explain_difference(ours, {"metric's weights": None, "data": "x"}) == [
        "metric's weights (abc and not recorded)"
    ]


def test_the_overview_links_reports_that_are_there_and_names_what_cannot_be_read(tmp_path: Path) -> None:
    render_report(write_run(tmp_path / "runs", "first"), tmp_path / "reports")
    write_run(tmp_path / "runs", "second", trained=False)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "plan.json").write_text("{")
    (tmp_path / "runs" / "odd").mkdir()
    (tmp_path / "runs" / "odd" / "results.json").write_text('{"trials": [{}]}')
    (tmp_path / "runs" / "music").mkdir()
    text, page = render(tmp_path)
    assert 'href="first/report.html"' in page
    assert "second/report.html" not in page
    assert "pocket (untrained)" in text
    assert "`broken`: " in text
    assert "`odd`: results.json: not in the form of a run" in text
    assert "music" not in text.split("Folders that cannot be read")[1].split("##")[0]


def test_incomplete_runs_are_marked_and_names_are_escaped(tmp_path: Path) -> None:
    failed = FakeTrial("r8", state="failed", has_scores=False)
    FakeRun(trials=[zero_shot(), failed], prompts=[PROMPT_HTML]).write(tmp_path / "runs")
    text, page = render(tmp_path)
    assert "incomplete: 1 of 2 trials done" in text
    assert page.count("<script") == 1
    assert not re.search(r'(src|href)="(?!#|data:)[^"]*://', page)


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err
    assert main(["index", str(tmp_path / "none")]) == 2


def test_zero_shot_and_adapters_of_all_training_seeds_rank_together(tmp_path: Path) -> None:
    for name, seeds in (("first", (0, 1)), ("second", (7,))):
        tuned = [FakeTrial(f"r4-{name}", seed=seed, base=0.5 + seed / 100) for seed in seeds]
        run = FakeRun(trials=[zero_shot(), *tuned], name=name).write(tmp_path / "runs")
        for trial in (
            zero_shot(),
            *tuned,
        ):  # stages record the training seed of what made the clips; zero-shot has none
            path = run / "trials" / trial.id / "scores.json"
            document = json.loads(path.read_text(encoding="utf-8"))
            for score in document["scores"]:
                score["provenance"] |= {} if trial.seed is None else {"train_seed": trial.seed}
            write_json(path, document)
    text, page = render(tmp_path)
    assert "Comparable set" not in text + page
    assert "Not comparable" not in text + page
    assert [row[:3] for row in rows_of(text, "place")] == [
        ["1", "r4-first", "first"],
        ["2", "r4-second", "second"],
        ["3", "zero-shot", "first"],
        ["4", "zero-shot", "second"],
    ]
    assert [row[6] for row in rows_of(text, "place")] == ["2", "1", "—", "—"]  # training seeds
    assert (
        "Values of different runs share a leaderboard only where data, references, prompts, sampling and the metric's own "
        "settings agree; otherwise the reasons are given."
    ) in text
    assert "train seed" not in text


def test_another_metric_setting_still_splits_what_differs_in_training_seeds(tmp_path: Path) -> None:
    for name, encoder in (("first", "mfcc"), ("second", "another mfcc")):
        run = write_run(tmp_path / "runs", name)
        for path in (run / "trials").glob("*/scores.json"):
            document = json.loads(path.read_text(encoding="utf-8"))
            for score in document["scores"]:
                score["provenance"] |= {"encoder": encoder, "train_seed": len(name)}
            write_json(path, document)
    text, _ = render(tmp_path)
    assert "**Not comparable with set 1**: different metric's encoder (mfcc and another mfcc)." in text
