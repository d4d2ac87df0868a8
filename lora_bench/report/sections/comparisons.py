"""Sections on comparisons between trials, and on what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from lora_bench.report.cells import (
    LEGEND,
    interval_cell,
    number_cell,
    number_columns,
    prompt_cell,
    prompt_label,
    text_columns,
    verdict_cell,
)
from lora_bench.report.formatting import (
    MISSING,
    clean_text,
    format_difference,
    format_probability,
    join_words,
)
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Block, Bullets, Cell, Heading, Paragraph, Table
from lora_bench.results.records import Comparison, SeedComparison
from lora_bench.results.search_tally import describe_rest

MAX_ROWS = 240
Tested = TypeVar("Tested", Comparison, SeedComparison)


def build_comparisons(view: RunView) -> Iterator[Block]:
    """Yield each trial against zero-shot and against the baseline, if there is one; then over training seeds."""
    results = view.results
    if results.comparisons:
        yield Heading(2, "Comparisons with zero-shot", "comparisons")
        yield Paragraph(
            "Zero-shot and fine-tuned clips share prompts and noise, so differences are tested in pairs. The "
            "difference is fine-tuned less zero-shot, both corrected for the bias of finite samples. p (Holm) is "
            "corrected over prompts. A verdict of better or worse needs p (Holm) of at most 0.05 and an interval "
            f"on one side of zero; {LEGEND}."
        )
        yield from _build_table(view, "Fine-tuned against zero-shot", results.comparisons, with_partner=False)
        yield from _build_seeds(view, results.comparisons_over_seeds)
    if results.baseline_comparisons:
        yield Heading(2, "Comparisons with the baseline", "baseline-comparisons")
        yield Paragraph(
            "The same test between a configuration and the baseline that the spec names, both fine-tuned with the "
            "same training seed. The difference is the configuration less the baseline."
        )
        title = "Configurations against the baseline"
        yield from _build_table(view, title, results.baseline_comparisons, with_partner=True)
        yield from _build_seeds(view, results.baseline_comparisons_over_seeds)
    yield from _describe_methods([*results.comparisons, *results.baseline_comparisons])


def _build_table(
    view: RunView, caption: str, compared: Sequence[Comparison], *, with_partner: bool
) -> Iterator[Block]:
    shown, left_out = _choose_rows(compared)
    columns = (
        *text_columns("trial", *["against"] * with_partner, "metric", "prompt"),
        *number_columns("difference", "95 % interval", "p", "p (Holm)", "pairs"),
        *text_columns("verdict"),
    )
    rows = tuple(
        (
            *(Cell(view.name_trial(name)) for name in (item.trial, *[item.against] * with_partner)),
            *_tested_cells(view, item, item.n_pairs),
        )
        for item in shown
    )
    yield Table(caption, columns, rows, 3 + with_partner)
    yield from left_out


def _build_seeds(view: RunView, compared: Sequence[SeedComparison]) -> Iterator[Block]:
    """Yield mean differences over training seeds, where there are several."""
    if not compared:
        return
    shown, left_out = _choose_rows(compared)
    columns = (
        *text_columns("configuration", "against", "metric", "prompt"),
        *number_columns("mean difference", "95 % interval", "p", "p (Holm)", "seeds"),
        *text_columns("verdict"),
    )
    rows = tuple(
        (Cell(item.configuration), Cell(item.against), *_tested_cells(view, item, item.n_seeds))
        for item in shown
    )
    yield Paragraph(
        "Over training seeds: the mean difference; its interval holds the spread over seeds and the error that "
        "all seeds share (the same references and zero-shot clips)."
    )
    yield Table("Mean differences over training seeds", columns, rows, 4)
    yield from left_out


def _describe_methods(compared: Sequence[Comparison]) -> Iterator[Block]:
    """Yield how differences were computed, by metric; the encoders stand under Provenance."""
    methods: dict[tuple[str, ...], dict[str, None]] = {}
    for item in compared:
        keys = [key for key in ("distance", "interval", "test") if key in item.provenance]
        facts = tuple(f"{key} {item.provenance[key]}" for key in keys)
        if facts:
            methods.setdefault(facts, {})[item.metric] = None
    for facts, metrics in methods.items():
        yield Paragraph(f"Differences on {join_words(list(metrics))}: {'; '.join(facts)}.")


def _choose_rows(compared: Sequence[Tested]) -> tuple[Sequence[Tested], list[Block]]:
    """Return all rows, or those over all prompts where all would be too many to read, and a note that says so."""
    if len(compared) <= MAX_ROWS:
        return compared, []
    shown = [item for item in compared if item.prompt is None][:MAX_ROWS]
    left_out = len(compared) - len(shown)
    return shown, [
        Paragraph(f"Shown are the rows over all prompts; {left_out:,} further rows are in results.json.")
    ]


def _tested_cells(view: RunView, item: Comparison | SeedComparison, count: int | None) -> tuple[Cell, ...]:
    """Return metric, prompt, difference, interval, p-values, the number behind them, and the verdict."""
    return (
        Cell(item.metric),
        prompt_cell(view, item.prompt),
        number_cell(item.delta, format_difference),
        interval_cell(item.ci_low, item.ci_high),
        Cell(format_probability(item.p_value), order=item.p_value),
        Cell(format_probability(item.p_holm), order=item.p_holm),
        Cell(str(count or MISSING), order=count),
        verdict_cell(item.verdict),
    )


def build_missing(view: RunView) -> Iterator[Block]:
    """Yield trials that are not done and cells without a score, with the reasons; nothing if none is missing."""
    unfinished = [trial for trial in view.trials if trial.state != "done"]
    gaps = [(trial.id, gap) for trial in view.trials for gap in trial.unscored]
    rest = describe_rest(view.results.search)
    if not unfinished and not gaps and not view.results.problems and not rest:
        return
    yield Heading(2, "What is missing", "missing")
    items = [f"{rest[0].upper()}{rest[1:]}"] if rest else []
    items += [
        f"{view.name_trial(trial.id)} ({trial.state}): {trial.reason or 'no reason given'}"
        for trial in unfinished
    ]
    items += [f"damaged file: {problem}" for problem in view.results.problems]
    yield Bullets(tuple(items[:MAX_ROWS]))
    grouped: dict[tuple[str, str, str], list[str | None]] = {}
    for trial_id, gap in gaps:
        grouped.setdefault((trial_id, gap.metric, gap.reason), []).append(gap.prompt)
    columns = text_columns("trial", "metric", "prompts", "reason")
    rows = tuple(
        (
            Cell(view.name_trial(trial_id)),
            Cell(metric),
            Cell(_name_prompts(view, prompts)),
            Cell(clean_text(reason)),
        )
        for (trial_id, metric, reason), prompts in list(grouped.items())[:MAX_ROWS]
    )
    if rows:
        yield Table("Cells without a score", columns, rows)
    if len(grouped) > MAX_ROWS:
        yield Paragraph(f"{len(grouped) - MAX_ROWS:,} further rows are in results.csv.")


def _name_prompts(view: RunView, prompts: list[str | None]) -> str:
    if len(prompts) == len(view.prompts) + 1:
        return "every prompt, and all prompts together"
    labels = [prompt_label(view, prompt) for prompt in prompts[:3]]
    return "; ".join(labels) + (f" and {len(prompts) - 3} more" if len(prompts) > 3 else "")
