"""The first screen: headline, one table, two players, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator

from lora_bench.metrics.verdicts import Verdict
from lora_bench.report.answer import Answer, AnswerRow
from lora_bench.report.audio.choose_clips import Heard
from lora_bench.report.cells import tone_of
from lora_bench.report.formatting import MISSING, format_change, format_count, format_interval
from lora_bench.report.sections.warnings import write_warnings
from lora_bench.report.writers.document import (
    Bar,
    Block,
    Cell,
    Chip,
    Column,
    Heading,
    Listening,
    Paragraph,
    Strong,
    Table,
)

MAX_ROWS = 12


def build_answer(answer: Answer, heard: Heard) -> Iterator[Block]:
    """Yield what a reader wants first."""
    warnings = write_warnings(answer.view)
    if warnings:  # before the headline, so that nobody misses them
        yield Paragraph(" ".join(warnings), is_warning=True)
    yield Heading(1, answer.headline, "answer")
    yield Paragraph(answer.meta, kind="meta")
    if answer.rows:
        yield build_answer_table(answer)
        if answer.levels:
            yield Paragraph(answer.levels, kind="meta")
    pair = _choose_pair(answer, heard)
    if pair is not None:
        yield pair
    if answer.advice:
        yield Paragraph(" ".join(answer.advice), kind="meta")


def build_answer_table(answer: Answer) -> Table:
    """Return configurations as rows, the best first."""
    shown = answer.rows[:MAX_ROWS]
    edges = [0.0]
    for row in shown:
        if row.contrast is not None:
            found = row.contrast.delta, row.contrast.ci_low, row.contrast.ci_high, row.contrast.margin
            edges += [edge for edge in found if edge is not None]
    reach = max(abs(edge) for edge in edges) * 1.05 or 1.0
    has_retention = any(row.retention is not None for row in answer.rows)
    has_copies = any(row.n_copies is not None for row in answer.rows)
    columns = (
        Column("configuration", is_numeric=False),
        Column("verdict", is_numeric=False),
        Column("change"),
        Column("95 % interval of the change", is_numeric=False),
        *[Column("off-genre retention")] * has_retention,
        *[Column("copies")] * has_copies,
        Column("parameters"),
        Column("minutes"),
    )
    rows = tuple(_write_row(row, reach, has_retention=has_retention, has_copies=has_copies) for row in shown)
    left_out = f"; the best {MAX_ROWS} of {len(answer.rows)}" if len(answer.rows) > MAX_ROWS else ""
    caption = f"Change of {answer.metric} over {answer.view.pooled}, against zero-shot{left_out}"
    return Table(caption, columns, rows)


def _write_row(row: AnswerRow, reach: float, *, has_retention: bool, has_copies: bool) -> tuple[Cell, ...]:
    contrast = row.contrast
    tone = tone_of(row.verdict)
    bar = Cell(MISSING, tone="missing")
    if contrast is not None and contrast.ci_low is not None and contrast.ci_high is not None:
        text = format_interval(contrast.ci_low, contrast.ci_high, signed=True)
        ends = contrast.ci_low, contrast.delta, contrast.ci_high
        bar = Cell((Bar(text, ends, (-reach, reach), contrast.margin, tone),), order=contrast.delta)
    hint = f"detectable: {row.detectable}" if row.verdict == Verdict.INCONCLUSIVE else None
    copies = MISSING if row.n_copies is None else f"{row.n_copies} of {row.n_clips:,}"
    return (
        Cell((Strong(row.configuration.name),)),
        Cell((Chip(row.verdict, tone),), hint=hint),
        Cell(row.change or MISSING, order=None if contrast is None else contrast.delta, tone=tone, hint=hint),
        bar,
        *[
            Cell(
                MISSING if row.retention is None else format_change(row.retention).lstrip("+"),
                order=row.retention,
            )
        ]
        * has_retention,
        *[Cell(copies, order=row.n_copies)] * has_copies,
        Cell(format_count(row.params), order=row.params),
        Cell(MISSING if row.total_s is None else f"{row.total_s / 60:.1f}", order=row.total_s),
    )


def _choose_pair(answer: Answer, heard: Heard) -> Listening | None:
    """Return zero-shot and the best configuration on one prompt; None where no clip is at hand."""
    matrix = heard.matrix
    if matrix is None or not answer.compared:
        return None
    best = {answer.view.name_trial(trial.id) for trial in answer.compared[0].configuration.trials}
    column = next((place for place, voice in enumerate(matrix.voices) if voice in best), None)
    if column is None:
        return None
    for row in matrix.rows:
        pair = row.clips[0], row.clips[column]
        if all(clip is not None and clip.sound for clip in pair):
            return Listening(row.title, row.hint, tuple(clip for clip in pair if clip is not None))
    return None
