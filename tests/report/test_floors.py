"""Reference levels of runs with several sources, as reports name them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from support.fake_run import FakeRun

from lora_bench.report.formatting import format_value
from lora_bench.report.plots.scores import draw_scores
from lora_bench.report.view import RunView
from lora_bench.results.gather import gather_results

SOURCES = ("chiptune, a47b0c22", "chiptune, ac702c04")


def view_with(tmp_path: Path, *floors: tuple[str, str, float]) -> tuple[RunView, str]:
    run = FakeRun().write(tmp_path)
    results = gather_results(run)
    (metric,) = {floor.metric for floor in results.floors}
    made = tuple(
        results.floors[0].model_copy(update={"floor": kind, "source": source, "value": value})
        for kind, source, value in floors
    )
    return RunView(results.model_copy(update={"floors": made}), run), metric


def name_all(view: RunView, metric: str) -> list[tuple[str, str | None, float]]:
    return [(floor.floor, floor.source, floor.value) for floor in view.floors(metric)]


def test_equal_floors_of_all_sources_are_one_without_a_source(tmp_path: Path) -> None:
    first, second = SOURCES
    view, metric = view_with(
        tmp_path,
        ("codec", first, 2.0), ("real-vs-real", first, 1.0), ("codec", second, 3.0), ("real-vs-real", second, 1.0),
    )  # fmt: skip
    assert name_all(view, metric) == [
        ("codec", first, 2.0), ("real-vs-real", None, 1.0), ("codec", second, 3.0),
    ]  # fmt: skip


def test_equal_floors_of_some_sources_name_them(tmp_path: Path) -> None:
    view, metric = view_with(tmp_path, ("codec", "a", 2.0), ("codec", "b", 3.0), ("codec", "c", 2.0))
    assert name_all(view, metric) == [("codec", "a and c", 2.0), ("codec", "b", 3.0)]


def test_many_floors_stand_in_lines_within_the_plot(tmp_path: Path) -> None:
    floors = [
        ("real-vs-real", f"a dataset with a long name, {number:08}", float(number)) for number in range(4)
    ]
    view, metric = view_with(tmp_path, *floors)
    figure = draw_scores(view, metric, "scores")
    assert figure is not None
    root = ET.fromstring(figure.svg)
    texts = [
        (float(item.attrib["y"]), item.text or "") for item in root.iter("{http://www.w3.org/2000/svg}text")
    ]
    lines = [(y, text) for y, text in texts if "dataset with" in text]
    assert len(lines) >= 2
    assert all(len(text) <= 105 for _, text in lines)
    assert len({y for y, _ in lines}) == len(lines)
    whole = " ".join(text for _, text in sorted(lines))
    assert all(f"{name} ({source}) {format_value(value)}" in whole for name, source, value in floors)
