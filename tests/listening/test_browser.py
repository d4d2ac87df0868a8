"""A study that is answered with the keyboard in a real browser, saved, and imported."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from support.browser import BROWSER, Page
from support.listening_run import ListeningRun
from support.raters import prefer

from lora_bench.listening.create import Wishes, write_study
from lora_bench.listening.preferences import import_answers

LEAN = prefer("r16-all", "r4-attention", "zero-shot")
SHOWN = "JSON.stringify({...state.pairs[state.place], title: find('pair-title').textContent, hint: find('hint').textContent})"


def press(browser: Page, key: str) -> None:
    text = {"Enter": "\r"}.get(key, key)
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "")


def wait(browser: Page, condition: str) -> None:
    while not browser.evaluate(condition):
        time.sleep(0.05)


def begin(browser: Page, rater: str) -> None:
    browser.evaluate(
        f"find('rater').value = {json.dumps(rater)}; find('consent').checked = true; find('begin').click()"
    )


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.timeout(400)
def test_a_study_is_answered_by_keyboard_resumed_saved_and_imported(
    run: ListeningRun, tmp_path: Path
) -> None:
    page = write_study(run.folder, Wishes(n_pairs=6))
    pairs = {pair.id: pair for pair in page.study.pairs}
    browser = Page(tmp_path / "profile")
    try:
        browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
        browser.open(page.path, 390)
        begin(browser, "<script>")
        assert "Enter a name" in browser.evaluate("find('start-error').textContent")
        begin(browser, "ann")
        for number in range(len(pairs)):
            if number == 3:  # closed and opened again: the answers are still there
                browser.open(page.path, 1200)
                begin(browser, "ann")
            shown = json.loads(browser.evaluate(SHOWN))
            assert shown["title"] == f"Pair {number + 1} of {len(pairs)}"
            press(browser, "Enter")
            assert json.loads(browser.evaluate(SHOWN))["hint"] == "Play both clips first."
            for key, side in (("a", "A"), ("x", "B")):
                press(browser, key)
                wait(browser, f"heard.has('{side}')")
            assert browser.evaluate("players.A.paused && !players.B.paused")
            press(browser, " ")
            assert browser.evaluate("players.B.paused")
            pair = pairs[shown["pair"]]
            for question in page.study.questions:
                lean = LEAN(pair, question)
                press(browser, str(3 + lean if shown["swapped"] else 3 - lean))
            press(browser, "Enter")
        assert not browser.evaluate("find('end').hidden")
        browser.evaluate("find('save').click()")
        saved = tmp_path / "downloads" / f"answers-{page.study.id}-ann.json"
        while not saved.is_file():
            time.sleep(0.05)
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert [
            line for line in browser.heard if not line.startswith(("data:", "blob:", page.path.as_uri()))
        ] == []
    finally:
        browser.close()
    results = import_answers(run.folder, [saved], run.view())
    assert (results.n_raters, results.n_answers, results.excluded) == (1, 6, ())
    strengths = [item.strength for item in results.preferences if item.question == "preference"]
    assert len(strengths) == 2
    assert all(strength is not None and strength > 0 for strength in strengths)
