"""Scores and differences of one metric: prompts as rows, zero-shot and LoRA configurations as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lora_bench.metrics.names import CODEC_MATCHED, is_higher_better
from lora_bench.report.cells import (
    DESCRIPTIVE,
    THIS_ADAPTER,
    interval_cell,
    number_cell,
    number_columns,
    prompt_cell,
    text_columns,
    verdict_cell,
)
from lora_bench.report.formatting import (
    MISSING,
    clean_text,
    format_difference,
    format_interval,
    format_value,
    format_with_error,
    round_to_error,
)
from lora_bench.report.metric_words import describe_metric
from lora_bench.report.plots.scores import draw_scores
from lora_bench.report.view import CellValue, Configuration, RunView, arrow, name_floor
from lora_bench.report.writers.document import Block, Bullets, Cell, Column, Fold, Paragraph, Strong, Table
from lora_bench.results.records import Contrast, Floor

MAX_DIRECT_CONFIGURATIONS = 6
MAX_ROWS = 240
MAX_NOTES = 4
SEE_DETAILS = "; as other tools compute it: see Details"
ESTIMATES = {True: "corrected for the bias of finite samples", False: "as other tools compute it"}


def build_metric_folds(view: RunView) -> Iterator[Fold]:
    """Yield a part per metric, the primary one first."""
    ordered = sorted(view.metrics, key=lambda name: name != view.primary_metric)
    for index, metric in enumerate(ordered, start=1):
        role = ", primary" if metric == view.primary_metric else ", descriptive"
        yield Fold(
            f"{metric} {arrow(metric)}{role}", f"metric-{index}", tuple(_build_metric(view, metric, index))
        )


def _build_metric(view: RunView, metric: str, index: int) -> Iterator[Block]:
    direction = "higher is better" if is_higher_better(metric) else "lower is better"
    about = describe_metric(metric)
    yield Paragraph(f"{about[0].upper()}{about[1:]}; {direction}." if about else f"{direction.capitalize()}.")
    yield metric_table(view, metric)
    yield from _list_notes(view, metric)
    yield from _explain_floors(view, metric)
    figure = None if metric == view.primary_metric else draw_scores(view, metric, f"scores-{index}")
    if figure is not None:  # that of the primary metric is among the first figures
        yield figure
    yield from _difference_table(view, metric)


def metric_table(view: RunView, metric: str, *, is_corrected: bool = False) -> Table:
    """Return values: prompts as rows; zero-shot, LoRA configurations and reference levels as columns.

    Args:
        view: the run.
        metric: the metric.
        is_corrected: show values without the bias of finite samples, which do not depend on the number of clips; else
            as other tools compute them.
    """
    floors = view.floors(metric) if is_corrected else _comparable_floors(view, metric)
    columns = [
        Column(f"{metric} {arrow(metric)}", is_numeric=False),
        *(Column(item.name) for item in view.configurations),
        *(Column(f"reference: {name_floor(floor)}") for floor in floors),
    ]
    rows: list[tuple[Cell, ...]] = []
    for prompt in (*view.prompts, None):
        cells = [
            score_cell(view.cell(item, metric, prompt), item, is_corrected=is_corrected)
            for item in view.configurations
        ]
        levels = [_floor_cell(view, floor, prompt, is_corrected=is_corrected) for floor in floors]
        rows.append((prompt_cell(view, prompt), *cells, *levels))
    direction = "higher" if is_higher_better(metric) else "lower"
    # a mean over clips has no bias to correct, and no other tool's form
    estimate = "mean over clips" if is_higher_better(metric) else ESTIMATES[is_corrected]
    caption = f"{metric} per prompt, {estimate}; {direction} is better"
    if is_corrected and not is_higher_better(metric):
        caption += f"; below 0 is 0 within its error{SEE_DETAILS}"
    return Table(caption, tuple(columns), tuple(rows), n_fixed=2 if view.zero_shot else 1)


def _comparable_floors(view: RunView, metric: str) -> list[Floor]:
    """Return reference levels that were measured with about as many clips as some row has."""
    prompts = (*view.prompts, None)
    return [
        floor
        for floor in view.floors(metric)
        if any(_is_comparable(view, floor, prompt) for prompt in prompts)
    ]


def _is_comparable(view: RunView, floor: Floor, prompt: str | None) -> bool:
    """Return whether a level has within 10 % as many clips as a row: a distance depends on their number."""
    n = floor.n_generated or 0
    return any(abs(n - count) <= 0.1 * count for count in view.clip_counts(floor.metric, prompt))


def score_cell(value: CellValue, configuration: Configuration, *, is_corrected: bool = False) -> Cell:
    """Return a value, with its error as the hint; or a dash, with the reason why there is none."""
    shown = value.corrected if is_corrected else value.value
    if value.value is None or shown is None:
        return Cell(f"{MISSING} ({value.state})", hint="; ".join(value.reasons) or None, tone="missing")
    hints = [format_with_error(shown, value.spread)] if value.spread is not None else []
    if value.over is not None:
        hints.append(
            f"standard error over {'clips and tracks' if value.over == 'clips' else 'training seeds'}"
        )
    if configuration.is_existing:
        hints.append(THIS_ADAPTER)
    elif configuration.n_seeds:
        hints.append(f"{value.n_seeds} of {configuration.n_seeds} training seeds")
    if value.corrected is not None and value.over == "clips":
        interval = format_interval(value.low, value.high)
        hints.append(f"{ESTIMATES[True]} {round_to_error(value.corrected, value.spread)}, {interval}")
    if is_corrected:
        hints.append(f"{ESTIMATES[False]} {format_value(value.value)}")
    return Cell(
        round_to_error(shown, value.spread), order=shown, hint="; ".join([*hints, *value.reasons]) or None
    )


def _floor_cell(view: RunView, floor: Floor, prompt: str | None, *, is_corrected: bool) -> Cell:
    """Return a reference level; one with its bias only for the rows with about as many clips."""
    if not is_corrected and not _is_comparable(view, floor, prompt):
        return Cell("")
    value = floor.best_value if is_corrected else floor.value
    return Cell(round_to_error(value, floor.se), order=value, hint=format_with_error(value, floor.se))


def _list_notes(view: RunView, metric: str) -> Iterator[Block]:
    notes = list(dict.fromkeys(clean_text(score.note) for score in view.scores_on(metric) if score.note))
    if notes:
        more = [f"{len(notes) - MAX_NOTES} more notes are in results.json"] * (len(notes) > MAX_NOTES)
        yield Bullets((*notes[:MAX_NOTES], *more))


def _explain_floors(view: RunView, metric: str) -> Iterator[Block]:
    floors = view.floors(metric)
    matched = metric.endswith(CODEC_MATCHED)
    meanings = {
        "real-vs-real": "real-vs-real is real music of the training tracks against the held-out references"
        + (", both after the codec" if matched else ""),
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


def _difference_table(view: RunView, metric: str) -> Iterator[Block]:
    """Yield every configuration against zero-shot, and against the baseline, if there is one."""
    for kind, title in (("zero-shot", "less zero-shot"), ("baseline", "less the baseline")):
        found = [item for item in view.results.contrasts if item.kind == kind and item.metric == metric]
        if found:
            yield _write_differences(view, f"{metric}: each configuration {title}", found)


def _write_differences(view: RunView, caption: str, contrasts: Sequence[Contrast]) -> Table:
    shown = contrasts
    if len(contrasts) > MAX_ROWS:
        shown = [item for item in contrasts if item.prompt is None][:MAX_ROWS]
        caption += f" (the {len(contrasts) - len(shown):,} further rows are in results.json)"
    against = dict.fromkeys(item.against for item in contrasts)
    columns = (
        *text_columns("configuration", *["against"] * (len(against) > 1), "prompt"),
        *number_columns("difference", "95 % interval", "detectable", "seeds"),
        *text_columns("verdict"),
    )
    rows = tuple(
        (
            Cell(item.configuration),
            *[Cell(item.against)] * (len(against) > 1),
            prompt_cell(view, item.prompt),
            number_cell(item.delta, lambda value, se=item.se: format_difference(value, error=se)),
            interval_cell(item.ci_low, item.ci_high),
            number_cell(item.detectable, lambda value: format_value(value, digits=3)),
            Cell(_count_seeds(view, item), order=item.n_seeds),
            verdict_cell(item.verdict or (None if item.primary else DESCRIPTIVE)),
        )
        for item in shown
    )
    return Table(caption, columns, rows, n_fixed=2)


def _count_seeds(view: RunView, contrast: Contrast) -> str:
    """Return over how many trainings a difference is; of another system, those that it is compared with."""
    if any(item.name == contrast.configuration and item.is_existing for item in view.fine_tuned):
        return THIS_ADAPTER
    if all(item.name != contrast.configuration for item in view.systems):
        return str(contrast.n_seeds)
    other = next((item for item in view.fine_tuned if item.name == contrast.against), None)
    if other is None:
        return MISSING
    return THIS_ADAPTER if other.is_existing else f"{contrast.n_seeds} of {other.name}"


def build_long_prompts(view: RunView) -> Iterator[Fold]:
    """Yield prompts that tables shorten, in full."""
    if view.long_prompts:
        yield Fold(
            "Prompts in full",
            "prompts-in-full",
            (
                Bullets(
                    tuple(
                        (Strong(mark), ": " + clean_text(prompt))
                        for prompt, mark in view.long_prompts.items()
                    )
                ),
            ),
        )


def overview_table(view: RunView) -> Table:
    """Return all configurations over the genre's prompts, one column per metric."""
    corrected = {metric: view.is_corrected(metric) for metric in view.metrics}
    columns = (Column("configuration", is_numeric=False), *(Column(f"{m} {arrow(m)}") for m in view.metrics))
    rows = tuple(
        (
            Cell(item.name),
            *(
                score_cell(view.cell(item, m, None), item, is_corrected=known)
                for m, known in corrected.items()
            ),
        )
        for item in view.configurations
    )
    names = [metric for metric, known in corrected.items() if known]
    estimate = f"; {ESTIMATES[True]}: {', '.join(names)}" if names else ""
    return Table(f"Every configuration over {view.pooled}{estimate}", columns, rows)
