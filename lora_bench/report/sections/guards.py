"""Sections on guards: variety, silence, repetition, copies, and text control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeVar

from lora_bench.report.cells import number_cell, number_columns, prompt_cell, text_columns
from lora_bench.report.formatting import MISSING, add_interval, clean_text, format_fixed, write_setting
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Heading,
    Paragraph,
    Strong,
    Table,
    mark_code,
)
from lora_bench.results.records import ControlRecord, GuardRecord

MAX_ROWS = 240
MAX_REASONS = 12
_SOUND = {
    "silent_clips_frac": "silent clips",
    "silent_seconds_frac": "silent seconds",
    "repetition": "repetition",
    "adherence": "prompt adherence \u2191",
}
_COPIES = {
    "copy_similarity": "similarity to the nearest training window",
    "copy_similarity_max": "largest",
    "closer_than_held_out_frac": "closer than held-out",
    "code_match": "code match",
    "code_match_max": "largest code match",
    "partial_code_copies_frac": "code copies",
}
_KINDS = {True: "off-genre", False: "genre's own", None: "unknown"}
Measured = TypeVar("Measured", GuardRecord, ControlRecord)

_brief = partial(format_fixed, decimals=3)  # guards and shifts are read for their size only


def build_guards(view: RunView) -> Iterator[Block]:
    """Yield measures that distinguish a good score from a cheap one, and the effect on text control."""
    guards = view.results.guards
    if guards:
        yield Heading(2, "Guards", "guards")
        yield Paragraph(
            "A distance alone can be improved by playing safe or by copying, so these measures stand next to it. "
            "The first row is the yardstick: the held-out recordings, measured in the same way."
        )
        shown = _choose_rows(guards)
        if sum(record.trial is None for record in shown) > 1:
            yield Paragraph(
                "There is one such row for each set of training and held-out tracks, named by the first of its trials."
            )
        yield from _build_variety(view, shown)
        yield from _build_support(view, shown)
        yield from _build_copies(view, shown)
        yield from _list_unscored(guards)
        yield from _describe_provenance("Guards", guards)
    yield from build_control(view)


def _choose_rows(records: Sequence[Measured]) -> Sequence[Measured]:
    """Return all rows, or those over all prompts where all would be too many to read."""
    if len(records) <= MAX_ROWS:
        return records
    return [record for record in records if record.prompt is None][:MAX_ROWS]


def _first_cells(view: RunView, record: GuardRecord) -> tuple[Cell, Cell, Cell]:
    prompt = Cell("") if record.trial is None else _name_prompt(view, record.prompt)
    return Cell(_name_clips(view, record)), prompt, number_cell(record.n_clips, "{:,}".format)


def _name_clips(view: RunView, record: GuardRecord) -> str:
    return _name_held_out(view, record) if record.trial is None else view.name_trial(record.trial)


def _name_held_out(view: RunView, record: GuardRecord) -> str:
    """Return what the yardstick is called: with the first trial of its tracks, where there are several."""
    name, guards = "held-out recordings", view.results.guards
    if sum(other.trial is None for other in guards) < 2:
        return name
    tracks = record.provenance.get("dataset")
    first = next(
        (other.trial for other in guards if other.trial and other.provenance.get("dataset") == tracks), None
    )
    return name if first is None else f"{name} (for {view.name_trial(first)})"


def _name_prompt(view: RunView, prompt: str | None) -> Cell:
    """Return the cell of a prompt; these measures are pooled over all prompts, off-genre ones included."""
    return prompt_cell(view, prompt) if prompt is not None else Cell((Strong("all prompts"),))


def _pick_measures(records: Sequence[GuardRecord], measures: dict[str, str]) -> list[str]:
    """Return the measures that some record has."""
    return [name for name in measures if any(name in record.model_fields_set for record in records)]


def _measure_cell(record: GuardRecord, name: str) -> Cell:
    return number_cell(getattr(record, name), _brief)


def _build_variety(view: RunView, records: Sequence[GuardRecord]) -> Iterator[Block]:
    yield Paragraph(
        "Diversity is the mean distance between clips of a prompt over that between held-out tracks, by encoder: "
        "below 1 is less variety. Silence is below -60 dBFS. Repetition is the median over clips of how nearly a "
        "clip repeats itself after a second or more (1: an exact loop). Prompt adherence is the mean cosine of "
        "clips and prompts in CLAP's space."
    )
    encoders = list(dict.fromkeys(name for record in records for name in record.diversity))
    names = _pick_measures(records, _SOUND)
    columns = (
        *text_columns("clips of", "prompt"),
        *number_columns("clips", *(f"diversity ({name})" for name in encoders), *(_SOUND[n] for n in names)),
    )
    rows = tuple(
        (
            *_first_cells(view, record),
            *(number_cell(record.diversity.get(name), _brief) for name in encoders),
            *(_measure_cell(record, name) for name in names),
        )
        for record in records
    )
    yield Table("Variety, silence and repetition", columns, rows, n_fixed=2)


def _build_support(view: RunView, records: Sequence[GuardRecord]) -> Iterator[Block]:
    """Yield recall and coverage, which runs of earlier versions do not have."""
    encoders = list(dict.fromkeys(name for record in records for name in record.coverage))
    if not encoders:
        return
    yield Paragraph(
        "Recall is the share of held-out excerpts that are closer to a clip than the clip's fifth nearest other clip. "
        "Coverage is the share of held-out excerpts with a clip closer than their own fifth nearest other excerpt: "
        "low where clips miss a part of the music. Both have one vector per clip and depend on the number of clips, "
        f"so compare rows of equal numbers. The row of {view.pooled} takes all of their clips as one set. Recordings "
        "cover themselves, so the first row is one half of the held-out tracks against the other, averaged both ways; "
        "if a half has more excerpts than a row has clips, that level is too high for the row."
    )
    columns = (
        *text_columns("clips of", "prompt"),
        *number_columns(*(f"{figure} ({name})" for name in encoders for figure in ("recall", "coverage"))),
    )
    rows = tuple(
        (
            Cell(_name_clips(view, record)),
            Cell("") if record.trial is None else prompt_cell(view, record.prompt),
            *(
                number_cell(by_encoder.get(name), _brief)
                for name in encoders
                for by_encoder in (record.recall, record.coverage)
            ),
        )
        for record in records
    )
    yield Table("Recall and coverage of the held-out recordings", columns, rows, n_fixed=2)


def _build_copies(view: RunView, records: Sequence[GuardRecord]) -> Iterator[Block]:
    names = _pick_measures(records, _COPIES)
    if not names:
        return
    yield Paragraph(
        "Copies of the training set. In the sound: the cosine of the clip's two-second log-mel windows with the "
        "nearest window of any training track; closer than held-out is the share of clips nearer than 95 % of "
        "the held-out excerpts, about 0.05 if nothing is copied. In the codes: the largest share of a five-second "
        "stretch of the first codebook that equals a training track's; code copies are clips with 0.8 and more."
    )
    columns = (
        *text_columns("clips of", "prompt"),
        *number_columns("clips", *(_COPIES[name] for name in names)),
        *text_columns("nearest to training"),
    )
    rows = tuple(
        (
            *_first_cells(view, record),
            *(_measure_cell(record, name) for name in names),
            Cell(clean_text(record.nearest_copy or MISSING)),
        )
        for record in records
    )
    yield Table("Copies of the training set", columns, rows, n_fixed=2)


def _list_unscored(records: Sequence[GuardRecord]) -> Iterator[Block]:
    """Yield the measures that are unavailable, each reason once."""
    reasons = dict.fromkeys(item for record in records for item in record.unscored.items())
    if reasons:
        yield Paragraph("Not measured:")
        lines = (
            mark_code(f"{measure}: {clean_text(reason)}") for measure, reason in list(reasons)[:MAX_REASONS]
        )
        yield Bullets(tuple(lines))


def _describe_provenance(name: str, records: Sequence[GuardRecord | ControlRecord]) -> Iterator[Block]:
    """Yield how the measures above were computed."""
    facts: dict[str, dict[str, None]] = {}
    for record in records:
        for key, value in record.provenance.items():
            facts.setdefault(key, {})[write_setting(value)] = None
    if facts:
        words = "; ".join(f"{key.replace('_', ' ')} {' or '.join(values)}" for key, values in facts.items())
        yield Paragraph(f"{name} were computed with: {words}.")


def build_control(view: RunView) -> Iterator[Block]:
    """Yield base against fine-tuned: prompt separation, shift toward the genre, prompt adherence."""
    records = view.results.control
    if not records:
        return
    yield Heading(2, "Is text control kept?", "control")
    yield Paragraph(
        "Fine-tuning on one genre can make a model deaf to its prompts. Separation is the distance of a prompt's "
        "clips from those of the other prompts, in units of the variance within a prompt (0: they cannot be "
        "distinguished); prompt accuracy is the share of clips nearest to their own prompt's mean; both are shown "
        "zero-shot \u2192 fine-tuned. Shift toward genre is how far fine-tuning moved a prompt's clips from zero-shot "
        "towards the genre's recordings (0: not at all, 1: all the way): wanted for the genre's own prompts, unwanted "
        "for off-genre ones. Retention is 1 less the length of the move in any direction, in the same unit (1: nothing "
        "moved); its last row is over the off-genre prompts. Intervals are 95 %, one by one."
    )
    for encoder in dict.fromkeys(record.encoder for record in records):
        chosen = [record for record in records if record.encoder == encoder]
        yield _control_table(view, encoder, _choose_rows(chosen))
    yield from _build_contrast(view, records)
    notes = dict.fromkeys(clean_text(record.note) for record in records if record.note)
    if notes:
        yield Bullets(tuple(notes)[:MAX_REASONS])
    yield from _describe_provenance("These measures", records)


def _control_table(view: RunView, encoder: str, records: Sequence[ControlRecord]) -> Table:
    columns = (
        *text_columns("trial", "prompt", "kind"),
        *number_columns("separation", "its change", "prompt accuracy", "shift toward genre", "retention"),
    )
    rows = tuple(
        (
            Cell(view.name_trial(item.trial)),
            _name_prompt(view, item.prompt),
            Cell("" if item.prompt is None else _KINDS[item.off_genre]),
            _before_after(item.separation_base, item.separation),
            _change_cell(
                item.separation_change, item.separation_change_ci_low, item.separation_change_ci_high
            ),
            _before_after(item.told_apart_base_frac, item.told_apart_frac),
            _change_cell(item.pull, item.pull_ci_low, item.pull_ci_high),
            number_cell(
                item.retention,
                lambda value, low=item.retention_ci_low, high=item.retention_ci_high: add_interval(
                    _brief(value), low, high
                ),
            ),
        )
        for item in records
    )
    return Table(f"Text control by {encoder}", columns, rows, n_fixed=2)


def _before_after(base: float | None, tuned: float | None) -> Cell:
    """Return zero-shot and fine-tuned."""
    if base is None:
        return number_cell(None)
    return number_cell(tuned, lambda value: f"{_brief(base)}\u00a0\u2192\u00a0{_brief(value)}")


def _change_cell(change: float | None, low: float | None, high: float | None) -> Cell:
    """Return a change with its interval."""
    return number_cell(change, lambda value: _write_change(value, low, high))


def _write_change(change: float, low: float | None, high: float | None) -> str:
    return add_interval(format_fixed(change, 3, signed=True), low, high, signed=True)


def _build_contrast(view: RunView, records: Sequence[ControlRecord]) -> Iterator[Block]:
    lines = tuple(
        (
            Code(view.name_trial(item.trial)),
            f" by {item.encoder}: "
            + _write_change(
                item.off_genre_less_in_genre_pull,
                item.off_genre_less_in_genre_pull_ci_low,
                item.off_genre_less_in_genre_pull_ci_high,
            ),
        )
        for item in records
        if item.off_genre_less_in_genre_pull is not None
    )
    if lines:
        yield Paragraph(
            "Shift on off-genre prompts less that on the genre's own (below zero: fine-tuning acts where it should):"
        )
        yield Bullets(lines[:MAX_ROWS])
