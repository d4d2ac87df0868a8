"""`lora-bench listen`: write the page of a listening test, or evaluate people's answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench.cli.options import json_option, option, run_option, runs_dir_option
from lora_bench.cli.run_places import resolve_run
from lora_bench.cli.tables import format_table, print_json
from lora_bench.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from lora_bench.report.view import RunView
    from lora_bench.results.listening import ListeningResults, PreferenceRecord

_PAGE_OPTIONS = {
    "pairs": "--pairs", "seed": "--seed", "configurations": "--configuration", "prompts": "--prompt", "to": "--to",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench listen`."""

    run: Path = run_option()
    runs_dir: Path = runs_dir_option()
    pairs: int | None = option(
        "--pairs", metavar="N", help="pairs that a listener hears; default: that of the spec (20)"
    )
    seed: int | None = option(
        "--seed", metavar="N", help="seed of the choice of pairs; default: that of the spec (0)"
    )
    configurations: Sequence[str] = option(
        "--configuration",
        action="append",
        default=[],
        metavar="NAME",
        help="compare this configuration; can be repeated; default: all, or five from the best to the worst",
    )
    prompts: Sequence[str] = option(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help="use clips of this prompt; can be repeated; default: all prompts but the off-genre ones",
    )
    to: Path | None = option(
        "--to", metavar="FILE", help="file of the page; default: listening.html in the run's folder"
    )
    answers: Sequence[Path] = option(
        "--import",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="evaluate files of answers instead; writes listening.json into the run's folder",
    )
    json: bool = json_option()


def execute(options: Options) -> int:
    """Write the page, or evaluate answers and print preferences next to the primary metric.

    Raises:
        UsageError: no such run, configuration or prompt; or options of the page together with `--import`.
        StoreError: a file of answers is damaged.
    """
    run = resolve_run(options.run, options.runs_dir).absolute()
    given = [name for field, name in _PAGE_OPTIONS.items() if getattr(options, field) not in (None, [])]
    if options.answers and given:
        raise UsageError(f"{given[0]}: is an option of the page; leave it out with --import")
    if options.answers:
        _import(run, options)
    else:
        _write(run, options)
    return EXIT_OK


def _write(run: Path, options: Options) -> None:
    from lora_bench.listening.create import Wishes, write_study

    if options.pairs is not None and not 2 <= options.pairs <= 200:
        raise UsageError(f"--pairs {options.pairs}: expected 2 to 200")
    if options.seed is not None and not 0 <= options.seed < 2**31:
        raise UsageError(f"--seed {options.seed}: expected a whole number from 0 to 2^31 - 1")
    wishes = Wishes(options.pairs, options.seed, options.configurations, options.prompts)
    page = write_study(run, wishes, options.to)
    for note in page.notes:
        print(note, file=sys.stderr)
    n_checks = sum(pair.kind != "comparison" for pair in page.study.pairs)
    n_pairs = len(page.study.pairs) - n_checks
    if options.json:
        print_json({"page": str(page.path), "study": page.study.id, "pairs": n_pairs, "checks": n_checks})
        return
    print(page.path)
    print(
        f"{n_pairs} pairs and {n_checks} attention checks, "
        f"{page.path.stat().st_size / 1e6:.1f} MB; give the page to listeners, and evaluate the files that they save "
        f"with `lora-bench listen {options.run} --import FILES`"
    )


def _import(run: Path, options: Options) -> None:
    from lora_bench.listening.preferences import import_answers, list_reasons
    from lora_bench.report.view import RunView
    from lora_bench.results.gather import gather_results

    view = RunView(gather_results(run), run)
    results = import_answers(run, options.answers, view)
    for line in list_reasons(results.excluded):
        print(line, file=sys.stderr)
    if options.json:
        print_json(results.model_dump(mode="json", by_alias=True, exclude_unset=True))
        return
    print("\n".join(describe_results(results, view)))
    print(view.folder.listening)


def describe_results(results: ListeningResults, view: RunView) -> Iterator[str]:
    """Yield the lines of a table for each question, and the correlations."""
    counts = {"rater": results.n_raters, "answer": results.n_answers, "file": len(results.excluded)}
    yield ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items()) + " excluded"
    for question in dict.fromkeys(item.question for item in results.preferences):
        records = [item for item in results.preferences if item.question == question]
        yield ""
        yield _format_preferences(records, view)
        agreements = [item for item in results.agreements if item.question == question]
        for item in agreements:
            found = item.note if item.correlation is None else f"{item.correlation:+.2f}"
            over = "" if item.correlation is None else f" over {item.n_configurations} configurations"
            yield f"rank correlation of {item.metric} with {question}{over}: {found}"


def _format_preferences(records: Sequence[PreferenceRecord], view: RunView) -> str:
    metric = view.primary_metric or "metric"
    head = [records[0].question, "share", "95 % interval", "strength", "raters", "answers"]
    head += [f"{metric} change", "95 % interval", "verdict"]
    rows = [[*_format_preference(record), *_format_contrast(record, view)] for record in records]
    notes = [f"{record.configuration}: {record.note}" for record in records if record.note]
    return "\n".join([format_table(head, rows, right=(1, 3, 4, 5, 6)), *notes])


def _format_preference(record: PreferenceRecord) -> list[str]:
    low, high = record.share_ci_low, record.share_ci_high
    return [
        record.configuration,
        "-" if record.share is None else f"{record.share:.0%}",
        "-" if low is None or high is None else f"{low:.0%} to {high:.0%}",
        "-" if record.strength is None else f"{record.strength:+.2f}",
        str(record.n_raters),
        str(record.n_answers),
    ]


def _format_contrast(record: PreferenceRecord, view: RunView) -> list[str]:
    contrast = view.contrast(record.configuration, view.primary_metric or "", None)
    if contrast is None:
        return ["-", "-", "-"]
    low, high = contrast.ci_low, contrast.ci_high
    interval = "-" if low is None or high is None else f"{low:+.3g} to {high:+.3g}"
    return [f"{contrast.delta:+.3g}", interval, contrast.verdict or "descriptive"]
