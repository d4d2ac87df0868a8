from __future__ import annotations

import json

from support.fake_run import FakeRun, FakeTrial, zero_shot

from lora_bench.report.render import render_report


def render(tmp_path, preparations):
    place = FakeRun(trials=[zero_shot(), FakeTrial("r4")]).write(tmp_path / "runs")
    described = json.loads((place / "dataset.json").read_text())
    for track, made in zip(described["manifest"]["tracks"], preparations, strict=False):
        track["preparation"] = made
    (place / "dataset.json").write_text(json.dumps(described))
    render_report(place, tmp_path / "reports")
    return (tmp_path / "reports" / "invented" / "details.md").read_text(encoding="utf-8")


def test_the_dataset_section_has_the_ranges_of_what_was_changed(tmp_path):
    details = render(
        tmp_path,
        [
            {"clipped_samples": 0, "gain_db": 3.0, "loudness_lufs": -16.0, "lead_s": 0.5, "tail_s": 0.25},
            {"clipped_samples": 12, "gain_db": -1.0, "loudness_lufs": -16.0, "lead_s": 0.0, "tail_s": 0.0},
            {"clipped_samples": 0, "gain_db": 9.0, "loudness_lufs": -19.0, "lead_s": 0.0, "tail_s": 0.0, "is_limited": True},
        ],
    )  # fmt: skip
    rows = [" ".join(line.split()) for line in details.splitlines()]
    assert "| gain (dB) | 3 | -1.0 | +3.0 | +9.0 |" in rows
    assert "| silence cut off at both ends (s) | 1 | 0.00 | 0.00 | 0.75 |" in rows
    assert "| clipped samples (not repaired) | 1 | 0 | 0 | 12 |" in rows
    assert "1 track stayed below the wanted loudness" in details
    assert not any("offset" in row for row in rows)


def test_a_run_that_changed_nothing_says_nothing(tmp_path):
    assert "Changes to the sound" not in render(tmp_path, [])
