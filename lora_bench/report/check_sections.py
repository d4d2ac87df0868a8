"""Sections that say how far the scores can be trusted: comparisons, guards, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lora_bench.report.document import Block, Bullets, Cell, Column, Heading, Paragraph, Table, Tone
from lora_bench.report.formatting import (
    MISSING,
    clean_text,
    format_difference,
    format_interval,
    format_probability,
    format_value,
)
from lora_bench.report.score_sections import prompt_cell, prompt_label
from lora_bench.report.view import NO_DIFFERENCE, RunView

MAX_ROWS = 240


def build_comparisons(view: RunView) -> Iterator[Block]:
    """Each trial against zero-shot: difference, interval, p-values, verdict."""
    compared = view.part("comparisons")
    if not compared:
        return
    yield Heading(2, "Comparisons with zero-shot", "comparisons")
    yield Paragraph(
        "Zero-shot and fine-tuned clips share prompts and noise, so differences are tested in pairs. The "
        "difference is fine-tuned less zero-shot, both corrected for the bias of finite samples. p (Holm) is "
        "corrected over prompts. A verdict of better or worse needs p (Holm) of at most 0.05 and an interval "
        f"on one side of zero; {NO_DIFFERENCE} is a result too."
    )
    shown, left_out = _choose_rows(compared)
    headers = ("difference", "95 % interval", "p", "p (Holm)", "pairs")
    columns = (
        *(Column(name, is_numeric=False) for name in ("trial", "metric", "prompt")),
        *(Column(name) for name in headers),
        Column("verdict", is_numeric=False),
    )
    yield Table(
        "Fine-tuned against zero-shot", columns, tuple(_comparison_row(view, item) for item in shown), 3
    )
    if left_out:
        yield Paragraph(f"Shown are the rows over all prompts; {left_out:,} further rows are in results.csv.")


def _choose_rows(compared: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """All rows, or those over all prompts where all would be too many to read."""
    if len(compared) <= MAX_ROWS:
        return compared, 0
    shown = [item for item in compared if item.get("prompt") is None][:MAX_ROWS]
    return shown, len(compared) - len(shown)


def _comparison_row(view: RunView, item: dict[str, Any]) -> tuple[Cell, ...]:
    low, high = item.get("ci_low"), item.get("ci_high")
    interval = MISSING if low is None or high is None else format_interval(low, high, signed=True)
    verdict = str(item.get("verdict") or MISSING)
    tones: dict[str, Tone] = {"better": "better", "worse": "worse"}
    delta = item.get("delta")
    return (
        Cell(view.names_of_trials.get(str(item["trial"]), str(item["trial"]))),
        Cell(str(item["metric"])),
        prompt_cell(view, item.get("prompt")),
        Cell(MISSING if delta is None else format_difference(delta), order=delta),
        Cell(interval, order=low),
        Cell(format_probability(item.get("p_value")), order=item.get("p_value")),
        Cell(format_probability(item.get("p_holm")), order=item.get("p_holm")),
        Cell(str(item.get("n_pairs") or MISSING), order=item.get("n_pairs")),
        Cell(verdict, tone=tones.get(verdict, "plain")),
    )


def build_guards(view: RunView) -> Iterator[Block]:
    """Measures that tell a good score from a cheap one: diversity, silence, repetition, memorisation."""
    guards = view.part("guards")
    if not guards:
        return
    yield Heading(2, "Guards", "guards")
    yield Paragraph(
        "A distance alone can be improved by playing safe or by copying, so these figures stand beside it."
    )
    flat = [
        {key: value for key, value in guard.items() if not isinstance(value, dict | list)} for guard in guards
    ]
    keys = list(dict.fromkeys(key for guard in flat for key in guard))
    columns = tuple(Column(key.replace("_", " "), _is_numeric(flat, key)) for key in keys)
    rows = tuple(
        tuple(_guard_cell(view, key, guard.get(key), key in guard) for key in keys)
        for guard in flat[:MAX_ROWS]
    )
    yield Table("Guards", columns, rows, n_fixed=1)
    if len(flat) > MAX_ROWS:
        yield Paragraph(f"{len(flat) - MAX_ROWS:,} further rows are in results.json.")


def _is_numeric(records: list[dict[str, Any]], key: str) -> bool:
    values = [record[key] for record in records if record.get(key) is not None]
    return bool(values) and all(isinstance(value, int | float) for value in values)


def _guard_cell(view: RunView, key: str, value: Any, is_there: bool) -> Cell:
    if key == "prompt" and is_there:
        return prompt_cell(view, value)
    if value is None:
        return Cell(MISSING, tone="missing")
    if key == "trial":
        return Cell(view.names_of_trials.get(value, str(value)))
    if isinstance(value, float):
        return Cell(format_value(value), order=value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Cell(f"{value:,}", order=float(value))
    return Cell(clean_text(str(value)))


def build_missing(view: RunView) -> Iterator[Block]:
    """Trials that are not done, and cells without a score, with the reasons; nothing if all is there."""
    unfinished = [trial for trial in view.trials if trial["state"] != "done"]
    gaps = [(trial, gap) for trial in view.trials for gap in trial.get("unscored") or []]
    problems = [str(problem) for problem in view.results.get("problems") or []]
    if not unfinished and not gaps and not problems:
        return
    yield Heading(2, "What is missing", "missing")
    items = [
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
