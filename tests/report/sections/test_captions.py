from __future__ import annotations

import json

from support.fake_run import FakeRun, FakeTrial, zero_shot

from lora_bench.report.render import render_report
from lora_bench.report.sections.captions import name_origin


def render(tmp_path, origins):
    place = FakeRun(trials=[zero_shot(), FakeTrial("r4")]).write(tmp_path / "runs")
    described = json.loads((place / "dataset.json").read_text())
    for index, track in enumerate(described["manifest"]["tracks"]):
        track["caption"] = f"<b>tune</b> {index % 2}"
        track["caption_origins"] = origins[index % len(origins)] if origins else {}
    (place / "dataset.json").write_text(json.dumps(described))
    render_report(place, tmp_path / "reports")
    folder = tmp_path / "reports" / "invented"
    return (folder / "details.md").read_text(encoding="utf-8"), (folder / "report.html").read_text(
        encoding="utf-8"
    )


def test_the_details_count_where_each_field_comes_from(tmp_path):
    details, page = render(
        tmp_path, [{"genre": "tag TCON", "bpm": "captions.csv:2"}, {"bpm": "captions.csv:3"}]
    )
    assert "## Captions" in details
    assert "| genre | tag TCON | 5 |" in details
    assert "| bpm | captions.csv | 10 |" in details
    assert "2 different captions, such as:" in details
    assert "<b>tune</b>" not in page


def test_runs_that_recorded_no_origins_have_no_section(tmp_path):
    assert "## Captions" not in render(tmp_path, [])[0]


def test_origins_are_named_without_what_is_each_tracks_own():
    assert name_origin("deep/captions.csv:12") == "deep/captions.csv"
    assert name_origin("song 1.TXT") == ".txt file next to the recording"
    assert name_origin("dataset.captions.text") == "dataset.captions.text"
