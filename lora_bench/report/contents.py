"""The order of a report: the answer, one figure per question, the clips, and the details to open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lora_bench.planning.run_folder import ReportFolder
from lora_bench.report.answer import Answer
from lora_bench.report.audio.choose_clips import Heard
from lora_bench.report.formatting import join_words
from lora_bench.report.plots.forest import draw_forest
from lora_bench.report.plots.scores import draw_losses, draw_scores
from lora_bench.report.plots.study import build_study_plots
from lora_bench.report.plots.trajectories import draw_trajectories
from lora_bench.report.sections.answer import build_answer
from lora_bench.report.sections.captions import build_captions
from lora_bench.report.sections.guards import build_guards
from lora_bench.report.sections.leaks import build_leaks
from lora_bench.report.sections.listening import build_listening_details, build_listening_front
from lora_bench.report.sections.missing import build_missing
from lora_bench.report.sections.run import (
    build_dataset,
    build_generation,
    build_model,
    build_provenance,
    build_reproduction,
)
from lora_bench.report.sections.scores import (
    MAX_DIRECT_CONFIGURATIONS,
    build_long_prompts,
    build_metric_folds,
    metric_table,
    overview_table,
)
from lora_bench.report.sections.study import build_study
from lora_bench.report.sections.systems import build_systems
from lora_bench.report.sections.training import build_adapters, build_costs, build_training
from lora_bench.report.sections.tuning import build_tuning
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Block, Bullets, Figure, Fold, Heading, Link, Paragraph
from lora_bench.results.calibration import tell_calibration
from lora_bench.results.settings import read_section, read_text

HOW_TO_READ = (
    "A difference is fine-tuned less zero-shot on the same prompts and noise, corrected for the bias of finite samples "
    "and averaged over training seeds. Its interval speaks about new clips and new tracks of the genre{trainings}. "
    "Verdicts are given on the primary metric and the genre's own prompts, from intervals that hold together with "
    "95 %: better or worse if zero is outside, equivalent if the whole interval is within the margin, else "
    "inconclusive. All else is descriptive. Detectable is the true difference that this design finds with a "
    "probability of 80 %."
)
UNPAIRED = (
    "Other systems are compared without pairs: their clips have noise of their own, so their intervals are those of "
    "two independent sets of clips."
)


@dataclass(frozen=True)
class Report:
    """The blocks of a report.

    Attributes:
        front: what everybody reads: the page's open part, and `report.md`.
        details: what a reader opens: the page's closed parts, and `details.md`.
    """

    front: tuple[Block, ...]
    details: tuple[Fold, ...]

    @property
    def figures(self) -> list[Figure]:
        """All plots."""
        inner = [block for fold in self.details for block in fold.blocks]
        return [block for block in (*self.front, *inner) if isinstance(block, Figure)]


def build_report(view: RunView, heard: Heard) -> Report:
    """Return the blocks of a report."""
    answer = Answer(view)
    front = [
        *build_answer(answer, heard),
        *_build_effects(answer),
        *build_listening_front(answer),
        *_build_study_front(view),
        *_build_listening(view, heard),
        *_build_training_front(view),
        *_link_details(),
    ]
    return Report(tuple(front), tuple(_list_details(answer, heard)))


def _build_effects(answer: Answer) -> Iterator[Block]:
    view = answer.view
    yield Heading(2, "Scores" if answer.is_zero_shot_only else "Effects", "effects")
    forest = draw_forest(answer)
    if forest is not None:
        yield forest
    levels = draw_scores(view, answer.metric, "levels")
    if levels is not None:
        yield levels
    if len(view.rivals) <= MAX_DIRECT_CONFIGURATIONS and answer.metric in view.metrics:
        yield metric_table(view, answer.metric, is_corrected=view.is_corrected(answer.metric))
    elif view.metrics:
        yield overview_table(view)
    if answer.is_zero_shot_only:
        return
    is_single = all(row.contrast is None or row.contrast.n_seeds < 2 for row in answer.tuned)
    about = ", for these adapters" if is_single else ", and new trainings"
    calibration = tell_calibration(view.folder)
    words = HOW_TO_READ.format(trainings=about) + (f" {UNPAIRED}" if view.systems else "")
    yield Paragraph(words if calibration is None else f"{words} {calibration}", kind="meta")


def _build_study_front(view: RunView) -> Iterator[Block]:
    plots = list(build_study_plots(view, limit_to=view.primary_metric))
    if plots:
        yield Heading(2, "Study", "study-plots")
        yield from plots


def _build_training_front(view: RunView) -> Iterator[Block]:
    figures = [figure for figure in (draw_losses(view), draw_trajectories(view)) if figure is not None]
    if figures:
        yield Heading(2, "Training", "losses")
        yield from figures


def _link_details() -> Iterator[Block]:
    yield Heading(2, "Details", "details")
    yield Paragraph(
        (
            "Tables of every metric, guards, text control, data, provenance and the spec: ",
            Link(ReportFolder.details, ReportFolder.details),
            ". To look and listen: ",
            Link(ReportFolder.page, ReportFolder.page),
            ". As data: ",
            Link(ReportFolder.results, ReportFolder.results),
            ", ",
            Link(ReportFolder.results_csv, ReportFolder.results_csv),
            ".",
        ),
        only_in="markdown",
    )


def _list_details(answer: Answer, heard: Heard) -> Iterator[Fold]:
    view = answer.view
    missing = tuple(build_missing(view))
    if missing:
        yield Fold("What is missing", "missing", missing)
    yield from build_metric_folds(view)
    yield from build_long_prompts(view)
    yield from build_listening_details(answer)
    yield from _build_memorisation(heard)
    for section in (
        build_tuning,
        build_study,
        build_guards,
        build_dataset,
        build_leaks,
        build_captions,
        build_model,
        build_adapters,
        build_systems,
        build_training,
        build_costs,
        build_generation,
        build_provenance,
        build_reproduction,
    ):
        yield from _fold(section(view))


def _fold(blocks: Iterable[Block]) -> Iterator[Fold]:
    """Yield a closed part for every heading of the second level and what follows it."""
    head: Heading | None = None
    inner: list[Block] = []
    for block in blocks:
        if isinstance(block, Heading) and block.level == 2:
            if head is not None:
                yield Fold(head.text, head.anchor, tuple(inner))
            head, inner = block, []
        else:
            inner.append(block)
    if head is not None:
        yield Fold(head.text, head.anchor, tuple(inner))


def choose_title(view: RunView) -> str:
    """Return the title that the spec gives the report, or the run's name."""
    return read_text(read_section(view.spec, "report"), "title") or view.results.name


def _build_listening(view: RunView, heard: Heard) -> Iterator[Block]:
    if not heard.matrices:
        return
    yield Heading(2, "Listen", "listen")
    others = join_words([item.name for item in view.systems])
    caveat = f" The clips of {others} are of other systems, with noise of their own." if others else ""
    yield Paragraph(
        "The same prompt, clip index and noise through the base model and each configuration: only the adapter "
        f"differs.{caveat} Choose a clip; left and right change the voice at the same place, space pauses.",
        only_in="page",
    )
    yield Paragraph(
        ("The clips are in ", Link(ReportFolder.page, ReportFolder.page), "."), only_in="markdown"
    )
    yield from heard.matrices


def _build_memorisation(heard: Heard) -> Iterator[Fold]:
    if heard.pairs:
        words = "The generated clips that resemble the training set most, each with the passage that it resembles:"
        titles = Bullets(tuple(pair.title for pair in heard.pairs))
        yield Fold("Memorisation to listen to", "memorisation", (Paragraph(words), titles, *heard.pairs))
