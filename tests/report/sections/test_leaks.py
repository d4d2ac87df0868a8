from __future__ import annotations

import json

from support.fake_run import FakeRun, FakeTrial, zero_shot

from lora_bench.report.render import render_report


def render(tmp_path, pairs):
    place = FakeRun(trials=[zero_shot(), FakeTrial("r4")]).write(tmp_path / "runs")
    described = json.loads((place / "dataset.json").read_text())
    described["manifest"]["near_duplicates"] = pairs
    (place / "dataset.json").write_text(json.dumps(described))
    render_report(place, tmp_path / "reports")
    return (tmp_path / "reports" / "invented" / "details.md").read_text(encoding="utf-8")


def pair(first, second):
    return {"first": f"song {first}.wav", "second": f"song {second}.wav", "correlation": 0.876}


def test_pairs_on_different_sides_are_listed_first_with_a_warning(tmp_path):
    details = render(tmp_path, [pair(0, 1), pair(2, 9)])
    assert "2 pairs of recordings of the same music, 1 of them on different sides" in details
    leak, kept = (
        "| song 2.wav | training | song 9.wav | held out | 0.88 |",
        "| song 0.wav | training | song 1.wav | training | 0.88 |",
    )
    assert 0 < details.index(leak) < details.index(kept)


def test_a_search_without_a_find_says_so_and_a_run_without_a_search_has_no_section(tmp_path):
    assert "0 pairs of recordings of the same music, none on different sides." in render(tmp_path / "a", [])
    assert "Near-duplicates" not in render(tmp_path / "b", None)
