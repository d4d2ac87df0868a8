"""The page by keyboard in a browser: the transport's clips, the legend, folds and hints."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.browser import Page
from support.fake_run import PLAIN_PROMPTS, RATE_HZ, FakeRun, FakeTrial, contrast, zero_shot

from lora_bench.audio.loudness import measure_loudness
from lora_bench.report.render import render_report
from lora_bench.slugs import prompt_slug

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

SMALL, LARGE = FakeTrial("r4-attention"), FakeTrial("r16-all", base=0.3)
# The transport's player is no element of the page: keep it where a test can see it.
KEEP_PLAYERS = """
window.made = [];
window.Audio = class extends Audio { constructor() { super(); window.made.push(this); } };
"""
SEEN = """(() => {
  const button = document.querySelector(".play[aria-pressed=true]");
  const player = made[0];
  return JSON.stringify({
    row: [...document.querySelectorAll(".matrix tbody tr")].indexOf(button.closest("tr")),
    column: [...button.closest("tr").querySelectorAll(".play")].indexOf(button),
    label: button.ariaLabel, gain: Number(button.dataset.gain), is_own: player.src === button.dataset.sound,
    volume: player.volume, at_s: player.currentTime, paused: player.paused, is_focused: document.activeElement === button,
    n_pressed: document.querySelectorAll(".play[aria-pressed=true]").length,
  });
})()"""
# Samples of the player's sound as the browser decodes them, in float32.
DECODE = """(async () => {
  const text = atob(made[0].src.split(",")[1]);
  const bytes = Uint8Array.from(text, (mark) => mark.charCodeAt(0));
  const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes.buffer);
  const samples = new Uint8Array(sound.getChannelData(0).buffer);
  let packed = "";
  for (let at = 0; at < samples.length; at += 8192) packed += String.fromCharCode(...samples.subarray(at, at + 8192));
  return btoa(packed);
})()""".replace("RATE", str(RATE_HZ))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose fine-tuned clips are louder, and its page."""
    place = tmp_path_factory.mktemp("interaction")
    told = [contrast(trial, "mfcc20", None, "better") for trial in (SMALL, LARGE)]
    run = FakeRun(trials=[zero_shot(), SMALL, LARGE], contrasts=told, n_wavs=2).write(place / "runs")
    for trial, factor in ((SMALL, 2.0), (LARGE, 0.7)):
        for path in (run / "trials" / trial.id / "clips").rglob("*.wav"):
            samples, rate_hz = soundfile.read(path)
            soundfile.write(path, factor * samples, rate_hz, subtype="PCM_16")
    render_report(run, place / "reports")
    return run, place / "reports" / "invented" / "report.html"


@pytest.fixture
def page(made: tuple[Path, Path], browser: Page) -> Page:
    browser.call("Page.addScriptToEvaluateOnNewDocument", source=KEEP_PLAYERS)
    browser.open(made[1], 1280)
    return browser


def look(page: Page) -> dict:
    return json.loads(page.evaluate(SEEN))


def decode(page: Page) -> np.ndarray:
    return np.frombuffer(base64.b64decode(page.evaluate(DECODE)), np.float32)


def find_tone(samples: np.ndarray) -> float:
    """Frequency of the strongest partial, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 17))
    return float(np.argmax(spectrum)) * RATE_HZ / (1 << 17)


def test_arrows_change_the_sounding_voice_and_keep_clip_and_place(page: Page) -> None:
    page.evaluate("document.querySelector('.play').focus()")
    page.press("Enter")
    page.wait("made[0].currentTime > 0.3")
    seen = look(page)
    assert (seen["row"], seen["column"], seen["is_own"], seen["paused"]) == (0, 0, True, False)
    expected = (0, 220.0), (1, 440.0), (2, 660.0), (2, 660.0), (1, 440.0)  # FakeRun: 220 Hz more per trial
    for key, (column, tone_hz) in zip(
        ("", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"), expected, strict=True
    ):
        before_s = look(page)["at_s"]
        if key:
            page.press(key)
        page.wait("made[0].readyState >= 2")
        seen = look(page)
        assert (seen["row"], seen["column"], seen["n_pressed"]) == (0, column, 1)
        assert seen["is_own"]
        assert seen["is_focused"]
        assert seen["at_s"] >= before_s - 0.05
        assert find_tone(decode(page)) == pytest.approx(tone_hz, abs=2.0)


def test_up_and_down_change_the_clip_index_of_the_same_voice(page: Page) -> None:
    page.evaluate("document.querySelectorAll('.play')[1].focus()")
    page.press("Enter")
    page.wait("made[0].currentTime > 0")
    for key, row, tone_hz in (
        ("ArrowDown", 1, 495.0),
        ("ArrowDown", 2, 440.0),
        ("ArrowUp", 1, 495.0),
    ):  # clip 1 is 55 Hz higher
        page.press(key)
        page.wait("made[0].readyState >= 2")
        seen = look(page)
        assert (seen["row"], seen["column"]) == (row, 1)
        assert seen["label"].endswith(f"{PLAIN_PROMPTS[row // 2]}, clip {row % 2}")
        assert find_tone(decode(page)) == pytest.approx(tone_hz, abs=2.0)


def test_space_and_the_button_pause_and_resume(page: Page) -> None:
    page.evaluate("document.querySelector('.play').focus()")
    page.press(" ")
    page.wait("made[0].currentTime > 0.1 && !made[0].paused")
    page.press(" ")
    page.wait("made[0].paused")
    page.evaluate("document.querySelector('.toggle').focus()")
    page.press("Enter")
    page.wait("!made[0].paused")


def test_voices_are_equally_loud_and_their_samples_are_those_of_the_clips(
    made: tuple[Path, Path], page: Page
) -> None:
    run, _ = made
    heard_lufs = []
    for column, trial in enumerate((zero_shot(), SMALL, LARGE)):
        page.evaluate(f"document.querySelectorAll('.play')[{column}].click()")
        page.wait("made[0].readyState >= 2")
        seen, samples = look(page), decode(page)
        assert seen["volume"] == pytest.approx(seen["gain"])
        assert 0.0 < seen["gain"] <= 1.0
        clip, rate_hz = soundfile.read(
            run / "trials" / trial.id / "clips" / prompt_slug(PLAIN_PROMPTS[0]) / "000.wav"
        )
        # MP3 begins a little late; apart from that, the page holds the clip's own samples
        lag = int(np.argmax(np.correlate(samples[: 2 * rate_hz], clip[: rate_hz // 2], "valid")))
        own = samples[lag : lag + rate_hz // 2]
        assert np.max(np.abs(own - clip[: len(own)])) < 0.03
        heard_lufs.append(measure_loudness(seen["volume"] * clip[:, None], rate_hz))
    assert heard_lufs == pytest.approx([heard_lufs[0]] * 3, abs=0.1)


def test_a_name_in_a_legend_hides_its_series_alone(page: Page) -> None:
    opacities = """JSON.stringify(Object.fromEntries([...document.querySelectorAll('[aria-label^="Differences"] circle')].map(
      (dot) => [dot.dataset.series, getComputedStyle(dot).opacity])))"""
    key = """document.querySelector('[aria-label^="Differences"] .lb-key[data-series="r4-attention"]')"""
    assert json.loads(page.evaluate(opacities)) == {"r4-attention": "1", "r16-all": "1"}
    page.evaluate(f"{key}.focus()")
    for press, opacity, pressed in (("Enter", "0.12", "false"), (" ", "1", "true")):
        page.press(press)
        assert json.loads(page.evaluate(opacities)) == {"r4-attention": opacity, "r16-all": "1"}
        assert page.evaluate(f"{key}.ariaPressed") == pressed


def test_folds_open_by_keyboard_and_by_a_link_to_them(page: Page) -> None:
    state = "document.querySelector('details').open"
    page.evaluate("document.querySelector('summary').focus()")
    for press, is_open in (("Enter", True), (" ", False)):
        page.press(press)
        assert page.evaluate(state) is is_open
    last = page.evaluate("[...document.querySelectorAll('details')].at(-1).id")
    page.evaluate(f"location.hash = '#{last}'")
    page.wait(f"document.getElementById('{last}').open")


def test_hints_are_reached_by_keyboard_in_tables_and_plots(page: Page) -> None:
    shown = "document.querySelector('.tip').hidden ? null : document.querySelector('.tip').textContent"
    group = "document.querySelectorAll('{0}')"
    stops = "[...{0}].map((group) => group.querySelectorAll('[tabindex=\"0\"]:is(td, th, circle)').length)"
    for kind in ("table", ".lb-plot"):
        counts = page.evaluate(stops.format(group.format(kind)))
        assert set(counts) <= {0, 1}, "one stop for each table and plot"
        assert 1 in counts
    table = (
        "[...document.querySelectorAll('table')].find((one) => one.querySelectorAll('td[title]').length > 2)"
    )
    page.evaluate(f"{table}.querySelector('[tabindex=\"0\"]').focus()")
    first = page.evaluate(shown)
    assert first == page.evaluate("document.activeElement.title")
    assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"
    page.press("ArrowRight")
    assert page.evaluate("document.activeElement.cellIndex") == 2
    assert page.evaluate(shown) == page.evaluate("document.activeElement.title") != first
    inside = """(() => { const box = document.querySelector('.tip').getBoundingClientRect();
      return box.left >= 0 && box.right <= innerWidth && box.top >= 0 && box.bottom <= innerHeight; })()"""
    assert page.evaluate(inside)
    page.press("Escape")
    assert page.evaluate(shown) is None
    page.evaluate('document.querySelector(\'[aria-label^="Differences"] circle[tabindex="0"]\').focus()')
    assert page.evaluate(shown).startswith("r4-attention: ")
    page.press("ArrowDown")
    assert page.evaluate(shown).startswith("r16-all: ")
    page.evaluate("document.activeElement.blur()")
    assert page.evaluate(shown) is None
