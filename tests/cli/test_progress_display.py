"""Displays: plain lines at a modest rate, bars on a terminal, failures when quiet."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from lora_bench.cli.progress_display import BarDisplay, LineDisplay, QuietDisplay, format_time, open_display
from lora_bench.runner.jobs.state import TrialView
from lora_bench.runner.jobs.watch import TrialsDisplay


class Clock:
    """A clock that stands until it is told to go."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_lines_come_at_a_modest_rate_with_the_time_left(clock: Clock) -> None:
    stream = io.StringIO()
    display = LineDisplay(stream, clock)
    display.start("train", 100)
    for _ in range(60):
        clock.now_s += 1.0
        display.advance(note="loss 3.21")
    assert stream.getvalue().splitlines() == [
        "[0:00] train (0/100)",
        "[0:15] train 15/100, about 1:25 left, loss 3.21",
        "[0:30] train 30/100, about 1:10 left, loss 3.21",
        "[0:45] train 45/100, about 0:55 left, loss 3.21",
        "[1:00] train 60/100, about 0:40 left, loss 3.21",
    ]


def test_lines_of_parallel_trials_come_when_something_changes(clock: Clock) -> None:
    stream = io.StringIO()
    display = LineDisplay(stream, clock)
    running = TrialView("a", "running", stage="train", done=3, total=9)
    for views in (
        [TrialView("a", "waiting"), TrialView("b", "waiting")],
        [running, TrialView("b", "waiting")],
        [TrialView("a", "running", stage="train", done=4, total=9), TrialView("b", "waiting")],
        [TrialView("a", "done"), TrialView("b", "failed", reason="x")],
    ):
        display.show_trials(views)
    assert stream.getvalue().splitlines() == ["[0:00] a: running, train", "[0:00] a: done"]


def test_quiet_passes_on_what_is_worth_keeping() -> None:
    stream = io.StringIO()
    display = QuietDisplay(stream)
    display.start("train", 3)
    display.advance()
    display.log("a trial failed")
    assert stream.getvalue() == "a trial failed\n"


def test_bars_show_stages_and_trials_and_leave_lines_behind() -> None:
    stream = io.StringIO()
    display = BarDisplay(Console(file=stream, force_terminal=True, width=120))
    display.start("prepare [data]", 2)
    display.advance(2, note="x")
    display.start("trials", 2)
    display.show_trials([TrialView("a", "running", stage="train", done=1, total=4, note="loss 1")])
    display.show_trials([TrialView("a", "running", stage="generate", done=2, total=8)])
    display.show_trials([TrialView("a", "done")])
    display.log("[b] failed")
    display.close()
    shown = stream.getvalue()
    assert "prepare [data]  2/2" in shown
    assert "[b] failed" in shown
    assert "trials" in shown


def test_displays_of_runs_know_trials_and_the_quiet_one_keeps_silent() -> None:
    stream = io.StringIO()
    quiet = QuietDisplay(stream)
    assert isinstance(LineDisplay(io.StringIO()), TrialsDisplay)
    assert isinstance(quiet, TrialsDisplay)  # or every trial that begins and ends would be told as a line
    quiet.show_trials([TrialView("a", "running", stage="train", done=1, total=4)])
    assert stream.getvalue() == ""


def test_without_a_terminal_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with open_display() as display:
        display.start("load")
    with open_display(quiet=True) as display:
        display.start("load")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "[0:00] load\n"
    assert not sys.stderr.isatty()


@pytest.mark.parametrize(("time_s", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3600, "1:00:00")])
def test_times_are_read_at_a_glance(time_s: float, text: str) -> None:
    assert format_time(time_s) == text
