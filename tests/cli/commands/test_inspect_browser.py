"""The page of `inspect` in a real browser: dots play their tracks by mouse and keyboard, and no rule is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.accessibility import list_violations
from support.browser import Page

from lora_bench.cli.main import main

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]
PLAYING = """[...document.querySelectorAll("audio")].filter((one) => !one.paused).map((one) => one.ariaLabel).join()"""
NAMES = """[...document.querySelectorAll(".lb-plot a")].map((one) => one.querySelector("title").textContent).join()"""


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
