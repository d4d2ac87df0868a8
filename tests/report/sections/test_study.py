"""The study's section of a report, as it is written to markdown and HTML."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from support.fake_run import FakeRun, FakeTrial, write_json, zero_shot

from lora_bench.report.formatting import format_difference, format_value, use_plain_signs
from lora_bench.report.render import render_report
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
        assert use_plain_signs(format_difference(level.effect, error=level.se)) in text
    assert "Main effect of each axis" in text
    assert metric.best is not None
    assert f"Best configuration: **{metric.best.configuration}**" in text
    assert "at most one standard error" in text


def test_a_study_names_the_prompts_that_its_figures_are_over(tmp_path: Path) -> None:
    run = write_grid(tmp_path)
    assert "All prompts together. An effect is" in render(run, tmp_path / "reports")[0]
    plan = read_json(run / "plan.json")
    for trial in plan["trials"]:
        trial["off_genre"] = [trial["prompts"][-1]]
    write_json(run / "plan.json", plan)
    assert "The genre's prompts together. An effect is" in render(run, tmp_path / "reports")[0]


def test_a_grid_with_one_seed_says_that_nothing_is_known_of_the_variation(tmp_path: Path) -> None:
    text, _, _ = render(write_grid(tmp_path, seeds=(0,)), tmp_path / "reports")
    assert "A single training seed" in text
    assert "lora.rank: not tested." in text


def test_a_plain_comparison_has_no_such_section(tmp_path: Path) -> None:
    run = FakeRun([zero_shot(), FakeTrial("r4"), FakeTrial("r8", rank=8)]).write(tmp_path)
    text, page, _ = render(run, tmp_path / "reports")
    assert "What the study says" not in text + page


def write_sides(folder: Path, *, has_selection: bool) -> Path:
    """Two variants: the second is better on the selection side, the first on the tracks that score."""
    values = {"one": (0.2, 0.4), "two": (0.3, 0.1), "zero-shot": (0.9, 0.8)}
    trials = [
        FakeTrial(name, base=test, selection_base=selection if has_selection else None)
        if name != "zero-shot"
        else FakeTrial(name, kind="zero-shot", seed=None, base=test)
        for name, (test, selection) in values.items()
    ]
    run = FakeRun(trials).write(folder)
    plan = read_json(run / "plan.json")
    plan["spec"]["baseline"] = "one"
    write_json(run / "plan.json", plan)
    return run


def test_the_best_configuration_is_chosen_by_the_selection_side_and_told_with_its_sealed_mean(
    tmp_path: Path,
) -> None:
    text, _, results = render(write_sides(tmp_path, has_selection=True), tmp_path / "reports")
    study = analyse_study(results)
    assert study is not None
    best = study.metrics[0].best
    assert best is not None
    assert (best.configuration, best.side, best.n_candidates) == ("two", "selection", 2)
    assert "Best configuration: **two**" in text
    assert "Chosen from 2 by the selection tracks. " in text
    shown = format_value(best.quality), format_value(best.quality + 0.2)  # 0.1 there, 0.3 where it is scored
    assert f"Its mean is {shown[0]} on the selection tracks and {shown[1]} on the sealed test tracks" in text


def test_without_a_selection_side_the_report_says_that_the_best_score_is_optimistic(tmp_path: Path) -> None:
    text, _, results = render(write_sides(tmp_path, has_selection=False), tmp_path / "reports")
    study = analyse_study(results)
    assert study is not None
    assert study.metrics[0].best is not None
    assert (study.metrics[0].best.configuration, study.metrics[0].best.side) == ("one", "test")
    assert (
        "Chosen from 2 by the tracks that score it: the score is optimistic, because the tracks that score it also "
        "chose it." in text
    )


def write_kinds(folder: Path) -> Path:
    """Kinds of adapters at nearly equal parameters and nearly equal quality, with a budget."""
    names = ("lora", "dora", "vera", "full")
    trials = [FakeTrial(name, base=0.5 + 0.001 * place) for place, name in enumerate(names)]
    run = FakeRun([zero_shot(), *trials]).write(folder)
    plan = read_json(run / "plan.json")
    for trial in plan["trials"][1:]:
        trial["lora"] |= {} if trial["name"] == "lora" else {"kind": trial["name"]}
        if trial["name"] != "full":
            trial["budget"] = 20_000
        train = read_json(run / "trials" / trial["id"] / "train.json")
        train["trainable_params"] = 19_000 + 100 * names.index(trial["name"])
        write_json(run / "trials" / trial["id"] / "train.json", train)
    write_json(run / "plan.json", plan)
    return run


def test_kinds_are_named_with_their_parameters_in_tables_and_on_the_front(tmp_path: Path) -> None:
    text, page, _ = render(write_kinds(tmp_path), tmp_path / "reports")
    for name, params in (("dora", "19,100 (-4.5 %)"), ("vera", "19,200 (-4.0 %)"), ("full", "19,300")):
        rows = [
            line
            for line in text.splitlines()
            if line.startswith("|") and f" {name} " in line and params in line
        ]
        assert rows, name
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    figure = next(each for each in figures if "against trainable parameters" in each)
    labels = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>(lora|dora|vera|full)</text>', figure)
    assert sorted(name for _, _, name in labels) == ["dora", "full", "lora", "vera"]
    heights = sorted(float(y) for _, y, _ in labels)
    assert all(below - above >= 12.9 for above, below in itertools.pairwise(heights))  # none covers another


def test_adapters_of_one_kind_have_no_column_for_it(tmp_path: Path) -> None:
    text, _, _ = render(write_grid(tmp_path), tmp_path / "reports")
    assert "| kind" not in text
