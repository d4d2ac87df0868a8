"""The order of a report: from its warnings to how to repeat the run."""

from __future__ import annotations

from collections.abc import Iterator

from lora_bench.report.audio.choose_clips import Heard
from lora_bench.report.plots.study import build_study_plots
from lora_bench.report.sections.comparisons import build_contrasts, build_missing
from lora_bench.report.sections.guards import build_guards
from lora_bench.report.sections.run import (
    build_dataset,
    build_generation,
    build_model,
    build_provenance,
    build_reproduction,
)
from lora_bench.report.sections.scores import build_score_sections
from lora_bench.report.sections.study import build_study
from lora_bench.report.sections.summary import write_summary, write_warnings
from lora_bench.report.sections.training import build_adapters, build_costs, build_training
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Block, Bullets, Heading, Link, Paragraph
from lora_bench.results.settings import read_section, read_text


def build_report(view: RunView, heard: Heard) -> Iterator[Block]:
    """Yield all blocks of a report; warnings come before the title, so that nobody misses them."""
    warnings = write_warnings(view)
    if warnings:
        yield Paragraph(" ".join(warnings), is_warning=True)
    yield Heading(1, choose_title(view), "top")
    yield Paragraph(" ".join(write_summary(view)))
    yield from build_score_sections(view)
    yield from build_study(view)
    yield from build_study_plots(view)
    yield from build_contrasts(view)
    yield from build_guards(view)
    yield from _build_listening(heard)
    yield from build_missing(view)
    yield from build_dataset(view)
    yield from build_model(view)
    yield from build_adapters(view)
    yield from build_training(view)
    yield from build_costs(view)
    yield from build_generation(view)
    yield from build_provenance(view)
    yield from build_reproduction(view)


def choose_title(view: RunView) -> str:
    """Return the title that the spec gives the report, or the run's name."""
    return read_text(read_section(view.spec, "report"), "title") or view.results.name


def _build_listening(heard: Heard) -> Iterator[Block]:
    if heard.pairs:
        yield Heading(2, "Memorisation to listen to", "memorisation")
        yield Paragraph(
            "The generated clips that resemble the training set most, each with the passage that it resembles. Listen "
            "to judge whether one copies the other."
        )
        yield Bullets(tuple(pair.title for pair in heard.pairs))
        yield from heard.pairs
    if not heard.groups:
        return
    yield Heading(2, "Listen", "listen")
    yield Paragraph(
        "The same prompt, clip index and noise through the base model and through each configuration: only the "
        "adapter differs. References are excerpts of held-out tracks."
    )
    yield Paragraph(
        ("The clips can be played in ", Link("report.html", "report.html"), "."), only_in="markdown"
    )
    yield from heard.groups
