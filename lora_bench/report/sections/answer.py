"""The first screen: headline, one table, two players, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator

from lora_bench.metrics.verdicts import Verdict
from lora_bench.report.answer import Answer, AnswerRow
from lora_bench.report.answer_lines import advise, describe_design, describe_lacks, describe_levels
from lora_bench.report.audio.choose_clips import Heard
from lora_bench.report.cells import tone_of
from lora_bench.report.formatting import (
    MISSING,
    clean_text,
    format_change,
    format_count,
    format_interval,
    format_with_error,
    format_with_interval,
    shorten,
)
from lora_bench.report.sections.training import write_params
from lora_bench.report.sections.tuning import describe_tuning
from lora_bench.report.sections.warnings import write_warnings
from lora_bench.report.view import arrow
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
    tuning = answer.view.results.tuning
    if tuning is not None:
        n_seeds = max((row.configuration.n_seeds for row in answer.rows), default=0)
        yield Paragraph(describe_tuning(tuning, n_seeds), kind="meta")
    if answer.rows:
        yield build_answer_table(answer)
    if answer.rows or answer.is_zero_shot_only:
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
    is_relative = any(row.share is not None for row in answer.rows)
    has_retention = any(row.retention is not None for row in answer.rows)
    has_copies = any(row.n_copies is not None for row in answer.rows)
    kinds = answer.view.adapter_kinds
    has_bases = len(answer.view.bases) > 1
    has_changes = bool(answer.compared)
    change = (
        Column("change"),
        Column(
            "difference (95 % interval)" if is_relative else "95 % interval of the change", is_numeric=False
        ),
    )
    columns = (
        Column("configuration", is_numeric=False),
        *[Column("kind", is_numeric=False)] * bool(kinds),
        *[Column("against", is_numeric=False)] * has_bases,
        Column("verdict", is_numeric=False),
        *(change if has_changes else [Column(f"{answer.metric} {arrow(answer.metric)}")]),
        *[Column("off-genre retention")] * has_retention,
        *[Column("copies")] * has_copies,
        Column("parameters"),
        Column("minutes"),
    )
    rows = tuple(
        (
            _name_row(row),
            *[Cell(kinds.get(row.configuration.name, MISSING))] * bool(kinds),
            *[Cell(_name_base(answer, row))] * has_bases,
            Cell((Chip(row.verdict, tone_of(row.verdict)),), hint=_hint(row)),
            *(_write_change(row, reach) if has_changes else [_write_level(answer, row)]),
            *_write_facts(row, has_retention=has_retention, has_copies=has_copies),
        )
        for row in shown
    )
    order = "; the best on the selection tracks first" if answer.has_selection else ""
    against = "zero-shot" if len(answer.view.bases) < 2 else "zero-shot with the same settings"
    left_out = f"; the best {MAX_ROWS} of {len(answer.rows)}" if len(answer.rows) > MAX_ROWS else ""
    unit = ", as a share of the zero-shot level and as a difference" if is_relative else ""
    about = f"Change of {answer.metric} over {answer.view.pooled}, against {against}{unit}"
    if not has_changes:
        about = f"{answer.metric} over {answer.view.pooled}"
    caption = f"{about}{order}{left_out}"
    return Table(caption, columns, rows)


def _name_row(row: AnswerRow) -> Cell:
    """Return a configuration's name; that of another system with its folder or command."""
    external = row.configuration.external
    name = Strong(row.configuration.name)
    return Cell(
        (name,) if external is None else (name, f" (external: {shorten(clean_text(external.label), 40)})")
    )


def _name_base(answer: Answer, row: AnswerRow) -> str:
    base = answer.view.base_of(row.configuration)
    return MISSING if base is None else base.name


def _hint(row: AnswerRow) -> str | None:
    return f"detectable: {row.detectable}" if row.verdict == Verdict.INCONCLUSIVE else row.lacking or None


def _write_change(row: AnswerRow, reach: float) -> tuple[Cell, Cell]:
    """Return the change, and its interval as a drawing and in words."""
    contrast = row.contrast
    if contrast is None:
        return Cell(MISSING, hint=_hint(row)), Cell(MISSING, tone="missing")
    tone = tone_of(row.verdict)
    change = Cell(row.change, order=contrast.delta, tone=tone, hint=_hint(row))
    if contrast.ci_low is None or contrast.ci_high is None:
        return change, Cell(MISSING, tone="missing")
    text = format_interval(contrast.ci_low, contrast.ci_high, signed=True)
    if row.share is not None:  # the change stands as a share of the zero-shot level
        text = format_with_interval(contrast.delta, contrast.ci_low, contrast.ci_high, contrast.se)
    ends = contrast.ci_low, contrast.delta, contrast.ci_high
    return change, Cell((Bar(text, ends, (-reach, reach), contrast.margin, tone),), order=contrast.delta)


def _write_level(answer: Answer, row: AnswerRow) -> Cell:
    """Return the value itself, where nothing was compared with zero-shot."""
    value = answer.level(row.configuration)
    if value is None:
        return Cell(MISSING, hint=_hint(row), tone="missing")
    cell = answer.view.cell(row.configuration, answer.metric, None)
    return Cell(format_with_error(value, cell.spread), order=value)


def _write_facts(row: AnswerRow, *, has_retention: bool, has_copies: bool) -> tuple[Cell, ...]:
    """Return what a configuration costs besides."""
    kept = MISSING if row.retention is None else format_change(row.retention).lstrip("+")
    copies = MISSING if row.n_copies is None else f"{row.n_copies}\u00a0of\u00a0{row.n_clips:,}"
    return (
        *[Cell(kept, order=row.retention)] * has_retention,
        *[Cell(copies, order=row.n_copies)] * has_copies,
        Cell(
            format_count(row.params),
            order=row.params,
            hint=write_params(row.configuration) if row.configuration.trials[0].budget is not None else None,
        ),
        Cell(MISSING if row.total_s is None else f"{row.total_s / 60:.1f}", order=row.total_s),
    )


def _choose_pair(answer: Answer, heard: Heard) -> Listening | None:
    """Return zero-shot and the best configuration on one prompt; None where no clip is at hand."""
    ranked = answer.tuned or answer.compared
    if not ranked:
        return None
    best = {answer.view.name_trial(trial.id) for trial in ranked[0].configuration.trials}
    found = (
        (row, (row.clips[0], row.clips[column]))
        for matrix in heard.matrices
        for column, voice in enumerate(matrix.voices)
        if voice in best
        for row in matrix.rows
    )
    for row, pair in found:
        if all(clip is not None and clip.sound for clip in pair):
            title = f"{row.title} \u00b7 clip {row.index} of both, from the same noise"
            return Listening(title, row.hint, tuple(clip for clip in pair if clip is not None))
    return None
