"""A study that is answered with the keyboard in a real browser, saved, and imported."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.accessibility import list_violations
from support.browser import Page
from support.listening_run import ListeningRun
from support.raters import prefer

from lora_bench.audio.loudness import measure_loudness
from lora_bench.listening.create import Wishes, write_study
from lora_bench.listening.preferences import import_answers
from lora_bench.slugs import prompt_slug

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

LEAN = prefer("r16-all", "r4-attention", "zero-shot")
SHOWN = "JSON.stringify({...state.pairs[state.place], title: find('pair-title').textContent, hint: find('hint').textContent})"


def begin(browser: Page, rater: str) -> None:
    browser.evaluate(
        f"find('rater').value = {json.dumps(rater)}; find('consent').checked = true; find('begin').click()"
    )


def test_a_study_is_answered_by_keyboard_resumed_saved_and_imported(
    run: ListeningRun, tmp_path: Path, browser: Page
) -> None:
    page = write_study(run.folder, Wishes(n_pairs=6))
    pairs = {pair.id: pair for pair in page.study.pairs}
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
        browser.press("Enter")
        assert json.loads(browser.evaluate(SHOWN))["hint"] == "Play both clips first."
        for key, side in (("a", "A"), ("x", "B")):
            browser.press(key)
            browser.wait(f"heard.has('{side}')")
        assert browser.evaluate("players.A.paused && !players.B.paused")
        browser.press(" ")
        assert browser.evaluate("players.B.paused")
        pair = pairs[shown["pair"]]
        for question in page.study.questions:
            lean = LEAN(pair, question)
            browser.press(str(3 + lean if shown["swapped"] else 3 - lean))
        browser.press("Enter")
    assert not browser.evaluate("find('end').hidden")
    browser.evaluate("find('save').click()")
    saved = tmp_path / "downloads" / f"answers-{page.study.id}-ann.json"
    while not saved.is_file():
        time.sleep(0.05)
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert [
        line for line in browser.heard if not line.startswith(("data:", "blob:", page.path.as_uri()))
    ] == []
    results = import_answers(run.folder, [saved], run.view())
    assert (results.n_raters, results.n_answers, results.excluded) == (1, 6, ())
    strengths = [item.strength for item in results.preferences if item.question == "preference"]
    assert len(strengths) == 2
    assert all(strength is not None and strength > 0 for strength in strengths)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_screen_of_the_page_breaks_no_rule_of_accessibility(
    run: ListeningRun, browser: Page, scheme: str, width: int
) -> None:
    page = write_study(run.folder, Wishes(n_pairs=2))
    browser.choose_colours(scheme)
    browser.open(page.path, width)
    assert list_violations(browser) == []
    begin(browser, "")
    assert browser.evaluate("find('start-error').textContent") != ""
    assert list_violations(browser) == []
    begin(browser, "ann")
    browser.evaluate("find('examples').open = true")
    assert not browser.evaluate("find('test').hidden")
    assert list_violations(browser) == []
    browser.evaluate("state.place = state.pairs.length; show()")
    assert not browser.evaluate("find('end').hidden")
    assert list_violations(browser) == []


# Samples of a sound of the page as the browser decodes them, in float32.
DECODE = """(async () => {
  const bytes = Uint8Array.from(atob(content.sounds[%d].split(",")[1]), (mark) => mark.charCodeAt(0));
  const sound = await new OfflineAudioContext(1, 1, %d).decodeAudioData(bytes.buffer);
  return JSON.stringify([...sound.getChannelData(0)]);
})()"""


def test_both_sides_sound_equally_loud_and_are_the_clips_but_for_a_factor(
    run: ListeningRun, browser: Page
) -> None:
    page = write_study(run.folder, Wishes(n_pairs=4))
    browser.open(page.path, 1280)
    places = {
        pair["id"]: pair["sounds"] for pair in json.loads(browser.evaluate("JSON.stringify(content.pairs)"))
    }
    pairs = [pair for pair in page.study.pairs if pair.kind == "comparison"]
    assert len(pairs) == 4
    for pair in pairs:
        levels_lufs = []
        for side, place in zip(pair.sides, places[pair.id], strict=True):
            path = (
                run.folder
                / "trials"
                / side.trial
                / "clips"
                / prompt_slug(pair.prompt)
                / f"{pair.clip_index:03d}.wav"
            )
            clip, rate_hz = soundfile.read(path)
            heard = np.array(json.loads(browser.evaluate(DECODE % (place, rate_hz))))
            half = clip[rate_hz // 4 : 3 * rate_hz // 4]  # away from the ends, where MP3 fades
            lag = int(np.argmax(np.correlate(heard, half, "valid")))
            same = heard[lag : lag + len(half)]
            factor = np.dot(same, half) / np.dot(half, half)
            assert np.std(same - factor * half) < 0.05 * np.std(same)  # what MP3 costs
            assert np.max(np.abs(heard)) < 1.0
            levels_lufs.append(measure_loudness(factor * clip[:, None], rate_hz))
        assert levels_lufs == pytest.approx([-23.0, -23.0], abs=0.3)
