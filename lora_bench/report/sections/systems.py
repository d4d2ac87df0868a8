"""The section about other systems: where their clips come from, and what was done to them."""

from __future__ import annotations

from collections.abc import Iterator

from lora_bench.report.cells import text_columns
from lora_bench.report.formatting import MISSING, clean_text, shorten
from lora_bench.report.view import Configuration, RunView
from lora_bench.report.writers.document import Block, Cell, Heading, Paragraph, Table
from lora_bench.results.external import ExternalRecord
from lora_bench.results.trial_states import name_state

MAX_NAMED = 3


def build_systems(view: RunView) -> Iterator[Block]:
    """Yield a row per system; nothing where the run has none."""
    if not view.systems:
        return
    yield Heading(2, "Other systems", "systems")
    yield Paragraph(
        "Their clips were brought to the format of the recordings and scored like those of the model; for metrics with "
        "@codec they passed through its codec first, as the recordings did. What the systems were trained on, how long "
        "they took and how large they are is not known here."
    )
    columns = text_columns("system", "clips from", "clips per prompt", "what was done to the files", "state")
    rows = tuple(_make_row(item, item.external) for item in view.systems if item.external is not None)
    yield Table("Other systems", columns, rows)


def _make_row(item: Configuration, external: ExternalRecord) -> tuple[Cell, ...]:
    trial = item.trials[0]
    return (
        Cell(" = ".join([item.name, *trial.aliases])),
        Cell(clean_text(external.label)),
        Cell(_count_clips(external)),
        Cell(clean_text("; ".join(external.notes)) or MISSING),
        Cell(name_state(trial.state), tone="plain" if trial.state == "done" else "missing"),
    )


def _count_clips(external: ExternalRecord) -> str:
    counts = set(external.n_clips.values())
    if not counts:
        return MISSING
    shown = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{shown} of {external.n_planned}" if external.lacking else shown


def describe_partial(view: RunView) -> list[str]:
    """Return a sentence for each system with fewer clips than asked for."""
    told: list[str] = []
    for item in view.systems:
        external = item.external
        if external is None or not external.lacking:
            continue
        named = [
            f"{n} for {shorten(clean_text(prompt))}"
            for prompt, n in list(external.lacking.items())[:MAX_NAMED]
        ]
        more = (
            f" and {len(external.lacking) - MAX_NAMED} more prompts"
            if len(external.lacking) > MAX_NAMED
            else ""
        )
        told.append(
            f"{item.name} is partial: of {external.n_planned} clips per prompt there are {', '.join(named)}{more}."
        )
    return told
