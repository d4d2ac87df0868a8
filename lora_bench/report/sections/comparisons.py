"""Sections that say how far the scores can be trusted: comparisons, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lora_bench.report.formatting import (
    MISSING,
    clean_text,
    format_difference,
    format_interval,
    format_probability,
    join_words,
)
from lora_bench.report.sections.scores import prompt_cell, prompt_label
from lora_bench.report.view import NO_DIFFERENCE, RunView
from lora_bench.report.writers.document import Block, Bullets, Cell, Column, Heading, Paragraph, Table, Tone
from lora_bench.results.search_tally import describe_rest

MAX_ROWS = 240


def build_comparisons(view: RunView) -> Iterator[Block]:
    """Each trial against zero-shot, and against the baseline if there is one; then over training seeds."""
    compared, with_baseline = view.part("comparisons"), view.part("baseline_comparisons")
    if compared:
        yield Heading(2, "Comparisons with zero-shot", "comparisons")
        yield Paragraph(
            "Zero-shot and fine-tuned clips share prompts and noise, so differences are tested in pairs. The "
            "difference is fine-tuned less zero-shot, both corrected for the bias of finite samples. p (Holm) is "
            "corrected over prompts. A verdict of better or worse needs p (Holm) of at most 0.05 and an interval "
            f"on one side of zero; {NO_DIFFERENCE} is a result too."
        )
        yield from _build_table(view, "Fine-tuned against zero-shot", compared, with_partner=False)
        yield from _build_seeds(view, "comparisons_over_seeds")
    if with_baseline:
        yield Heading(2, "Comparisons with the baseline", "baseline-comparisons")
        yield Paragraph(
            "The same test between a configuration and the baseline that the spec names, both fine-tuned with the "
            "same training seed. The difference is the configuration less the baseline."
        )
        yield from _build_table(view, "Configurations against the baseline", with_baseline, with_partner=True)
        yield from _build_seeds(view, "baseline_comparisons_over_seeds")
    if compared or with_baseline:
        yield from _tell_methods([*compared, *with_baseline])


def _build_table(
    view: RunView, caption: str, compared: list[dict[str, Any]], *, with_partner: bool
) -> Iterator[Block]:
    shown, left_out = _choose_rows(compared)
    columns = (
        *(
            Column(name, is_numeric=False)
            for name in ("trial", *["against"] * with_partner, "metric", "prompt")
        ),
        *(Column(name) for name in ("difference", "95 % interval", "p", "p (Holm)", "pairs")),
        Column("verdict", is_numeric=False),
    )
    rows = tuple(_comparison_row(view, item, with_partner=with_partner) for item in shown)
    yield Table(caption, columns, rows, 3 + with_partner)
    if left_out:
        yield Paragraph(
            f"Shown are the rows over all prompts; {left_out:,} further rows are in results.json."
        )


def _build_seeds(view: RunView, part: str) -> Iterator[Block]:
    """Mean differences over training seeds, where there are several."""
    compared = view.part(part)
    if not compared:
        return
    shown, left_out = _choose_rows(compared)
    columns = (
        *(Column(name, is_numeric=False) for name in ("configuration", "against", "metric", "prompt")),
        *(Column(name) for name in ("mean difference", "95 % interval", "p", "p (Holm)", "seeds")),
        Column("verdict", is_numeric=False),
    )
    rows = tuple(
        (
            Cell(str(item["configuration"])),
            Cell(str(item["against"])),
            *_tested_cells(view, item, count="n_seeds"),
        )
        for item in shown
    )
    yield Paragraph(
        "Over training seeds: the mean difference; its interval holds the spread over seeds and the error that "
        "all seeds share (the same references and zero-shot clips)."
    )
    yield Table("Mean differences over training seeds", columns, rows, 4)
    if left_out:
        yield Paragraph(
            f"Shown are the rows over all prompts; {left_out:,} further rows are in results.json."
        )


def _tell_methods(compared: list[dict[str, Any]]) -> Iterator[Block]:
    """How differences were computed, by metric; what made the vectors stands under Provenance."""
    told: dict[tuple[str, ...], dict[str, None]] = {}
    for item in compared:
        about = item.get("provenance") or {}
        facts = [f"{key} {about[key]}" for key in ("distance", "interval", "test") if key in about]
        if facts:
            told.setdefault(tuple(facts), {})[str(item["metric"])] = None
    for facts, metrics in told.items():
        yield Paragraph(f"Differences on {join_words(list(metrics))}: {'; '.join(facts)}.")


def _choose_rows(compared: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """All rows, or those over all prompts where all would be too many to read."""
    if len(compared) <= MAX_ROWS:
        return compared, 0
    shown = [item for item in compared if item.get("prompt") is None][:MAX_ROWS]
    return shown, len(compared) - len(shown)


def _comparison_row(view: RunView, item: dict[str, Any], *, with_partner: bool) -> tuple[Cell, ...]:
    names = [str(item["trial"]), *[str(item.get("against"))] * with_partner]
    first = (Cell(view.names_of_trials.get(name, name)) for name in names)
    return (*first, *_tested_cells(view, item, count="n_pairs"))


def _tested_cells(view: RunView, item: dict[str, Any], *, count: str) -> tuple[Cell, ...]:
    """Metric, prompt, difference, interval, p-values, the number behind them, verdict."""
    low, high = item.get("ci_low"), item.get("ci_high")
    interval = MISSING if low is None or high is None else format_interval(low, high, signed=True)
    verdict = str(item.get("verdict") or MISSING)
    tones: dict[str, Tone] = {"better": "better", "worse": "worse"}
    delta = item.get("delta")
    return (
        Cell(str(item["metric"])),
        prompt_cell(view, item.get("prompt")),
        Cell(MISSING if delta is None else format_difference(delta), order=delta),
        Cell(interval, order=low),
        Cell(format_probability(item.get("p_value")), order=item.get("p_value")),
        Cell(format_probability(item.get("p_holm")), order=item.get("p_holm")),
        Cell(str(item.get(count) or MISSING), order=item.get(count)),
        Cell(verdict, tone=tones.get(verdict, "plain")),
    )


def build_missing(view: RunView) -> Iterator[Block]:
    """Trials that are not done, and cells without a score, with the reasons; nothing if all is there."""
    unfinished = [trial for trial in view.trials if trial["state"] != "done"]
    gaps = [(trial, gap) for trial in view.trials for gap in trial.get("unscored") or []]
    problems = [str(problem) for problem in view.results.get("problems") or []]
    rest = describe_rest(view.results.get("search"))
    if not unfinished and not gaps and not problems and not rest:
        return
    yield Heading(2, "What is missing", "missing")
    items = [f"{rest[0].upper()}{rest[1:]}"] if rest else []
    items += [
        f"{view.names_of_trials[t['id']]} ({t['state']}): {t.get('reason') or 'no reason given'}"
        for t in unfinished
    ]
    items += [f"damaged file: {problem}" for problem in problems]
    yield Bullets(tuple(items[:MAX_ROWS]))
    grouped: dict[tuple[str, str, str], list[str | None]] = {}
    for trial, gap in gaps:
        grouped.setdefault((trial["id"], gap["metric"], gap["reason"]), []).append(gap["prompt"])
    columns = tuple(Column(name, is_numeric=False) for name in ("trial", "metric", "prompts", "reason"))
    rows = tuple(
        (
            Cell(view.names_of_trials[trial_id]),
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
