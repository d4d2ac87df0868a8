"""Score tables: one per metric, prompts as rows, zero-shot and LoRA configurations as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lora_bench.metrics.names import CODEC_MATCHED
from lora_bench.report.cells import number_cell, prompt_cell, tone_of
from lora_bench.report.formatting import MISSING, add_interval, clean_text, format_value, format_with_error
from lora_bench.report.metric_words import describe_metric
from lora_bench.report.plots.scores import draw_scores
from lora_bench.report.view import CellValue, Configuration, RunView, arrow, is_higher_better, name_floor
from lora_bench.report.writers.document import (
    Block,
    Bullets,
    Cell,
    Column,
    Heading,
    Paragraph,
    Strong,
    Table,
)
from lora_bench.results.records import Floor

MAX_DIRECT_CONFIGURATIONS = 6
MAX_NOTES = 4


def build_score_sections(view: RunView) -> Iterator[Block]:
    """Yield the tables, with reference levels, explanations and plots."""
    yield Heading(2, "Scores", "scores")
    if len(view.fine_tuned) > MAX_DIRECT_CONFIGURATIONS:
        yield _overview_table(view)
    for index, metric in enumerate(view.metrics):
        yield from _build_metric(view, metric, index)
    if view.long_prompts:
        yield Heading(3, "Prompts in full", "prompts-in-full")
        yield Bullets(
            tuple((Strong(mark), ": " + clean_text(prompt)) for prompt, mark in view.long_prompts.items())
        )


def _build_metric(view: RunView, metric: str, index: int) -> Iterator[Block]:
    direction = "higher is better" if is_higher_better(metric) else "lower is better"
    yield Heading(3, f"{metric} {arrow(metric)}", f"metric-{index + 1}")
    about = describe_metric(metric)
    yield Paragraph(f"{about[0].upper()}{about[1:]}; {direction}." if about else f"{direction.capitalize()}.")
    yield _metric_table(view, metric)
    yield Paragraph(_explain_spread(view, metric))
    yield from _list_notes(view, metric)
    yield from _corrected_table(view, metric)
    yield from _explain_floors(view, metric)
    figure = draw_scores(view, metric, f"scores-{index + 1}")
    if figure is not None:
        yield figure


def _metric_table(view: RunView, metric: str) -> Table:
    """Return a table of prompts as rows, and zero-shot, LoRA configurations and reference levels as columns."""
    floors = _comparable_floors(view, metric)
    columns = [Column(f"{metric} {arrow(metric)}", is_numeric=False), *_value_columns(view, floors)]
    rows: list[tuple[Cell, ...]] = []
    for prompt in (*view.prompts, None):
        cells = [score_cell(view.cell(item, metric, prompt), item) for item in view.configurations]
        rows.append(
            (prompt_cell(view, prompt), *cells, *(_floor_cell(view, floor, prompt) for floor in floors))
        )
    caption = f"{metric} per prompt, {'higher' if is_higher_better(metric) else 'lower'} is better"
    return Table(caption, tuple(columns), tuple(rows), n_fixed=2 if view.zero_shot else 1)


def _comparable_floors(view: RunView, metric: str) -> list[Floor]:
    """Return reference levels that were measured with as many clips as some row has."""
    counts = {n for prompt in (*view.prompts, None) for n in view.clip_counts(metric, prompt)}
    return [floor for floor in view.floors(metric) if floor.n_generated in counts]


def _value_columns(view: RunView, floors: Sequence[Floor]) -> list[Column]:
    columns = [Column(_configuration_header(item)) for item in view.configurations]
    return columns + [Column(f"reference: {name_floor(floor)}") for floor in floors]


def _configuration_header(configuration: Configuration) -> str:
    return (
        configuration.name
        if configuration.is_zero_shot
        else f"{configuration.name} (n={configuration.n_seeds})"
    )


def score_cell(value: CellValue, configuration: Configuration) -> Cell:
    """Return a value with its standard error and verdict, or the word why there is none."""
    if value.value is None:
        return Cell(f"{MISSING} ({value.state})", hint="; ".join(value.reasons) or None, tone="missing")
    text = format_with_error(value.value, value.spread)
    if configuration.n_seeds > 1:
        text += f"\u00a0(n={value.n_seeds})"
    if value.verdict:
        text += f", {value.verdict}"
    hint = "; ".join(value.reasons) or None
    return Cell(text, order=value.value, tone=tone_of(value.verdict), hint=hint)


def _floor_cell(view: RunView, floor: Floor, prompt: str | None, *, corrected: bool = False) -> Cell:
    """Return a reference level for the rows with as many clips; a distance depends on their number."""
    value = floor.corrected if corrected else floor.value
    if value is None or floor.n_generated not in view.clip_counts(floor.metric, prompt):
        return Cell("")
    return Cell(format_with_error(value, None if corrected else floor.se), order=value)


def _explain_spread(view: RunView, metric: str) -> str:
    """Return what a ±, an `n=` and the absence of either mean."""
    cells = [
        view.cell(item, metric, prompt) for item in view.configurations for prompt in (*view.prompts, None)
    ]
    over = {cell.over for cell in cells if cell.value is not None}
    notes: list[str] = []
    if "clips" in over:
        notes.append("± after a single trial is its standard error over clips and reference tracks.")
    if "seeds" in over:
        notes.append("± with (n=...) is the standard error over n training seeds.")
    if any(item.n_seeds for item in view.configurations):
        notes.append("n is the number of training seeds; with n=1 the spread over training runs is unknown.")
    if not over - {None}:
        notes.append("No standard error was computed for these values.")
    if any(cell.verdict for cell in cells):
        notes.append(
            "The word after a value is the verdict against zero-shot; its difference and interval are in the contrasts."
        )
    else:
        notes.append("This metric is descriptive: it gives no verdict.")
    if len(view.prompts) > 1 and view.clip_counts(metric, None) - view.clip_counts(metric, view.prompts[0]):
        notes.append(
            "The last row pools all clips; a distance shrinks with more clips, so compare within rows."
        )
    return " ".join(notes)


def _list_notes(view: RunView, metric: str) -> Iterator[Block]:
    """Yield the notes of the scores."""
    notes = list(dict.fromkeys(clean_text(score.note) for score in view.scores_on(metric) if score.note))
    if notes:
        yield Paragraph("Notes:")
        yield Bullets(tuple(notes[:MAX_NOTES]))
    if len(notes) > MAX_NOTES:
        yield Paragraph(f"... and {len(notes) - MAX_NOTES} more notes in results.json.")


def _corrected_table(view: RunView, metric: str) -> Iterator[Block]:
    """Yield the same cells without the bias of finite samples; nothing where there is no such bias."""
    if len(view.fine_tuned) > MAX_DIRECT_CONFIGURATIONS:
        return
    floors = _comparable_floors(view, metric)
    rows: list[tuple[Cell, ...]] = []
    shifts: list[float] = []
    for prompt in (*view.prompts, None):
        values = [view.cell(item, metric, prompt) for item in view.configurations]
        shifts += [
            abs(v.corrected - v.value) for v in values if v.corrected is not None and v.value is not None
        ]
        levels = [_floor_cell(view, floor, prompt, corrected=True) for floor in floors]
        rows.append((prompt_cell(view, prompt), *(_corrected_cell(value) for value in values), *levels))
    if not any(shift > 1e-9 for shift in shifts):
        return
    yield Paragraph(
        "A distance between finite samples is biased upward, and less so for a generator with less variety. "
        "Without that bias, with 95 % intervals over clips and reference tracks (with standard errors over "
        "training seeds where n is above 1):"
    )
    headers = (Column(f"{metric} {arrow(metric)}, corrected", is_numeric=False),)
    columns = (*headers, *_value_columns(view, floors))
    yield Table(
        f"{metric} per prompt, corrected for bias", columns, tuple(rows), n_fixed=2 if view.zero_shot else 1
    )


def _corrected_cell(value: CellValue) -> Cell:
    return number_cell(
        value.corrected, lambda corrected: add_interval(format_value(corrected), value.low, value.high)
    )


def _explain_floors(view: RunView, metric: str) -> Iterator[Block]:
    floors = view.floors(metric)
    meanings = {
        "real-vs-real": "real-vs-real is real music of the training tracks against the held-out references"
        + (", both after the codec" if metric.endswith(CODEC_MATCHED) else ""),
        "codec": "codec is the references themselves after encoding and decoding",
    }
    if floors:
        parts = [
            f"{meanings.get(floor.floor, floor.floor)}{_name_source(floor.source)}: {format_value(floor.value)} "
            f"({floor.n_generated or '?'} clips against {floor.n_reference or '?'})"
            for floor in floors
        ]
        yield Paragraph("Reference levels, the scores of real music: " + "; ".join(parts) + ".")
    for gap in view.results.unscored_floors:
        if gap.metric == metric:
            left_out = "One reference level is left out" if floors else "No reference level was measured"
            yield Paragraph(f"{left_out}{_name_source(gap.source)}: {gap.reason}.")


def _name_source(source: str | None) -> str:
    return f" on {source}" if source else ""


def _overview_table(view: RunView) -> Table:
    """Return all configurations over all prompts, one column per metric."""
    columns = (Column("configuration", is_numeric=False), *(Column(f"{m} {arrow(m)}") for m in view.metrics))
    rows = tuple(
        (
            Cell(_configuration_header(item)),
            *(score_cell(view.cell(item, m, None), item) for m in view.metrics),
        )
        for item in view.configurations
    )
    return Table("Every configuration over all prompts", columns, rows)
