"""The page in a real browser: players know their length, nothing is complained of, nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.browser import Page
from support.fake_run import PROMPT_HTML, PROMPT_KOREAN, FakeRun

from lora_bench.report.render import render_report

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

# Waits for every player, sorts the first table by its second column, and tells what it saw.
PROBE = """
(async () => {
  const known = (player) => new Promise((done) => {
    const finish = () => done(player.error ? String(player.error.message) : player.duration);
    if (player.readyState > 0 || player.error) return finish();
    player.addEventListener("loadedmetadata", finish);
    player.addEventListener("error", finish);
  });
  const durations = await Promise.all([...document.querySelectorAll("audio")].map(known));
  const head = document.querySelector("table.sortable").tHead.rows[0].cells[1];
  head.querySelector("button").click();
  const fits = document.documentElement.scrollWidth <= window.innerWidth;
  return JSON.stringify({durations, fits, sorted: head.ariaSort, width: window.innerWidth});
})()
"""


def test_players_play_tables_sort_and_nothing_is_fetched_on_a_desk_and_on_a_phone(
    tmp_path: Path, browser: Page
) -> None:
    run = FakeRun(prompts=[PROMPT_HTML, PROMPT_KOREAN], n_wavs=2, n_references=1).write(tmp_path / "runs")
    render_report(run, tmp_path / "reports")
    page = tmp_path / "reports" / "invented" / "report.html"
    for width in (1200, 390):
        browser.open(page, width)
        seen = json.loads(browser.evaluate(PROBE))
        assert seen["width"] == width
        assert len(seen["durations"]) == page.read_text(encoding="utf-8").count("<audio ")
        assert seen["durations"] == pytest.approx([1.0] * len(seen["durations"]), abs=0.15)
        assert seen["fits"], width
        assert seen["sorted"] == "ascending"
    said = [line for line in browser.heard if not line.startswith(("data:", page.as_uri()))]
    assert said == []
