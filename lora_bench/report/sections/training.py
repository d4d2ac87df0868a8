"""Sections about the adapters: their settings, how training went, and what everything cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lora_bench.report.formatting import MISSING, clean_text, format_count, format_duration, write_setting
from lora_bench.report.plots.scores import draw_losses
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Block, Cell, Column, Heading, Paragraph, Table

Json = dict[str, Any]


def build_adapters(view: RunView) -> Iterator[Block]:
    """LoRA settings, matched modules and trainable parameters of every configuration."""
    if not view.fine_tuned:
        return
    yield Heading(2, "LoRA configurations", "lora")
    columns = (
        Column("configuration", is_numeric=False),
        Column("rank"),
        Column("alpha"),
        Column("targets", is_numeric=False),
        Column("dropout"),
        Column("matched modules", is_numeric=False),
        Column("trainable parameters"),
        Column("changed from the defaults", is_numeric=False),
        Column("seeds", is_numeric=False),
        Column("state", is_numeric=False),
    )
    rows: list[tuple[Cell, ...]] = []
    for item in view.fine_tuned:
        first = next((t for t in item.trials if t["matched_modules"]), item.trials[0])
        lora: Json = first["lora"] or {}
        states = list(dict.fromkeys(trial["state"] for trial in item.trials))
        rows.append(
            (
                Cell(" = ".join([item.name, *first.get("aliases", [])])),
                Cell(str(lora.get("rank", MISSING)), order=lora.get("rank")),
                Cell(write_setting(lora.get("alpha")), order=lora.get("alpha")),
                Cell(write_setting(lora.get("targets"))),
                Cell(write_setting(lora.get("dropout")), order=lora.get("dropout")),
                Cell(write_setting(first["matched_modules"] or None)),
                Cell(format_count(first["trainable_params"]), order=first["trainable_params"]),
                Cell(write_setting(first.get("changes") or None)),
                Cell(", ".join(str(trial["train_seed"]) for trial in item.trials)),
                Cell(", ".join(states), tone="plain" if states == ["done"] else "missing"),
            )
        )
    yield Table("LoRA configurations", columns, tuple(rows))


def build_training(view: RunView) -> Iterator[Block]:
    """First, last and best losses, and the curves."""
    trained = [trial for trial in view.trials if trial.get("losses")]
    if not trained:
        return
    yield Heading(2, "Training", "training")
    fields = ("first_train", "last_train", "first_eval", "last_eval", "best_eval")
    headers = ("first loss", "last loss", "first held-out loss", "last held-out loss", "best held-out loss")
    columns = (
        Column("trial", is_numeric=False),
        *(Column(name) for name in headers),
        Column("at step"),
        Column("steps"),
    )
    rows = tuple(
        (
            Cell(view.names_of_trials[trial["id"]]),
            *(_loss_cell(trial["losses"].get(field)) for field in fields),
            Cell(
                format_count(trial["losses"].get("best_eval_step")),
                order=trial["losses"].get("best_eval_step"),
            ),
            Cell(format_count(trial["losses"].get("steps")), order=trial["losses"].get("steps")),
        )
        for trial in trained
    )
    yield Table("Losses in nats per code, mean over codebooks", columns, rows)
    figure = draw_losses(view)
    if figure is not None:
        yield figure


def _loss_cell(value: float | None) -> Cell:
    return Cell(MISSING, tone="missing") if value is None else Cell(f"{value:.4f}", order=value)


def build_costs(view: RunView) -> Iterator[Block]:
    """Time per stage and peak memory of every trial."""
    timed = [trial for trial in view.trials if trial.get("wall_s") or trial.get("peak_memory_gib")]
    yield Heading(2, "Times and memory", "times")
    if not timed:
        yield Paragraph("No times were recorded.")
        return
    stages = list(dict.fromkeys(stage for trial in timed for stage in trial.get("wall_s") or {}))
    columns = (
        Column("trial", is_numeric=False),
        *(Column(stage) for stage in stages),
        Column("sum"),
        Column("peak memory (GiB)"),
    )
    rows = tuple(
        (
            Cell(view.names_of_trials[trial["id"]]),
            *(_time_cell((trial.get("wall_s") or {}).get(stage)) for stage in stages),
            _time_cell(
                sum(float(v) for v in (trial.get("wall_s") or {}).values()) if trial.get("wall_s") else None
            ),
            _memory_cell(trial.get("peak_memory_gib")),
        )
        for trial in timed
    )
    title = "Wall time per stage, over all attempts (a killed one until its last step), and peak memory in training"
    yield Table(title, columns, rows)
    environment: Json = view.results.get("environment") or {}
    hardware = [str(environment[key]) for key in ("cpu", "system") if environment.get(key)]
    if environment.get("n_cpu"):
        hardware.append(f"{environment['n_cpu']} cores")
    if environment.get("memory_gib"):
        hardware.append(f"{environment['memory_gib']} GiB memory")
    if "gpus" in environment:
        hardware.append("GPU: " + (", ".join(environment["gpus"]) or "none"))
    if hardware:
        yield Paragraph("Measured on: " + "; ".join(clean_text(item) for item in hardware) + ".")


def _time_cell(value: float | None) -> Cell:
    return Cell(format_duration(value), order=value, tone="missing" if value is None else "plain")


def _memory_cell(value: float | None) -> Cell:
    return Cell(MISSING, tone="missing") if value is None else Cell(f"{value:.2f}", order=value)
