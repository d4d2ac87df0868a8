"""What a run lacks: trials that are not done, and cells without a score, with the reasons."""

from __future__ import annotations

from collections.abc import Iterator

from lora_bench.report.cells import prompt_label, text_columns
from lora_bench.report.formatting import clean_text
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Block, Bullets, Cell, Paragraph, Table, mark_code
from lora_bench.results.search_tally import describe_rest
from lora_bench.results.trial_states import explain_state

MAX_ROWS = 240


def build_missing(view: RunView) -> Iterator[Block]:
    """Yield trials that are not done and cells without a score, with the reasons; nothing if none is missing."""
    unfinished = [trial for trial in view.trials if trial.state != "done"]
    gaps = [(trial.id, gap) for trial in view.trials for gap in trial.unscored]
    rest = describe_rest(view.results.search)
    if not unfinished and not gaps and not view.results.problems and not rest:
        return
    items = [f"{rest[0].upper()}{rest[1:]}"] if rest else []
    items += [f"{view.name_trial(trial.id)}: {explain_state(trial)}" for trial in unfinished]
    items += [f"damaged file: {problem}" for problem in view.results.problems]
    yield Bullets(tuple(mark_code(item) for item in items[:MAX_ROWS]))
    grouped: dict[tuple[str, str, str], list[str | None]] = {}
    for trial_id, gap in gaps:
        grouped.setdefault((trial_id, gap.metric, gap.reason), []).append(gap.prompt)
    columns = text_columns("trial", "metric", "prompts", "reason")
    rows = tuple(
        (
            Cell(view.name_trial(trial_id)),
            Cell(metric),
            Cell(_name_prompts(view, prompts)),
            Cell(mark_code(clean_text(reason).removeprefix(f"{metric}: "))),
        )
        for (trial_id, metric, reason), prompts in list(grouped.items())[:MAX_ROWS]
    )
    if rows:
        yield Table("Cells without a score", columns, rows)
    if len(grouped) > MAX_ROWS:
        yield Paragraph(f"{len(grouped) - MAX_ROWS:,} further rows are in results.csv.")


def _name_prompts(view: RunView, prompts: list[str | None]) -> str:
    if len(prompts) == len(view.prompts) + 1:
        return f"every prompt, and {view.pooled}"
    labels = [prompt_label(view, prompt) for prompt in prompts[:3]]
    return "; ".join(labels) + (f" and {len(prompts) - 3} more" if len(prompts) > 3 else "")
