"""Sections about the adapters: their settings, how training went, and what everything cost."""

from __future__ import annotations

from collections.abc import Iterator

from lora_bench.report.cells import number_cell, number_columns, text_columns
from lora_bench.report.formatting import clean_text, format_count, format_duration, write_setting
from lora_bench.report.view import Configuration, RunView
from lora_bench.report.writers.document import Block, Cell, Heading, Paragraph, Table
from lora_bench.results.records import Settings
from lora_bench.results.trial_states import name_state
from lora_bench.spec.budgets import format_budgeted


def build_adapters(view: RunView) -> Iterator[Block]:
    """Yield LoRA settings, matched modules and trainable parameters of every configuration."""
    if not view.fine_tuned:
        return
    yield Heading(2, "LoRA configurations", "lora")
    kinds = view.adapter_kinds
    columns = (
        *text_columns("configuration", *["kind"] * bool(kinds)),
        *number_columns("rank", "alpha"),
        *text_columns("targets"),
        *number_columns("dropout"),
        *text_columns("matched modules"),
        *number_columns("trainable parameters"),
        *text_columns("changed from the defaults", "seeds", "state"),
    )
    rows = tuple(_adapter_row(item, kinds.get(item.name)) for item in view.fine_tuned)
    yield Table("LoRA configurations", columns, rows)


def _adapter_row(item: Configuration, kind: str | None) -> tuple[Cell, ...]:
    first = next((trial for trial in item.trials if trial.matched_modules), item.trials[0])
    lora = first.lora or {}
    states = list(dict.fromkeys(name_state(trial.state) for trial in item.trials))
    return (
        Cell(" = ".join([item.name, *first.aliases])),
        *([] if kind is None else [Cell(kind)]),
        _setting_cell(lora, "block_size" if lora.get("kind") == "oft" else "rank"),
        _setting_cell(lora, "alpha"),
        Cell(write_setting(lora.get("targets"))),
        _setting_cell(lora, "dropout"),
        Cell(write_setting(first.matched_modules or None)),
        Cell(
            f"{write_params(item)}, not trained here"
            if item.is_existing and first.n_params is not None
            else write_params(item),
            order=first.adapter_params,
        ),
        Cell(write_setting(first.changes or None)),
        Cell(
            f"existing adapter of kind {lora.get('kind', 'unknown')}"
            if item.is_existing
            else ", ".join(str(trial.train_seed) for trial in item.trials)
        ),
        Cell(", ".join(states), tone="plain" if states == ["done"] else "missing"),
    )


def write_params(item: Configuration) -> str:
    """Return the parameters of an adapter, with the deviation from the budget where there is one."""
    trial = next((each for each in item.trials if each.adapter_params is not None), item.trials[0])
    if trial.adapter_params is None:
        return format_count(None)
    return format_budgeted(trial.adapter_params, trial.budget)


def _setting_cell(settings: Settings, name: str) -> Cell:
    value = settings.get(name)
    return Cell(write_setting(value), order=value if isinstance(value, int | float) else None)


def build_training(view: RunView) -> Iterator[Block]:
    """Yield first, last and best losses, and the curves."""
    trained = [trial for trial in view.trials if trial.losses.model_fields_set]
    if not trained:
        return
    yield Heading(2, "Training", "training")
    columns = (
        *text_columns("trial"),
        *number_columns("first loss", "last loss", "first held-out loss", "last held-out loss"),
        *number_columns("best held-out loss", "at step", "steps"),
    )
    rows: list[tuple[Cell, ...]] = []
    for trial in trained:
        losses = trial.losses
        values = losses.first_train, losses.last_train, losses.first_eval, losses.last_eval, losses.best_eval
        steps = losses.best_eval_step, losses.steps
        rows.append(
            (
                Cell(view.name_trial(trial.id)),
                *(number_cell(value, "{:.4f}".format) for value in values),
                *(Cell(format_count(step), order=step) for step in steps),
            )
        )
    yield Table("Losses in nats per code, mean over codebooks", columns, tuple(rows))
    if view.results.dataset.selection is not None:
        yield Paragraph(
            "The held-out loss is that of the selection tracks: training never reads the references."
        )


def build_costs(view: RunView) -> Iterator[Block]:
    """Yield the time per stage and the peak memory of every trial."""
    timed = [trial for trial in view.trials if trial.wall_s or trial.peak_memory_gib]
    yield Heading(2, "Times and memory", "times")
    if not timed:
        yield Paragraph("No times were recorded.")
        return
    stages = list(dict.fromkeys(stage for trial in timed for stage in trial.wall_s))
    columns = (*text_columns("trial"), *number_columns(*stages, "sum", "peak memory (GiB)"))
    rows = tuple(
        (
            Cell(view.name_trial(trial.id)),
            *(number_cell(trial.wall_s.get(stage), format_duration) for stage in stages),
            number_cell(trial.total_s, format_duration),
            number_cell(trial.peak_memory_gib, "{:.2f}".format),
        )
        for trial in timed
    )
    title = "Wall time per stage, over all attempts (a killed one until its last step), and peak memory in training"
    yield Table(title, columns, rows)
    machine = view.results.environment
    hardware = [part for part in (machine.cpu, machine.instruction_set, machine.system) if part]
    if machine.n_cpu:
        hardware.append(f"{machine.n_cpu} cores")
    if machine.memory_gib:
        hardware.append(f"{machine.memory_gib} GiB memory")
    if machine.gpus is not None:
        hardware.append("GPU: " + (", ".join(machine.gpus) or "none"))
    if hardware:
        yield Paragraph("Measured on: " + "; ".join(clean_text(item) for item in hardware) + ".")
