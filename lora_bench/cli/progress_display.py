"""Displays of progress on stderr: bars on a terminal, a line now and then elsewhere, or failures only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from lora_bench.progress import Progress, SilentProgress
from lora_bench.runner.jobs.state import TrialView

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY_S = 15.0
MAX_ROWS = 24


@contextmanager
def open_display(*, quiet: bool = False) -> Iterator[Progress]:
    """Open the display that suits stderr, and close it when the block ends."""
    if quiet:
        yield QuietDisplay(sys.stderr)
    elif not sys.stderr.isatty():
        yield LineDisplay(sys.stderr)
    else:
        from rich.console import Console

        display = BarDisplay(Console(stderr=True))
        try:
            yield display
        finally:
            display.close()


def format_time(time_s: float) -> str:
    """`0:42`, `12:05`, `3:20:00`."""
    minutes, seconds = divmod(int(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def print_line(text: str, stream: TextIO) -> None:
    """Print one line; a closed terminal or pipe does not end the work."""
    with suppress(OSError):
        print(text, file=stream, flush=True)


class QuietDisplay(SilentProgress):
    """A display of kept lines only."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def log(self, message: str) -> None:
        """One line."""
        print_line(message, self.stream)

    def show_trials(self, trials: Sequence[TrialView]) -> None:
        """Ignore; a failure is logged."""


class LineDisplay:
    """Plain lines for logs: each stage once, then at most one line in `LINE_EVERY_S`."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream = stream
        self.clock = clock
        self.began_s = self.stage_began_s = self.written_s = clock()
        self.stage = ""
        self.total: int | None = None
        self.done = 0
        self._shown: dict[str, tuple[str, str]] = {}

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins."""
        self.stage, self.total, self.done = stage, total, 0
        self.stage_began_s = self.clock()
        self._write(stage + (f" (0/{total})" if total else ""))

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Steps are done."""
        self.done += n
        now_s = self.clock()
        if now_s - self.written_s < LINE_EVERY_S:
            return
        parts = [f"{self.stage} {self.done}" + (f"/{self.total}" if self.total else "")]
        if self.total and 0 < self.done < self.total:
            left_s = (now_s - self.stage_began_s) * (self.total - self.done) / self.done
            parts.append(f"about {format_time(left_s)} left")
        if note:
            parts.append(note)
        self._write(", ".join(parts))

    def log(self, message: str) -> None:
        """One line."""
        self._write(message)

    def show_trials(self, trials: Sequence[TrialView]) -> None:
        """A line when a trial changes its state or stage."""
        for trial in trials:
            now = (trial.state, trial.stage)
            before = self._shown.get(trial.name, ("waiting", ""))
            if now == before or trial.state == "failed":  # a failure is logged with its reason
                self._shown[trial.name] = now
                continue
            self._shown[trial.name] = now
            self._write(
                f"{trial.name}: {trial.state}" + (f", {trial.stage}" if trial.state == "running" else "")
            )

    def _write(self, text: str) -> None:
        self.written_s = self.clock()
        print_line(f"[{format_time(self.written_s - self.began_s)}] {text}", self.stream)


class BarDisplay:
    """Live bars of the current stage, or of all trials that run in parallel."""

    def __init__(self, console: Console) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self.console = console
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            refresh_per_second=4,
        )
        self.stage = self.bars.add_task("starting", total=None, note="")
        self.rows: dict[str, tuple[str, object]] = {}
        self.bars.start()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.bars.stop()

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins; the one before stays as a line."""
        self._keep_line()
        self.bars.reset(self.stage, total=total, description=stage, note="")

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Steps are done."""
        self.bars.update(self.stage, advance=n, note=note)

    def log(self, message: str) -> None:
        """One line above the bars."""
        self.console.print(message, markup=False, highlight=False)

    def show_trials(self, trials: Sequence[TrialView]) -> None:
        """Show one bar per running trial, at most `MAX_ROWS`."""
        running = {trial.name: trial for trial in trials if trial.state == "running"}
        for name in [name for name in self.rows if name not in running]:
            self._drop_row(name)
        for trial in list(running.values())[:MAX_ROWS]:
            self._show_row(trial)

    def _show_row(self, trial: TrialView) -> None:
        known = self.rows.get(trial.name)
        if known is not None and known[0] != trial.stage:
            self._drop_row(trial.name)
            known = None
        if known is None:
            task = self.bars.add_task(
                f"{trial.name}: {trial.stage or 'starting'}", total=trial.total, note=""
            )
            self.rows[trial.name] = (trial.stage, task)
        else:
            task = known[1]
        self.bars.update(task, completed=trial.done, total=trial.total, note=trial.note)  # pyright: ignore[reportArgumentType]

    def _drop_row(self, name: str) -> None:
        self.bars.remove_task(self.rows.pop(name)[1])  # pyright: ignore[reportArgumentType]

    def _keep_line(self) -> None:
        task = self.bars.tasks[0]
        if task.completed and task.elapsed is not None:
            steps = f"{task.completed:g}" + (f"/{task.total:g}" if task.total else "")
            self.log(f"{task.description}  {steps}  {format_time(task.elapsed)}")
