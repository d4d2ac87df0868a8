"""The study's section of a report, as it is written to markdown and HTML."""

from __future__ import annotations

import itertools
from pathlib import Path

from support.fake_run import FakeRun, FakeTrial, write_json, zero_shot

from lora_bench.report import render_report
from lora_bench.report.formatting import format_difference, format_value
from lora_bench.results.reading import read_results_file
from lora_bench.results.run_records import RunResults
from lora_bench.store import read_json
from lora_bench.study import analyse_study

RANKS, SEEDS = (4, 8), (0, 1, 2)


def write_grid(folder: Path, *, seeds: tuple[int, ...] = SEEDS) -> Path:
    """A run over two ranks with seeds."""
    noise = {(4, 0): 0.01, (4, 1): -0.01, (8, 2): 0.01}
    trials = [
        FakeTrial(f"r{rank}", seed=seed, rank=rank, base=0.5 - 0.01 * rank + noise.get((rank, seed), 0.0))
        for rank, seed in itertools.product(RANKS, seeds)
    ]
    run = FakeRun([zero_shot(), *trials]).write(folder)
    plan = read_json(run / "plan.json")
    plan["spec"] |= {
        "trials": {"grid": {"axes": {"lora.rank": list(RANKS)}}},
        "defaults": {"lora": {"rank": 16}},
    }
    for trial in plan["trials"]:
        trial["configuration"] = trial["name"]
        if trial["kind"] == "fine-tuned":
            trial["changes"] = {"lora.rank": trial["lora"]["rank"]}
    write_json(run / "plan.json", plan)
    return run


def render(run: Path, folder: Path) -> tuple[str, str, RunResults]:
    """Markdown, HTML and results."""
    render_report(run, folder)
    report = folder / "invented"
    return (
        "\n".join((report / name).read_text(encoding="utf-8") for name in ("report.md", "details.md")),
        (report / "report.html").read_text(encoding="utf-8"),
        read_results_file(report / "results.json"),
    )


def test_a_grid_with_seeds_gets_a_section_with_effects_and_costs(tmp_path: Path) -> None:
    text, page, results = render(write_grid(tmp_path), tmp_path / "reports")
    study = analyse_study(results)
    assert study is not None
    (metric,) = study.metrics
    assert "## What the study says" in text
    assert "What the study says" in page
    (main,) = metric.main_effects
    for level in main.levels:
        assert level.mean is not None
        assert level.effect is not None
        assert format_value(level.mean) in text
        assert format_difference(level.effect) in text
    assert "Main effect of each axis" in text
    assert metric.best is not None
    assert f"Best configuration: **{metric.best.configuration}**" in text
    assert "at most one standard error" in text


def test_a_grid_with_one_seed_says_that_nothing_is_known_of_the_variation(tmp_path: Path) -> None:
    text, _, _ = render(write_grid(tmp_path, seeds=(0,)), tmp_path / "reports")
    assert "A single training seed" in text
    assert "lora.rank: not tested." in text


def test_a_plain_comparison_has_no_such_section(tmp_path: Path) -> None:
    run = FakeRun([zero_shot(), FakeTrial("r4"), FakeTrial("r8", rank=8)]).write(tmp_path)
    text, page, _ = render(run, tmp_path / "reports")
    assert "What the study says" not in text + page
