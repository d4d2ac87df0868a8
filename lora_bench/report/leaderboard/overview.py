"""Across runs: an overview page, and leaderboards of what is comparable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lora_bench.errors import StoreError, describe_error
from lora_bench.metrics.names import is_higher_better
from lora_bench.planning.run_folder import ReportFolder, RunFolder
from lora_bench.planning.trial_plan import name_report
from lora_bench.report.cells import THIS_ADAPTER, number_columns, text_columns, verdict_cell
from lora_bench.report.formatting import (
    MISSING,
    clean_text,
    count_noun,
    format_interval,
    join_words,
    round_to_error,
    shorten,
)
from lora_bench.report.leaderboard.comparability import (
    Entry,
    explain_difference,
    group_entries,
    list_entries,
    name_runs,
)
from lora_bench.report.metric_words import describe_metric
from lora_bench.report.view import RunView, arrow
from lora_bench.report.writers.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Heading,
    Link,
    Paragraph,
    Span,
    Strong,
    Table,
    Text,
)
from lora_bench.report.writers.html import write_page
from lora_bench.report.writers.markdown import write_markdown
from lora_bench.results.external import ExternalRecord
from lora_bench.results.gather import gather_results
from lora_bench.results.reading import read_run_plan
from lora_bench.results.settings import read_section
from lora_bench.store import write_text

TITLE = "Runs of lora_bench"
MAX_ROWS = 200
MAX_REASONS = 12


@dataclass(frozen=True)
class FoundRuns:
    """Runs of a folder, and folders that look like runs and cannot be read, with the reason."""

    runs: tuple[RunView, ...]
    entries: tuple[Entry, ...]
    unreadable: tuple[tuple[str, str], ...]


def render_overview(
    runs_folder: Path, reports_folder: Path, tell: Callable[[str], None] | None = None
) -> list[Path]:
    """Write `index.html` and `leaderboard.md` over the runs of a folder, from files alone.

    Args:
        runs_folder: its subfolders with `plan.json` or `results.json` are runs.
        reports_folder: where both files go, and where the runs' reports are looked for.
        tell: hears of each folder that is left out, and why.

    Returns:
        The two files.

    Raises:
        StoreError: there is no run, or the disk is full.
    """
    found = find_runs(runs_folder)
    if not found.runs and not found.unreadable:
        raise StoreError(
            f"{runs_folder}: holds no run (a folder with plan.json); expected the folder that `run` was given as "
            "--runs-dir, such as runs"
        )
    if tell is not None:
        for name, reason in found.unreadable:
            tell(f"left out: {name}: {reason}")
    blocks = list(build_overview(found, reports_folder.absolute()))
    files = {"index.html": write_page(TITLE, blocks), "leaderboard.md": write_markdown(blocks)}
    for name, text in files.items():
        write_text(reports_folder / name, text)
    return [reports_folder / name for name in files]


def find_runs(folder: Path) -> FoundRuns:
    """Return every run below a folder, by name; files of other programs are not runs."""
    runs: list[RunView] = []
    entries: list[Entry] = []
    unreadable: list[tuple[str, str]] = []
    for place in sorted(folder.iterdir()):
        if place.name.startswith("."):
            continue
        try:
            if RunFolder(place).is_run:
                view = RunView(gather_results(place), place)
                has_plan = RunFolder(place).plan.is_file()
                entries += list_entries(view, read_run_plan(place) if has_plan else None)
                runs.append(view)
        except (StoreError, OSError) as error:
            unreadable.append((place.name, describe_error(error).removeprefix(f"{place}/")))
    return FoundRuns(tuple(runs), tuple(entries), tuple(unreadable))


def build_overview(found: FoundRuns, reports_folder: Path) -> Iterator[Block]:
    """Yield all runs, then one section per metric."""
    yield Heading(1, TITLE, "top")
    yield Paragraph(
        f"{count_noun(len(found.runs), 'run')}. Values of different runs share a leaderboard only where data, "
        "references, prompts, sampling and the metric's own settings agree; otherwise the reasons are given."
    )
    yield Heading(2, "Runs", "runs")
    yield _runs_table(found, reports_folder)
    if found.unreadable:
        yield Paragraph("Folders that cannot be read:")
        yield Bullets(tuple((Code(name), f": {clean_text(reason)}") for name, reason in found.unreadable))
    for index, (metric, groups) in enumerate(group_entries(found.entries).items(), start=1):
        yield from _build_metric(metric, groups, index, reports_folder)


def _runs_table(found: FoundRuns, reports_folder: Path) -> Table:
    columns = (
        *text_columns("run", "state", "model", "data"),
        *number_columns("configurations", "prompts"),
        *text_columns("metrics"),
    )
    return Table("All runs", columns, tuple(_run_row(run, reports_folder) for run in found.runs))


def _run_row(run: RunView, reports_folder: Path) -> tuple[Cell, ...]:
    results = run.results
    n_done = sum(trial.state == "done" for trial in run.trials)
    state = "complete" if results.complete else f"incomplete: {n_done} of {len(run.trials)} trials done"
    datasets = [source.dataset for source in results.sources] or [results.dataset]
    names = dict.fromkeys(clean_text(dataset.name or MISSING) for dataset in datasets)
    return (
        Cell(_link_run(run, reports_folder)),
        Cell(state, tone="plain" if results.complete else "missing"),
        Cell(_describe_model(run)),
        Cell(join_words(list(names))),
        Cell(str(len(run.rivals)), order=len(run.rivals)),
        Cell(str(len(run.prompts)), order=len(run.prompts)),
        Cell(", ".join(run.metrics)),
    )


def _link_run(run: RunView, reports_folder: Path) -> Text:
    """Return the run's name, as a link if its report is there."""
    name = run.results.name
    page = ReportFolder(reports_folder / name_report(name, run.results.overrides)).page
    if not page.is_file():
        return name
    return (Link(name, quote(Path(os.path.relpath(page, reports_folder)).as_posix())),)


def _describe_model(run: RunView) -> str:
    model = run.results.model
    name = str(model.name or read_section(run.spec, "model").get("id") or MISSING)
    return shorten(name, 40) + (" (untrained)" if model.trained is False else "")


def _name_system(external: ExternalRecord) -> str:
    return f"external: {shorten(clean_text(external.label), 40)}"


def _build_metric(
    metric: str, groups: list[list[Entry]], index: int, reports_folder: Path
) -> Iterator[Block]:
    yield Heading(2, f"{metric} {arrow(metric)}", f"metric-{index}")
    about = describe_metric(metric)
    order = "highest" if is_higher_better(metric) else "lowest"
    sentence = f"{about[0].upper()}{about[1:]}. " if about else ""
    marked = any(entry.cell.corrected is None for group in groups for entry in group)
    uncorrected = (
        " Values marked (uncorrected) are not corrected for the bias of finite samples." if marked else ""
    )
    yield Paragraph(
        f"{sentence}The genre's prompts together, {order} first. Intervals that overlap are no finding; the verdicts "
        "are those of the runs. An interval is 95 % over clips and tracks, or (± se) "
        f"the standard error over training seeds.{uncorrected}"
    )
    for number, group in enumerate(groups, start=1):
        if len(groups) > 1:
            yield Heading(3, f"Comparable set {number}: {_list_runs(group)}", f"metric-{index}-set-{number}")
        if number > 1:
            yield _explain(groups[0], group)
        yield _leaderboard(metric, group, number, reports_folder)


def _list_runs(group: list[Entry]) -> str:
    names = name_runs(group)
    shown = names[:4] + ([f"{len(names) - 4} more"] if len(names) > 4 else [])
    return join_words(shown)


def _explain(first: list[Entry], group: list[Entry]) -> Paragraph:
    reasons = explain_difference(first[0].facts, group[0].facts)
    more = f"; and {len(reasons) - MAX_REASONS} further settings" if len(reasons) > MAX_REASONS else ""
    listed = "; ".join(clean_text(reason) for reason in reasons[:MAX_REASONS])
    text: tuple[Span, ...] = (Strong("Not comparable with set 1"), f": different {listed}{more}.")
    return Paragraph(text)


def _leaderboard(metric: str, group: list[Entry], number: int, reports_folder: Path) -> Table:
    sign = -1.0 if is_higher_better(metric) else 1.0
    ranked = sorted(group, key=lambda entry: sign * entry.order)[:MAX_ROWS]
    is_corrected = all(entry.cell.corrected is not None for entry in group)
    columns = (
        *number_columns("place"),
        *text_columns("configuration", "run", "model"),
        *number_columns(f"{metric} {arrow(metric)}", "interval", "seeds"),
        *text_columns("against zero-shot"),
    )
    rows = tuple(_entry_row(place, entry, reports_folder) for place, entry in enumerate(ranked, start=1))
    corrected = ", corrected for the bias of finite samples" if is_corrected else ""
    left_out = f"; the best {MAX_ROWS} of {len(group)}" if len(group) > MAX_ROWS else ""
    return Table(f"{metric}{corrected}, set {number}{left_out}", columns, rows, n_fixed=2)


def _entry_row(place: int, entry: Entry, reports_folder: Path) -> tuple[Cell, ...]:
    cell, item = entry.cell, entry.configuration
    external = item.external
    interval = format_interval(cell.low, cell.high)
    kind = " (± se)" if cell.over == "seeds" and interval != MISSING else ""
    half = None if cell.low is None or cell.high is None else (cell.high - cell.low) / 2.0
    value = round_to_error(entry.order, half or cell.spread)
    mark = "" if cell.corrected is not None else " (uncorrected)"
    return (
        Cell(str(place), order=place),
        Cell(item.name),
        Cell(_link_run(entry.run, reports_folder)),
        Cell(_describe_model(entry.run) if external is None else _name_system(external)),
        Cell(f"{value}{mark}", order=entry.order),
        Cell(interval + kind, order=cell.low),
        Cell(
            THIS_ADAPTER if item.is_existing else str(cell.n_seeds) if item.n_seeds else MISSING,
            order=cell.n_seeds,
        ),
        verdict_cell(cell.verdict),
    )
