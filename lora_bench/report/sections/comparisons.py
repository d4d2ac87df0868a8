"""Sections on contrasts of configurations, and on what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lora_bench.report.cells import (
    DESCRIPTIVE,
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
)
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Block, Bullets, Cell, Heading, Paragraph, Table
from lora_bench.results.records import Contrast
from lora_bench.results.search_tally import describe_rest

MAX_ROWS = 240


def build_contrasts(view: RunView) -> Iterator[Block]:
    """Yield each configuration against zero-shot and against the baseline, if there is one."""
    zero_shot, baseline = (
        [item for item in view.results.contrasts if item.kind == kind] for kind in ("zero-shot", "baseline")
    )
    if zero_shot:
        yield Heading(2, "Differences from zero-shot", "contrasts")
        yield Paragraph(_explain(view))
        yield from _build_table(view, "Fine-tuned less zero-shot", zero_shot, with_partner=False)
    if baseline:
        yield Heading(2, "Differences from the baseline", "baseline-contrasts")
        yield Paragraph(
            "The same between a configuration and the baseline that the spec names, both fine-tuned with the same "
            "training seeds: the configuration less the baseline."
        )
        yield from _build_table(view, "Configurations less the baseline", baseline, with_partner=True)


def _explain(view: RunView) -> str:
    n_seeds = max((item.n_seeds for item in view.results.contrasts), default=1)
    about = (
        "It speaks about new clips and new tracks of the genre, for this adapter"
        if n_seeds == 1
        else "It speaks about new clips, new tracks of the genre and new trainings"
    )
    return (
        "The difference is fine-tuned less zero-shot on the same prompts and noise, both corrected for the bias of "
        f"finite samples, averaged over training seeds. {about}. Verdicts are given on "
        f"{view.primary_metric or 'the primary metric'} for {view.pooled} and each of them, from intervals that hold "
        "simultaneously with 95 %: better or worse if zero is outside, equivalent if the whole interval is within the "
        "margin, otherwise inconclusive. Everything else is descriptive: its intervals hold one by one. Detectable is "
        "the true difference that this design finds with a probability of 80 %."
    )


def _build_table(
    view: RunView, caption: str, contrasts: Sequence[Contrast], *, with_partner: bool
) -> Iterator[Block]:
    shown = contrasts
    if len(contrasts) > MAX_ROWS:
        shown = [item for item in contrasts if item.prompt is None][:MAX_ROWS]
    columns = (
        *text_columns("configuration", *["against"] * with_partner, "metric", "prompt"),
        *number_columns("difference", "95 % interval", "detectable", "seeds", "clips"),
        *text_columns("verdict"),
    )
    rows = tuple(
        (
            *(Cell(name) for name in (item.configuration, *[item.against] * with_partner)),
            Cell(item.metric),
            prompt_cell(view, item.prompt),
            number_cell(item.delta, format_difference),
            interval_cell(item.ci_low, item.ci_high),
            number_cell(item.detectable),
            Cell(str(item.n_seeds), order=item.n_seeds),
            Cell(str(item.n_pairs or MISSING), order=item.n_pairs),
            verdict_cell(item.verdict or (None if item.primary else DESCRIPTIVE)),
        )
        for item in shown
    )
    yield Table(caption, columns, rows, 3 + with_partner)
    if len(shown) < len(contrasts):
        yield Paragraph(
            f"Shown are the rows over {view.pooled}; {len(contrasts) - len(shown):,} further rows are in results.json."
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
