"""The files of a report from the files of a run; the same files give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lora_bench.planning.run_folder import ReportFolder
from lora_bench.planning.trial_plan import name_report
from lora_bench.report.audio.choose_clips import choose_listening
from lora_bench.report.contents import Report, build_report, choose_title
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Heading
from lora_bench.report.writers.html import write_page
from lora_bench.report.writers.markdown import write_markdown
from lora_bench.results.csv_table import render_csv
from lora_bench.results.gather import gather_results
from lora_bench.results.parquet_table import render_parquet
from lora_bench.results.reading import render_record
from lora_bench.store import write_bytes


def render_report(run_folder: Path, reports_folder: Path) -> list[Path]:
    """Write `reports_folder/<name>/` for a run, in any state; a run with `-o` has a folder of its own.

    Args:
        run_folder: folder of a run, with `plan.json` or at least `results.json`.
        reports_folder: where the run's report folder is made.

    Returns:
        The files that were written.

    Raises:
        StoreError: the folder holds no run, or the disk is full.
    """
    results = gather_results(run_folder)
    view = RunView(results, run_folder)
    folder = reports_folder / name_report(results.name, results.overrides)
    report = build_report(view, choose_listening(view, folder.absolute()))
    files: dict[str, str | bytes] = {
        **write_documents(choose_title(view), report),
        ReportFolder.results_csv: render_csv(results),
        ReportFolder.results: render_record(results),
        ReportFolder.results_parquet: render_parquet(results),
    }
    return write_files(folder, files)


def write_documents(title: str, report: Report) -> dict[str, str]:
    """Return the documents and plots of a report by the name of their file."""
    return {
        ReportFolder.markdown: write_markdown(report.front),
        ReportFolder.details: write_markdown([Heading(1, f"{title}: details", "top"), *report.details]),
        ReportFolder.page: write_page(title, [*report.front, *report.details]),
        **{f"{figure.slug}.svg": figure.svg for figure in report.figures},
    }


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> list[Path]:
    """Write the files of a report, and remove plots of metrics that it no longer has."""
    for name, content in files.items():
        _write_if_new(
            folder / name, content.encode(errors="backslashreplace") if isinstance(content, str) else content
        )
    for path in folder.glob("*.svg"):
        if path.name not in files:
            path.unlink()
    return [folder / name for name in files]


def _write_if_new(path: Path, data: bytes) -> None:
    """Write a file unless it holds just this: a repeated run need not wait for the disk."""
    if not path.is_file() or path.read_bytes() != data:
        write_bytes(path, data)
