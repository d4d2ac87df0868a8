"""Guards beside the scores: variety, silence, repetition, copies, and whether text control is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lora_bench.report.formatting import (
    MISSING,
    clean_text,
    format_difference,
    format_interval,
    format_value,
    write_setting,
)
from lora_bench.report.sections.scores import prompt_cell
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Column,
    Heading,
    Paragraph,
    Table,
    Tone,
)

Json = dict[str, Any]
MAX_ROWS = 240
MAX_REASONS = 12
BRIEF_DECIMALS = 3  # of guards and moves, which are read for their size only
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


def build_guards(view: RunView) -> Iterator[Block]:
    """Measures that tell a good score from a cheap one, and what became of text control."""
    guards = view.part("guards")
    if guards:
        yield Heading(2, "Guards", "guards")
        yield Paragraph(
            "A distance alone can be improved by playing safe or by copying, so these figures stand beside it. "
            "The first row is the yardstick: the held-out recordings, measured in the same way."
        )
        shown = _choose_rows(guards)
        yield from _build_variety(view, shown)
        yield from _build_copies(view, shown)
        yield from _list_unscored(guards)
        yield from _tell_provenance("Guards", guards)
    yield from build_control(view)


def _choose_rows(records: Sequence[Json]) -> list[Json]:
    """All rows, or those over all prompts where all would be too many to read."""
    if len(records) <= MAX_ROWS:
        return list(records)
    return [record for record in records if record.get("prompt") is None][:MAX_ROWS]


def _first_cells(view: RunView, record: Json) -> tuple[Cell, Cell, Cell]:
    trial = record.get("trial")
    name = "held-out recordings" if trial is None else view.names_of_trials.get(str(trial), str(trial))
    prompt = Cell("") if trial is None else prompt_cell(view, record.get("prompt"))
    n_clips = record.get("n_clips")
    return Cell(name), prompt, Cell(MISSING if n_clips is None else f"{n_clips:,}", order=n_clips)


def _build_variety(view: RunView, records: Sequence[Json]) -> Iterator[Block]:
    yield Paragraph(
        "Diversity is the mean distance between clips of a prompt over that between held-out tracks, by encoder: "
        "below 1 is less variety. Silence is below -60 dBFS. Repetition is the median over clips of how nearly a "
        "clip repeats itself after a second or more (1: an exact loop). Prompt adherence is the mean cosine of "
        "clips and prompts in CLAP's space."
    )
    encoders = list(dict.fromkeys(name for record in records for name in record.get("diversity") or {}))
    keys = [key for key in _SOUND if any(key in record for record in records)]
    columns = (
        *(Column(name, is_numeric=False) for name in ("clips of", "prompt")),
        Column("clips"),
        *(Column(f"diversity ({name})") for name in encoders),
        *(Column(_SOUND[key]) for key in keys),
    )
    rows = tuple(
        (
            *_first_cells(view, record),
            *(_number((record.get("diversity") or {}).get(name)) for name in encoders),
            *(_number(record.get(key)) for key in keys),
        )
        for record in records
    )
    yield Table("Variety, silence and repetition", columns, rows, n_fixed=2)


def _build_copies(view: RunView, records: Sequence[Json]) -> Iterator[Block]:
    keys = [key for key in _COPIES if any(key in record for record in records)]
    if not keys:
        return
    yield Paragraph(
        "Copies of the training set. In the sound: the cosine of the clip's two-second log-mel windows with the "
        "nearest window of any training track; closer than held-out is the share of clips nearer than 95 % of "
        "the held-out excerpts, about 0.05 if nothing is copied. In the codes: the largest share of a five-second "
        "stretch of the first codebook that equals a training track's; code copies are clips with 0.8 and more."
    )
    columns = (
        *(Column(name, is_numeric=False) for name in ("clips of", "prompt")),
        Column("clips"),
        *(Column(_COPIES[key]) for key in keys),
        Column("nearest to training", is_numeric=False),
    )
    rows = tuple(
        (
            *_first_cells(view, record),
            *(_number(record.get(key)) for key in keys),
            Cell(clean_text(str(record.get("nearest_copy") or MISSING))),
        )
        for record in records
    )
    yield Table("Copies of the training set", columns, rows, n_fixed=2)


def _number(value: Any) -> Cell:
    if value is None:
        return Cell(MISSING, tone="missing")
    return Cell(_brief(value), order=float(value))


def _brief(value: Any) -> str:
    return format_value(float(value), decimals=BRIEF_DECIMALS)


def _list_unscored(records: Sequence[Json]) -> Iterator[Block]:
    """Figures that could not be had, each reason once."""
    reasons = dict.fromkeys(
        (figure, str(reason))
        for record in records
        for figure, reason in (record.get("unscored") or {}).items()
    )
    if reasons:
        yield Paragraph("Not measured:")
        yield Bullets(
            tuple(f"{figure}: {clean_text(reason)}" for figure, reason in list(reasons)[:MAX_REASONS])
        )


def _tell_provenance(name: str, records: Sequence[Json]) -> Iterator[Block]:
    """How the figures above were computed."""
    facts: dict[str, dict[str, None]] = {}
    for record in records:
        for key, value in (record.get("provenance") or {}).items():
            facts.setdefault(key, {})[write_setting(value)] = None
    if facts:
        words = "; ".join(f"{key.replace('_', ' ')} {' or '.join(values)}" for key, values in facts.items())
        yield Paragraph(f"{name} were computed with: {words}.")


def build_control(view: RunView) -> Iterator[Block]:
    """Base against fine-tuned: prompts told apart, pull towards the genre, prompt adherence."""
    records = view.part("control")
    if not records:
        return
    yield Heading(2, "Is text control kept?", "control")
    yield Paragraph(
        "Fine-tuning on one genre can make a model deaf to its prompts. Separation is how far a prompt's clips "
        "stand apart from those of the other prompts, in units of the variance within a prompt (0: they cannot "
        "be told apart); told apart is the share of clips nearest to their own prompt's mean; both zero-shot "
        "\u2192 fine-tuned. Pull is how far fine-tuning moved a prompt's clips along the way from zero-shot to the "
        "genre's recordings (0: not at all, 1: arrived): wanted for the genre's own prompts, unwanted for "
        "off-genre ones. The verdicts are intervals on one side of zero, not corrected for the number of rows."
    )
    for encoder in dict.fromkeys(str(record.get("encoder")) for record in records if _is_control(record)):
        chosen = [item for item in records if _is_control(item) and item.get("encoder") == encoder]
        yield _control_table(view, encoder, _choose_rows(chosen))
    yield from _tell_contrast(view, records)
    adherence = [record for record in records if record.get("figure") == "adherence"]
    if adherence:
        yield _adherence_table(view, _choose_rows(adherence))
    notes = dict.fromkeys(clean_text(str(record["note"])) for record in records if record.get("note"))
    if notes:
        yield Bullets(tuple(notes)[:MAX_REASONS])
    yield from _tell_provenance("These figures", records)


def _is_control(record: Json) -> bool:
    return record.get("figure") == "control"


def _control_table(view: RunView, encoder: str, records: Sequence[Json]) -> Table:
    columns = (
        *(Column(name, is_numeric=False) for name in ("trial", "prompt", "kind")),
        *(Column(name) for name in ("separation", "its change")),
        Column("it is", is_numeric=False),
        *(Column(name) for name in ("told apart", "pull")),
        Column("clips moved", is_numeric=False),
    )
    rows = tuple(
        (
            Cell(view.names_of_trials.get(str(item["trial"]), str(item["trial"]))),
            prompt_cell(view, item.get("prompt")),
            Cell(_name_kind(item)),
            _before_after(item.get("separation_base"), item.get("separation")),
            _with_interval(item, "separation_change"),
            _verdict(item.get("separation_verdict"), {"reduced": "worse"}),
            _before_after(item.get("told_apart_base_frac"), item.get("told_apart_frac")),
            _with_interval(item, "pull"),
            _verdict(item.get("pull_verdict"), {}),
        )
        for item in records
    )
    return Table(f"Text control by {encoder}", columns, rows, n_fixed=2)


def _name_kind(item: Json) -> str:
    if item.get("prompt") is None:
        return ""
    kinds = {"True": "off-genre", "False": "genre's own"}
    return kinds.get(str(item.get("off_genre")), "unknown")


def _before_after(base: Any, tuned: Any) -> Cell:
    """Zero-shot, and after fine-tuning."""
    if base is None or tuned is None:
        return Cell(MISSING, tone="missing")
    return Cell(f"{_brief(base)}\u00a0\u2192\u00a0{_brief(tuned)}", order=float(tuned))


def _with_interval(item: Json, key: str) -> Cell:
    value, low, high = item.get(key), item.get(f"{key}_ci_low"), item.get(f"{key}_ci_high")
    if value is None:
        return Cell(MISSING, tone="missing")
    text = format_difference(value, decimals=BRIEF_DECIMALS)
    if low is not None and high is not None:
        text += f" ({format_interval(low, high, signed=True, decimals=BRIEF_DECIMALS)})"
    return Cell(text, order=value)


def _verdict(word: Any, tones: dict[str, Tone]) -> Cell:
    return Cell(MISSING, tone="missing") if not word else Cell(str(word), tone=tones.get(str(word), "plain"))


def _tell_contrast(view: RunView, records: Sequence[Json]) -> Iterator[Block]:
    key = "off_genre_less_in_genre_pull"
    found = [item for item in records if item.get(key) is not None]
    if not found:
        return
    yield Paragraph(
        "Pull on off-genre prompts less that on the genre's own (below zero: fine-tuning acts where it should):"
    )
    yield Bullets(
        tuple(
            (
                Code(view.names_of_trials.get(str(item["trial"]), str(item["trial"]))),
                f" by {item.get('encoder')}: {_with_interval(item, key).text}",
            )
            for item in found[:MAX_ROWS]
        )
    )


def _adherence_table(view: RunView, records: Sequence[Json]) -> Table:
    columns = (
        *(Column(name, is_numeric=False) for name in ("trial", "prompt")),
        Column("change of adherence"),
        Column("p (Holm)"),
        Column("verdict", is_numeric=False),
    )
    rows = tuple(
        (
            Cell(view.names_of_trials.get(str(item["trial"]), str(item["trial"]))),
            prompt_cell(view, item.get("prompt")),
            _with_interval(
                {
                    "delta": item.get("delta"),
                    "delta_ci_low": item.get("ci_low"),
                    "delta_ci_high": item.get("ci_high"),
                },
                "delta",
            ),
            _number(item.get("p_holm")),
            _verdict(item.get("verdict"), {"better": "better", "worse": "worse"}),
        )
        for item in records
    )
    return Table("Prompt adherence against zero-shot", columns, rows, n_fixed=2)
