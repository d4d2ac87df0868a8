"""The page of `inspect` in a real browser: dots play their tracks by mouse and keyboard, and no rule is broken."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.accessibility import list_violations
from support.browser import Page

from lora_bench.cli.inspection_map import write_map
from lora_bench.cli.main import main
from lora_bench.report.writers.html import write_page
from lora_bench.stages.dataset.track_map import MapPoint, TrackMap

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]
PLAYING = """[...document.querySelectorAll("audio")].filter((one) => !one.paused).map((one) => one.ariaLabel).join()"""
NAMES = """[...document.querySelectorAll(".lb-plot a")].map((one) => one.querySelector("title").textContent).join()"""

BOXES = """[...document.querySelectorAll(".lb-plot .lb-key")].map((one) => one.getBBox())
    .map((box) => [box.x, box.y, box.x + box.width, box.y + box.height])"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of four songs in two folders."""
    place = tmp_path_factory.mktemp("inspected")
    for song in range(4):
        noise = np.random.default_rng(song).normal(0, 0.1, 16_000 * 3) * np.linspace(song, 1, 16_000 * 3)
        (place / "songs" / f"f{song % 2}").mkdir(parents=True, exist_ok=True)
        soundfile.write(place / "songs" / f"f{song % 2}" / f"{song}.wav", noise / 4, 16_000)
    words = [
        "inspect",
        place / "songs",
        "--html",
        place / "page.html",
        "--runs-dir",
        place / "runs",
        "--quiet",
    ]
    assert main(list(map(str, words))) == 0
    return place / "page.html"


def test_dots_play_and_stop_their_tracks_by_mouse_and_by_keyboard(page: Path, browser: Page) -> None:
    browser.open(page, 1200)
    names = browser.evaluate(NAMES).split(",")
    assert sorted(names) == [f"f{song % 2}/{song}.wav (f{song % 2})" for song in (0, 2, 1, 3)]
    click = "document.querySelectorAll('.lb-plot a circle')[{}].dispatchEvent(new MouseEvent('click', {{bubbles: true, cancelable: true}}))"
    for place in (1, 2):
        browser.evaluate(click.format(place))
        wanted = f"{names[place].partition(' ')[0]}: The middle 6 s of each track"
        browser.wait(f"{PLAYING} === '{wanted}'")
        browser.wait("document.querySelectorAll('.lb-plot a.on').length === 1")
    assert browser.evaluate("location.hash") == ""
    browser.evaluate(click.format(2))
    browser.wait(f"{PLAYING} === ''")
    browser.evaluate("document.querySelector('.lb-plot a').focus()")
    browser.press("Enter")
    browser.wait(f"{PLAYING} !== ''")
    browser.press("ArrowRight")
    assert browser.evaluate("document.activeElement.localName") == "a"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_breaks_no_rule(page: Path, browser: Page, scheme: str) -> None:
    browser.choose_colours(scheme)
    browser.open(page, 1200)
    assert list_violations(browser) == []


def test_names_of_a_legend_lie_inside_the_map_and_apart(tmp_path: Path, browser: Page) -> None:
    names = [
        "LIVE RECORDINGS OF THE OLD TOWN",
        "日本の音楽の録音を集めたフォルダー",
        *(f"a long name of folder {n}" for n in "12345"),
    ]
    points = tuple(MapPoint(f"{name}/a.wav", place, place, name) for place, name in enumerate(names))
    blocks = write_map(TrackMap(points, (0.6, 0.4), (), "folder"), {})
    (tmp_path / "map.html").write_text(write_page("Map", list(blocks)), encoding="utf-8")
    browser.open(tmp_path / "map.html", 1200)
    boxes = browser.evaluate(BOXES)
    assert len(boxes) == len(names)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 760
        assert (
            0 <= top < bottom <= browser.evaluate("document.querySelector('.lb-plot').viewBox.baseVal.height")
        )
    for first, second in itertools.combinations(boxes, 2):
        assert first[2] < second[0] or second[2] < first[0] or first[3] <= second[1] or second[3] <= first[1]
