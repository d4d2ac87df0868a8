"""The score tables: one per metric, prompts as rows, zero-shot and LoRA configurations as columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lora_bench.report.formatting import (
    MISSING,
    clean_text,
    format_interval,
    format_value,
    format_with_error,
    shorten,
)
from lora_bench.report.metric_words import describe_metric
from lora_bench.report.plots.scores import draw_scores
from lora_bench.report.view import (
    CellValue,
    Configuration,
    RunView,
    arrow,
    is_higher_better,
    name_floor,
)
from lora_bench.report.writers.document import (
    Block,
    Bullets,
    Cell,
    Column,
    Heading,
    Paragraph,
    Strong,
    Table,
    Tone,
)

ALL_PROMPTS = "all prompts"
MAX_DIRECT_CONFIGURATIONS = 6
MAX_NOTES = 4


def build_score_sections(view: RunView) -> Iterator[Block]:
    """The tables of the seed's form, with floors, words and plots."""
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


def prompt_label(view: RunView, prompt: str | None) -> str:
    """How tables name a prompt: short, with a mark where the full text stands elsewhere."""
    if prompt is None:
        return ALL_PROMPTS
    mark = view.long_prompts.get(prompt)
    return shorten(prompt) if mark is None else f"[{mark}] {shorten(prompt)}"


def prompt_cell(view: RunView, prompt: str | None) -> Cell:
    """A row's first cell."""
    label = prompt_label(view, prompt)
    is_short = prompt is not None and prompt in view.long_prompts
    return Cell(
        (Strong(label),) if prompt is None else label, hint=clean_text(prompt or "") if is_short else None
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
    """Prompts as rows, zero-shot, LoRA configurations and floors as columns."""
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


def _comparable_floors(view: RunView, metric: str) -> list[dict[str, Any]]:
    """Floors that were measured with as many clips as some row has."""
    counts = {n for prompt in (*view.prompts, None) for n in view.clip_counts(metric, prompt)}
    return [floor for floor in view.floors(metric) if floor.get("n_generated") in counts]


def _value_columns(view: RunView, floors: list[dict[str, Any]]) -> list[Column]:
    columns = [Column(_configuration_header(item)) for item in view.configurations]
    return columns + [Column(f"floor: {name_floor(floor)}") for floor in floors]


def _configuration_header(configuration: Configuration) -> str:
    return (
        configuration.name
        if configuration.is_zero_shot
        else f"{configuration.name} (n={configuration.n_seeds})"
    )


def score_cell(value: CellValue, configuration: Configuration) -> Cell:
    """A value with its standard error and verdict, or the word why there is none."""
    if value.value is None:
        return Cell(f"{MISSING} ({value.state})", hint="; ".join(value.reasons) or None, tone="missing")
    text = format_with_error(value.value, value.spread)
    if configuration.n_seeds > 1:
        text += f"\u00a0(n={value.n_seeds})"
    if value.verdict:
        text += f", {value.verdict}"
    tones: dict[str | None, Tone] = {"better": "better", "worse": "worse"}
    return Cell(
        text, order=value.value, tone=tones.get(value.verdict, "plain"), hint="; ".join(value.reasons) or None
    )


def _floor_cell(view: RunView, floor: dict[str, Any], prompt: str | None, *, corrected: bool = False) -> Cell:
    """A floor beside the rows that have as many clips; a distance depends on their number."""
    value = floor.get("corrected" if corrected else "value")
    if value is None or floor.get("n_generated") not in view.clip_counts(str(floor["metric"]), prompt):
        return Cell("")
    return Cell(format_with_error(value, None if corrected else floor.get("se")), order=float(value))


def _explain_spread(view: RunView, metric: str) -> str:
    """What stands behind a ±, an `n=` and the absence of either."""
    cells = [
        view.cell(item, metric, prompt) for item in view.configurations for prompt in (*view.prompts, None)
    ]
    over = {cell.over for cell in cells if cell.value is not None}
    said: list[str] = []
    if "clips" in over:
        said.append("± after a single trial is its standard error over clips.")
    if "seeds" in over:
        said.append("± with (n=...) is the standard error over n training seeds.")
    if any(item.n_seeds for item in view.configurations):
        said.append(
            "n is the number of training seeds; with n=1 nothing is known of the spread over training runs."
        )
    if not over - {None}:
        said.append("No standard error was computed for these values.")
    if any(cell.verdict for cell in cells):
        said.append("The words after a value are the verdict against zero-shot (see the comparisons).")
    else:
        said.append("Differences between columns were not tested on this metric.")
    if len(view.prompts) > 1 and view.clip_counts(metric, None) - view.clip_counts(metric, view.prompts[0]):
        said.append(
            "The last row pools all clips; a distance shrinks with more clips, so compare within rows."
        )
    return " ".join(said)


def _list_notes(view: RunView, metric: str) -> Iterator[Block]:
    """What whoever computed the scores wants a reader to mind."""
    scores = [score for trial in view.trials for score in trial["scores"] if score["metric"] == metric]
    notes = list(dict.fromkeys(clean_text(str(score["note"])) for score in scores if score.get("note")))
    if notes:
        yield Paragraph("To be minded:")
        yield Bullets(tuple(notes[:MAX_NOTES]))
    if len(notes) > MAX_NOTES:
        yield Paragraph(f"... and {len(notes) - MAX_NOTES} more notes in results.json.")


def _corrected_table(view: RunView, metric: str) -> Iterator[Block]:
    """The same cells without the bias of finite samples; left out where there is no such bias."""
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
        beside = [_floor_cell(view, floor, prompt, corrected=True) for floor in floors]
        rows.append((prompt_cell(view, prompt), *(_corrected_cell(value) for value in values), *beside))
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
    if value.corrected is None:
        return Cell(MISSING, tone="missing")
    text = format_value(value.corrected)
    if value.low is not None and value.high is not None:
        text += f" ({format_interval(value.low, value.high)})"
    return Cell(text, order=value.corrected)


def _explain_floors(view: RunView, metric: str) -> Iterator[Block]:
    floors = view.floors(metric)
    meanings = {
        "real-vs-real": "real-vs-real is real music of the training tracks against the held-out references",
        "codec": "codec is the references themselves after encoding and decoding",
    }
    if floors:
        parts = [
            f"{meanings.get(str(floor['floor']), str(floor['floor']))}{_name_source(floor)}: "
            f"{format_value(floor['value'])} "
            f"({floor.get('n_generated', '?')} clips against {floor.get('n_reference', '?')})"
            for floor in floors
        ]
        yield Paragraph("Floors, what a perfect generator would score: " + "; ".join(parts) + ".")
    for gap in view.results.get("unscored_floors") or []:
        if gap.get("metric") == metric:
            yield Paragraph(f"No floor was measured{_name_source(gap)}: {gap.get('reason')}.")


def _name_source(floor: dict[str, Any]) -> str:
    return f" on {floor['source']}" if floor.get("source") else ""


def _overview_table(view: RunView) -> Table:
    """All configurations over all prompts, one column per metric."""
    columns = (Column("configuration", is_numeric=False), *(Column(f"{m} {arrow(m)}") for m in view.metrics))
    rows = tuple(
        (
            Cell(_configuration_header(item)),
            *(score_cell(view.cell(item, m, None), item) for m in view.metrics),
        )
        for item in view.configurations
    )
    return Table("Every configuration over all prompts", columns, rows)
