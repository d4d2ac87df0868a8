"""A report in light and dark colours, on a desk and on a phone, against axe-core's rules."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.accessibility import list_violations
from support.browser import Page
from support.fake_run import PROMPT_HTML, PROMPT_KOREAN, FakeRun, FakeTrial, contrast, zero_shot
from support.listening_run import make_listening_run
from support.raters import answer_study, prefer, save_answers

from lora_bench.cli.main import main
from lora_bench.listening.preferences import import_answers
from lora_bench.report.render import render_report

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with warnings, verdicts of every tone, plots, clips, people's answers and folds."""
    place = tmp_path_factory.mktemp("page")
    run = make_listening_run(place)
    files = [
        save_answers(place / f"{name}.json", answer_study(run.study, name, prefer("r16-all", "zero-shot", "r4-attention")))
        for name in "abc"
    ]  # fmt: skip
    import_answers(run.folder, files, run.view())
    render_report(run.folder, place / "reports")
    return place / "reports" / "invented" / "report.html"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_breaks_no_rule_with_its_folds_closed_and_open(
    page: Path, browser: Page, scheme: str, width: int
) -> None:
    browser.choose_colours(scheme)
    browser.open(page, width)
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(251, 251, 250)" if scheme == "light" else "rgb(15, 18, 22)"
    )
    assert list_violations(browser) == []
    browser.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    browser.evaluate("document.querySelector('.play').click()")  # the transport appears
    assert browser.evaluate("document.querySelectorAll('details[open]').length > 8")
    assert list_violations(browser) == []


def test_an_incomplete_report_and_the_leaderboard_break_no_rule(tmp_path: Path, browser: Page) -> None:
    trials = [
        zero_shot(),
        FakeTrial("r4"),
        FakeTrial("r8", base=1.2),
        FakeTrial("r16", state="failed", reason="out of memory", has_scores=False),
    ]
    told = [
        contrast(trials[1], "mfcc20", None, "better"),
        contrast(trials[2], "mfcc20", None, "worse", delta=0.3),
    ]
    run = FakeRun(trials=trials, contrasts=told, prompts=[PROMPT_HTML, PROMPT_KOREAN], trained=False)
    folder = run.write(tmp_path / "runs")
    dataclasses.replace(run, name="second").write(tmp_path / "runs")
    render_report(folder, tmp_path / "reports")
    assert main(["index", str(tmp_path / "runs"), "--reports-dir", str(tmp_path / "reports")]) == 0
    for path in ("invented/report.html", "index.html"):
        for scheme in ("light", "dark"):
            browser.choose_colours(scheme)
            browser.open(tmp_path / "reports" / path, 1280)
            assert list_violations(browser) == [], (path, scheme)


def test_axe_finds_what_is_wrong_with_a_page(tmp_path: Path, browser: Page) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        '<!doctype html><html lang="en"><title>x</title><main><h1>x</h1><img src="data:,"><p style="color:#ccc;background:#fff">pale</p></main>'
    )
    browser.open(path, 1280)
    broken = {line.partition(":")[0] for line in list_violations(browser)}
    assert {"image-alt", "color-contrast"} <= broken
