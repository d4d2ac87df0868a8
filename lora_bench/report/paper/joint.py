r"""What a text of one's own takes from several runs: one table of all verdicts, and each number by its name.

`\Number{run/configuration/against/difference}` sets a number of the results, so that the text cannot differ from
them; a name that does not exist is an error of TeX.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from lora_bench.metrics.verdicts import Verdict
from lora_bench.report.answer import Answer
from lora_bench.report.cells import number_cell, text_columns, verdict_cell
from lora_bench.report.formatting import (
    MISSING,
    clean_text,
    format_count,
    format_difference,
    format_duration,
    format_interval,
    format_percent,
    format_probability,
    format_with_error,
    round_to_error,
    write_setting,
)
from lora_bench.report.paper.latex import escape_latex
from lora_bench.report.writers.document import Cell, Column, Table
from lora_bench.results.records import Contrast
from lora_bench.study import analyse_study

_COMMAND = r"""\makeatletter
\newcommand*{\Number}[1]{\ifcsname lb@\detokenize{#1}\endcsname\csname lb@\detokenize{#1}\endcsname
  \else\PackageError{numbers}{No number is named \detokenize{#1}}{The file numbers.tex lists all.}\fi}
\newcommand*{\lb@define}[2]{\expandafter\def\csname lb@\detokenize{#1}\endcsname{#2}}
"""


def list_verdicts(answer: Answer) -> list[Contrast]:
    """Return the differences that have verdicts over the genre's prompts together: from zero-shot, then the others."""
    found = [item for item in answer.view.results.contrasts if item.primary and item.prompt is None]
    return sorted(found, key=lambda item: (item.kind != "zero-shot", item.against))


def build_verdict_table(answers: Mapping[str, Answer]) -> Table:
    """Return the verdicts of all runs with what each could detect.

    Args:
        answers: by the name of the run.
    """
    metrics = sorted({answer.metric for answer in answers.values()})
    columns = (
        *text_columns("run", "configuration", "against"),
        Column("difference"),
        *text_columns("95 % interval"),
        Column("detectable"),
        *text_columns("verdict"),
    )
    rows = tuple(
        (
            Cell(clean_text(name)),
            Cell(clean_text(item.configuration)),
            Cell(clean_text(item.against)),
            Cell(_write_difference(item)),
            Cell(format_interval(item.ci_low, item.ci_high, signed=True)),
            number_cell(item.detectable, lambda value, error=item.se: round_to_error(value, error)),
            verdict_cell(item.verdict),
        )
        for name, answer in answers.items()
        for item in list_verdicts(answer)
    )
    about = (
        f"All verdicts: differences on {' and '.join(metrics)}. Intervals hold together over the differences from one "
        "and the same side in a run; detectable is the true difference that the design finds with a probability of 80 %"
    )
    return Table(about, columns, rows)


def write_numbers(answers: Mapping[str, Answer]) -> str:
    r"""Return LaTeX that defines `\Number` and every number that it knows.

    Args:
        answers: by the name of the run, with which names of numbers begin.
    """
    lines = [
        rf"\lb@define{{{name}/{escape_name(key)}}}{{{escape_latex(value)}}}"
        for name, answer in answers.items()
        for key, value in list_numbers(answer)
    ]
    return _COMMAND + "\n".join([*lines, r"\makeatother", ""])


def escape_name(text: str) -> str:
    """Return a name without what TeX would act on or take for an end."""
    return "".join("-" if mark in "\\{}%#~^$&" or not mark.isprintable() else mark for mark in text)


def list_numbers(answer: Answer) -> Iterator[tuple[str, str]]:
    """Yield names and texts: of the run, its configurations, attempts of tuning, verdicts, and the study's effects."""
    yield from _list_of_run(answer)
    for item in answer.view.configurations:
        yield from ((f"{item.name}/{key}", value) for key, value in _list_of_configuration(answer, item.name))
    tuning = answer.view.results.tuning
    for tuned in tuning.configurations if tuning is not None else ():
        known = sorted(attempt.value for attempt in tuned.attempts if attempt.value is not None)
        yield from ((f"{tuned.configuration}/attempt-{n}", f"{v:.4f}") for n, v in enumerate(known, start=1))
    for row in answer.compared:
        yield f"{row.configuration.name}/zero-shot/change", row.change
    for found in list_verdicts(answer):
        place = f"{found.configuration}/{found.against}"
        yield from ((f"{place}/{key}", value) for key, value in _list_of_contrast(found))
    study = analyse_study(answer.view.results)
    for metric in study.metrics if study is not None else ():
        for main in metric.main_effects:
            if main.f_value is not None:
                place = f"{metric.metric}/{main.field}"
                yield f"{place}/F", f"F({main.df}, {main.df_error}) = {main.f_value:.2f}"
                yield f"{place}/p", format_probability(main.p_value)


def _list_of_run(answer: Answer) -> Iterator[tuple[str, str]]:
    view, dataset = answer.view, answer.view.results.dataset
    for side, found in (
        ("training", dataset.train),
        ("selection", dataset.selection),
        ("test", dataset.eval),
    ):
        if found is not None:
            yield f"{side}-tracks", format_count(found.n_tracks)
            yield f"{side}-minutes", f"{found.duration_s / 60:.1f}"
    yield "reference-excerpts", format_count(dataset.n_reference_clips)
    for metric in view.metrics:
        for floor in view.floors(metric):
            value = floor.best_value if view.is_corrected(metric) else floor.value
            yield f"{floor.floor}/{metric}", format_with_error(value, floor.se)
    verdicts = list_verdicts(answer)
    yield "verdicts", format_count(len(verdicts))
    yield from (
        (f"{word}-verdicts", format_count(sum(v.verdict == word for v in verdicts))) for word in Verdict
    )
    reach = [item.detectable for item in verdicts if item.detectable is not None]
    if reach:
        yield "detectable-least", f"{min(reach):.2f}"
        yield "detectable-most", f"{max(reach):.2f}"
    totals = [trial.total_s for trial in view.trials if trial.total_s is not None]
    yield "time", format_duration(math.fsum(totals))


def _list_of_configuration(answer: Answer, name: str) -> Iterator[tuple[str, str]]:
    view = answer.view
    item = next(found for found in view.configurations if found.name == name)
    for metric in view.metrics:
        cell = view.cell(item, metric, None)
        value = view.value(cell, metric)
        if value is not None:
            yield f"level/{metric}", format_with_error(value, cell.spread)
    if item.trials[0].trainable_params:
        yield "parameters", format_count(item.trials[0].trainable_params)
    if item.trials[0].losses.first_eval is not None:
        yield "loss-before", f"{item.trials[0].losses.first_eval:.4f}"
    rate = (item.trials[0].train or {}).get("lr")
    if rate is not None:
        yield "rate", write_setting(rate)


def _list_of_contrast(item: Contrast) -> Iterator[tuple[str, str]]:
    yield "difference", _write_difference(item)
    yield "interval", format_interval(item.ci_low, item.ci_high, signed=True)
    yield "verdict", str(item.verdict or MISSING)
    yield "p", format_probability(item.p_value)
    if item.detectable is not None:
        yield "detectable", round_to_error(item.detectable, item.se)
    parts = {name: getattr(item.variance, name) or 0.0 for name in ("clips", "tracks", "seeds")}
    total = math.fsum(parts.values())
    if total > 0.0:
        yield from ((f"from-{name}", format_percent(value / total)) for name, value in parts.items())


def _write_difference(item: Contrast) -> str:
    width = None if item.ci_low is None or item.ci_high is None else (item.ci_high - item.ci_low) / 4.0
    return format_difference(item.delta, error=width or item.se)
