"""The first screen: headline, one table, two players, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator

from lora_bench.metrics.verdicts import Verdict
from lora_bench.report.answer import Answer, AnswerRow
from lora_bench.report.answer_lines import advise, describe_design, describe_lacks, describe_levels
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
    yield Paragraph(describe_design(answer), kind="meta")
    if answer.rows:
        yield build_answer_table(answer)
        for line in (describe_lacks(answer), describe_levels(answer)):
            if line:
                yield Paragraph(line, kind="meta")
    pair = _choose_pair(answer, heard)
    if pair is not None:
        yield pair
    advice = advise(answer)
    if advice:
        yield Paragraph(" ".join(advice), kind="meta")


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
    has_bases = len(answer.view.bases) > 1
    columns = (
        Column("configuration", is_numeric=False),
        *[Column("against", is_numeric=False)] * has_bases,
        Column("verdict", is_numeric=False),
        Column("change"),
        Column("95 % interval of the change", is_numeric=False),
        *[Column("off-genre retention")] * has_retention,
        *[Column("copies")] * has_copies,
        Column("parameters"),
        Column("minutes"),
    )
    rows = tuple(
        (
            Cell((Strong(row.configuration.name),)),
            *[Cell(_name_base(answer, row))] * has_bases,
            *_write_row(row, reach, has_retention=has_retention, has_copies=has_copies),
        )
        for row in shown
    )
    order = "; the best on the selection tracks first" if answer.has_selection else ""
    against = "zero-shot" if len(answer.view.bases) < 2 else "zero-shot with the same settings"
    left_out = f"; the best {MAX_ROWS} of {len(answer.rows)}" if len(answer.rows) > MAX_ROWS else ""
    caption = f"Change of {answer.metric} over {answer.view.pooled}, against {against}{order}{left_out}"
    return Table(caption, columns, rows)


def _name_base(answer: Answer, row: AnswerRow) -> str:
    base = answer.view.base_of(row.configuration)
    return MISSING if base is None else base.name


def _write_row(row: AnswerRow, reach: float, *, has_retention: bool, has_copies: bool) -> tuple[Cell, ...]:
    contrast = row.contrast
    tone = tone_of(row.verdict)
    bar = Cell(MISSING, tone="missing")
    if contrast is not None and contrast.ci_low is not None and contrast.ci_high is not None:
        text = format_interval(contrast.ci_low, contrast.ci_high, signed=True)
        ends = contrast.ci_low, contrast.delta, contrast.ci_high
        bar = Cell((Bar(text, ends, (-reach, reach), contrast.margin, tone),), order=contrast.delta)
    hint = f"detectable: {row.detectable}" if row.verdict == Verdict.INCONCLUSIVE else row.lacking or None
    copies = MISSING if row.n_copies is None else f"{row.n_copies} of {row.n_clips:,}"
    return (
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
    if not answer.compared:
        return None
    best = {answer.view.name_trial(trial.id) for trial in answer.compared[0].configuration.trials}
    found = (
        (row, (row.clips[0], row.clips[column]))
        for matrix in heard.matrices
        for column, voice in enumerate(matrix.voices)
        if voice in best
        for row in matrix.rows
    )
    for row, pair in found:
        if all(clip is not None and clip.sound for clip in pair):
            return Listening(row.title, row.hint, tuple(clip for clip in pair if clip is not None))
    return None
