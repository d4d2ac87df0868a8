"""What people preferred in listening tests, next to the primary metric; nothing without `listening.json`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lora_bench.report.answer import Answer
from lora_bench.report.cells import number_columns, text_columns, tone_of, verdict_cell
from lora_bench.report.formatting import MISSING, count_noun, format_correlation, format_percent, join_words
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import (
    Bar,
    Block,
    Bullets,
    Cell,
    Column,
    Fold,
    Format,
    Heading,
    Paragraph,
    Strong,
    Table,
    Tone,
)
from lora_bench.results.listening import ListeningResults, MetricAgreement, PreferenceRecord
from lora_bench.results.reading import read_part

FEW = 8
MAX_NAMED = 3
MAX_EXCLUDED = 20
HOW_TO_READ = (
    "A share of 50 % is no preference; shares come from a Bradley-Terry model of all pairs. Intervals are over raters, "
    "hold for each configuration alone, and say how other people would judge these clips."
)
CORRELATION = "Spearman's rank correlation over configurations, zero-shot included"
_ASKED = {
    "preference": "is preferred to zero-shot in",
    "fits_prompt": "fits its prompt better than zero-shot in",
    "fits_genre": "sounds more like the genre than zero-shot in",
}


def build_listening_front(answer: Answer) -> Iterator[Block]:
    """Yield the first question's outcome in a line and, on the page, as a table next to the primary metric."""
    results = _read(answer.view, [])
    if results is None or not results.preferences:
        return
    question = results.preferences[0].question
    records = _sort(results, question)
    yield Heading(2, "Listening test", "listening-test")
    yield Paragraph(f"{_count(results)}: {_summarise(records)}.")
    yield _preference_table(answer, records, only_in="page")
    correlations = [
        f"{item.metric} {format_correlation(item.correlation)} over {item.n_configurations}"
        for item in results.agreements
        if item.question == question and item.correlation is not None
    ]
    found = (
        f"{CORRELATION}, of a metric with the shares: {', '.join(correlations)}{_warn(results.agreements)}."
    )
    yield Paragraph(" ".join([found] * bool(correlations) + [HOW_TO_READ]), kind="meta", only_in="page")


def build_listening_details(answer: Answer) -> Iterator[Fold]:
    """Yield a closed part: every question, the correlations with metrics, and answers that did not count."""
    problems: list[str] = []
    results = _read(answer.view, problems)
    if results is not None:
        yield Fold("Listening test: details", "listening-details", tuple(_build_details(answer, results)))
    elif problems:
        yield Fold("Listening test: damaged file", "listening-details", (Bullets(tuple(problems)),))


def _build_details(answer: Answer, results: ListeningResults) -> Iterator[Block]:
    yield Paragraph(f"{_count(results)}. {HOW_TO_READ}")
    for question in dict.fromkeys(item.question for item in results.preferences):
        yield _preference_table(answer, _sort(results, question))
    if results.agreements:
        yield _agreement_table(results.agreements)
    if results.excluded:
        yield Paragraph(f"{count_noun(len(results.excluded), 'file')} of answers did not count:")
        lines = [f"{item.file}: {item.reason}" for item in results.excluded]
        n_more = len(lines) - MAX_EXCLUDED
        yield Bullets((*lines[:MAX_EXCLUDED], *[f"and {n_more} more"] * (n_more > 0)))


def _read(view: RunView, problems: list[str]) -> ListeningResults | None:
    return read_part(view.folder.listening, ListeningResults, problems)


def _sort(results: ListeningResults, question: str) -> list[PreferenceRecord]:
    """Return the records of a question, the most preferred first, those without a strength last."""
    records = [item for item in results.preferences if item.question == question]
    return sorted(records, key=lambda item: math.inf if item.strength is None else -item.strength)


def _count(results: ListeningResults) -> str:
    return f"{count_noun(results.n_raters, 'rater')} and {count_noun(results.n_answers, 'answered pair')}"


def _warn(agreements: Sequence[MetricAgreement]) -> str:
    """Return a caveat where correlations are over few configurations."""
    n = min((item.n_configurations for item in agreements), default=FEW)
    return f"; below {FEW} configurations it says little" if n < FEW else ""


def _summarise(records: Sequence[PreferenceRecord]) -> str:
    """Return the most preferred configurations with their intervals in one line."""
    known = [item for item in records if item.share is not None]
    if not known:
        return "no configuration was compared with zero-shot, directly or through others"
    parts = [f"{item.configuration} in {_write_share(item)} ({_write_interval(item)})" for item in known]
    asked = _ASKED.get(known[0].question, f"wins on {known[0].question} in").removesuffix(" in")
    first = f"{known[0].configuration} {asked}{parts[0].removeprefix(known[0].configuration)}"
    more = [f"{len(parts) - MAX_NAMED} more are in Details"] * (len(parts) > MAX_NAMED)
    return join_words([first, *parts[1:MAX_NAMED], *more])


def _write_share(record: PreferenceRecord) -> str:
    return MISSING if record.share is None else f"{format_percent(record.share)} of comparisons"


def _write_interval(record: PreferenceRecord) -> str:
    low, high = record.share_ci_low, record.share_ci_high
    if low is None or high is None:
        return record.note or "no interval"
    return f"95 % interval {format_percent(low)} to {format_percent(high)}"


def _preference_table(
    answer: Answer, records: Sequence[PreferenceRecord], *, only_in: Format | None = None
) -> Table:
    """Return configurations as rows: people's shares, and the change of the primary metric."""
    rows_of = {row.configuration.name: row for row in answer.rows}
    has_bases = len({item.against for item in records}) > 1
    columns = (
        *text_columns("configuration", *["against"] * has_bases),
        Column("share"),
        *text_columns("95 % interval of the share"),
        *number_columns("raters", "answers", f"change of {answer.metric}"),
        *text_columns("verdict"),
    )
    rows: list[tuple[Cell, ...]] = []
    for item in records:
        row = rows_of.get(item.configuration)
        contrast = None if row is None else row.contrast
        rows.append(
            (
                Cell((Strong(item.configuration),)),
                *[Cell(item.against)] * has_bases,
                *_write_preference(item),
                Cell(str(item.n_raters), order=item.n_raters),
                Cell(str(item.n_answers), order=item.n_answers),
                Cell(MISSING, tone="missing")
                if row is None or contrast is None
                else Cell(row.change, order=contrast.delta, tone=tone_of(row.verdict)),
                verdict_cell(None if row is None else row.verdict),
            )
        )
    asked = _ASKED.get(records[0].question)
    about = f"a configuration {asked} this share of the comparisons" if asked else "share of comparisons won"
    return Table(f"{records[0].question}: {about}", columns, tuple(rows), only_in=only_in)


def _write_preference(item: PreferenceRecord) -> tuple[Cell, Cell]:
    if item.share is None:
        return Cell(MISSING, hint=item.note, tone="missing"), Cell(MISSING, tone="missing")
    low, high = item.share_ci_low, item.share_ci_high
    if low is None or high is None:
        return Cell(format_percent(item.share), order=item.share), Cell(item.note or MISSING, tone="missing")
    tone: Tone = "better" if low > 0.5 else "worse" if high < 0.5 else "plain"
    ends = low - 0.5, item.share - 0.5, high - 0.5
    bar = Bar(f"{format_percent(low)} to {format_percent(high)}", ends, (-0.5, 0.5), None, tone)
    return Cell(format_percent(item.share), order=item.share, tone=tone), Cell((bar,), order=item.share)


def _agreement_table(agreements: Sequence[MetricAgreement]) -> Table:
    """Return the correlation of every metric with people's answers, a column for each question."""
    questions = list(dict.fromkeys(item.question for item in agreements))
    found = {(item.metric, item.question): item for item in agreements}
    rows = tuple(
        (Cell(metric), *(_write_agreement(found.get((metric, question))) for question in questions))
        for metric in dict.fromkeys(item.metric for item in agreements)
    )
    caption = f"{CORRELATION}; positive if the metric calls better what people prefer{_warn(agreements)}"
    return Table(caption, (*text_columns("metric"), *number_columns(*questions)), rows)


def _write_agreement(item: MetricAgreement | None) -> Cell:
    if item is None or item.correlation is None:
        return Cell(MISSING if item is None else item.note or MISSING, tone="missing")
    text = f"{format_correlation(item.correlation)} over {item.n_configurations}"
    return Cell(text, order=item.correlation)
