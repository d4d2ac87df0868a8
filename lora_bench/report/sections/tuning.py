"""What `tune` tried and chose before the comparison: the first of two steps."""

from __future__ import annotations

from collections.abc import Iterator

from lora_bench.report.cells import number_cell, number_columns, text_columns
from lora_bench.report.formatting import clean_text, count_noun, join_words
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Block, Cell, Heading, Paragraph, Strong, Table
from lora_bench.results.records import Settings
from lora_bench.results.run_records import TunedConfiguration, Tuning
from lora_bench.results.trial_states import name_state
from lora_bench.spec.grid import show_value


def describe_tuning(tuning: Tuning, n_seeds: int) -> str:
    """Return both steps in a sentence."""
    fields = join_words(list(dict.fromkeys(_list_fields(tuning))))
    counts = sorted({sum(each.value is not None for each in item.attempts) for item in tuning.configurations})
    among = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    judged = (
        "the held-out loss on" if tuning.metric is None else f"{clean_text(tuning.metric)} of clips against"
    )
    return (
        f"Step 1: {fields} of each configuration chosen from {among} by {judged} the selection tracks, "
        f"one training each (seed {tuning.train_seed}). Step 2: trained again with {count_noun(n_seeds, 'seed')} and "
        "scored on tracks that step 1 did not see."
    )


def list_values(tuning: Tuning) -> str:
    """Return the values that were tried, each once."""
    tried = (_show(attempt.values) for item in tuning.configurations for attempt in item.attempts)
    return clean_text("; ".join(dict.fromkeys(tried)))


def _list_fields(tuning: Tuning) -> Iterator[str]:
    for item in tuning.configurations:
        for attempt in item.attempts:
            yield from attempt.values


def build_tuning(view: RunView) -> Iterator[Block]:
    """Yield every attempt with its loss, and what was chosen; nothing where nothing was tuned."""
    tuning = view.results.tuning
    if tuning is None:
        return
    yield Heading(2, "Tuning before the comparison", "tuning")
    n_seeds = max((item.n_seeds for item in view.fine_tuned), default=0)
    yield Paragraph(describe_tuning(tuning, n_seeds))
    columns = (
        *text_columns("configuration", "values"),
        *number_columns(tuning.metric or "held-out loss"),
        *text_columns("outcome"),
    )
    rows = tuple(row for item in tuning.configurations for row in _list_rows(item))
    figures = "losses in nats per code on" if tuning.metric is None else "scores of clips against"
    yield Table(f"Attempts of step 1; {figures} the selection tracks", columns, rows)
    edges = [clean_text(item.configuration) for item in tuning.configurations if _is_at_edge(item)]
    if edges:
        yield Paragraph(
            f"Chosen at the end of the values that were tried: {', '.join(edges)}. A wider range could be better."
        )


def _list_rows(item: TunedConfiguration) -> Iterator[tuple[Cell, ...]]:
    for attempt in item.attempts:
        is_chosen = item.chosen is not None and attempt.values == item.chosen
        outcome = (
            "chosen"
            if is_chosen
            else clean_text(attempt.reason or name_state(attempt.state))
            if attempt.value is None
            else ""
        )
        yield (
            Cell(clean_text(item.configuration)),
            Cell(clean_text(_show(attempt.values))),
            number_cell(attempt.value, "{:.4f}".format),
            Cell((Strong(outcome),)) if is_chosen else Cell(outcome, tone="missing" if outcome else "plain"),
        )


def _show(values: Settings) -> str:
    return ", ".join(f"{name} {show_value(value)}" for name, value in values.items())


def _is_at_edge(item: TunedConfiguration) -> bool:
    """Return whether a number was chosen that is the smallest or the largest of its field."""
    for name, value in (item.chosen or {}).items():
        tried = [attempt.values.get(name) for attempt in item.attempts]
        numbers = [each for each in tried if isinstance(each, int | float) and not isinstance(each, bool)]
        if len(numbers) == len(tried) and len(set(numbers)) > 1 and value in {min(numbers), max(numbers)}:
            return True
    return False
