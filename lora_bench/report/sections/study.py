"""Sections of a study: effects of the axes, interactions, quality against cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from lora_bench.metrics.verdicts import ALPHA
from lora_bench.report.cells import interval_cell, number_cell, number_columns, text_columns
from lora_bench.report.formatting import (
    MISSING,
    clean_text,
    format_count,
    format_difference,
    format_duration,
    format_probability,
    format_value,
    format_with_error,
    join_words,
)
from lora_bench.report.view import RunView, arrow
from lora_bench.report.writers.document import (
    Block,
    Bullets,
    Cell,
    Heading,
    Paragraph,
    Strong,
    Table,
    mark_code,
)
from lora_bench.results.run_records import RepeatedChoice
from lora_bench.study import MetricStudy, Study, analyse_study
from lora_bench.study.choice import describe_bias, describe_side
from lora_bench.study.records import Best, Interaction, InteractionCell, LevelEffect, MainEffect, Point

MAX_ROWS = 120
MAX_CHOSEN = 6


def build_study(view: RunView) -> Iterator[Block]:
    """Yield the analysis over all prompts together; nothing if fewer than two configurations were planned."""
    study = analyse_study(view.results)
    if study is None or not study.metrics or not _is_worth_telling(study, view):
        return
    yield Heading(2, "What the study says", "study")
    yield Paragraph(_introduce(study, f"{view.pooled[0].upper()}{view.pooled[1:]} together."))
    yield Bullets(tuple(mark_code(note) for note in study.notes))
    for index, metric in enumerate(study.metrics):
        yield Heading(3, f"{metric.metric} {arrow(metric.metric)}", f"study-{index + 1}")
        yield from _build_metric(metric, view.adapter_kinds)
        choice = view.results.repeated_choice
        if choice is not None and choice.metric == metric.metric:
            yield Paragraph(_describe_repeats(choice))


def _describe_repeats(choice: RepeatedChoice) -> str:
    def show(mean: float, sd: float | None) -> str:
        return format_value(mean) + (f", SD {format_value(sd)}" if sd is not None else "")

    shares = [
        f"{item.configuration} {item.n_chosen} times ({show(item.sealed, item.sealed_sd)})"
        for item in choice.configurations
    ]
    names = join_words(shares[:MAX_CHOSEN]) + (", and others" if len(shares) > MAX_CHOSEN else "")
    base = f"; zero-shot has {format_value(choice.zero_shot)} there" if choice.zero_shot is not None else ""
    return (
        f"The choice of the best mean, repeated on {choice.n_repeats} random halves of the {choice.n_tracks} held-out "
        f"tracks, with the score on the other half: {names}. The chosen one has {format_value(choice.seen)} on the "
        f"half that chose it and {show(choice.sealed, choice.sealed_sd)} on the other{base}. These are plug-in "
        "distances to half of the tracks, so they are larger than those of the tables."
    )


def _is_worth_telling(study: Study, view: RunView) -> bool:
    """Return whether there are axes, kinds, a baseline or repeated seeds; else the tables above say all."""
    has_seeds = any(metric.error_sd is not None for metric in study.metrics)
    return bool(study.axes or view.adapter_kinds) or has_seeds or view.spec.get("baseline") is not None


def _introduce(study: Study, pooled: str) -> str:
    if not study.axes:
        return pooled
    text = (
        f"{pooled} An effect is what a level of an axis does to the metric on average over the "
        "other axes, against the mean of all levels; a negative effect lowers the metric."
    )
    linked = [
        f"{join_words(axis.linked)} follows {axis.field}, so the two cannot be distinguished"
        for axis in study.axes
        if axis.linked
    ]
    return f"{text} {'; '.join(linked)}." if linked else text


def _build_metric(study: MetricStudy, kinds: Mapping[str, str]) -> Iterator[Block]:
    kind = "corrected for the bias of finite samples" if study.estimate == "corrected" else "as computed"
    direction = "higher is better" if study.higher_is_better else "lower is better"
    spread = (
        f" Between training seeds the metric varies with a standard deviation of {format_value(study.error_sd)} "
        f"({study.df_error} degrees of freedom)."
        if study.error_sd is not None
        else ""
    )
    yield Paragraph(f"{direction.capitalize()}; values are {kind}.{spread}")
    if study.best is not None:
        yield Paragraph(_describe_best(study))
    if study.notes:
        yield Bullets(tuple(mark_code(note) for note in study.notes))
    if study.main_effects:
        yield _effects_table(study.main_effects)
        yield Bullets(tuple(_describe_effect(main) for main in study.main_effects))
    for interaction in study.interactions:
        yield _interaction_table(interaction)
        yield Paragraph(_describe_interaction(interaction))
    yield from _build_costs(study, kinds)


def _describe_best(study: MetricStudy) -> tuple[str | Strong, ...]:
    best = study.best
    if best is None:
        return ()
    leader = (
        f"the best mean is that of {best.leader}, and this is within {format_value(best.tolerance)} of it"
        if best.leader != best.configuration and best.tolerance is not None
        else "it has the best mean as well"
    )
    chosen = f"Chosen from {best.n_candidates} by {describe_side(study.metric, best.side)}"
    bias = describe_bias(study.metric, best.side, best.n_candidates)
    sentences = [
        f"{chosen}: {bias}." if bias else f"{chosen}.",
        f"The rule: {best.rule}.",
        *_describe_own_mean(study, best),
    ]
    return ("Best configuration: ", Strong(best.configuration), f"; {leader}. {' '.join(sentences)}")


def _describe_own_mean(study: MetricStudy, best: Best) -> Iterator[str]:
    """Yield the mean of the best configuration on the tracks that score, next to that of the base model."""
    base = next((point for point in study.points if point.kind == "zero-shot"), None)
    own = next((point for point in study.points if point.configuration == best.configuration), None)
    there = f"{format_value(best.quality)} on the selection tracks" if best.side == "selection" else ""
    if own is None:
        yield f"Its mean is {there}; it has no score on the test tracks."
        return
    mean = (
        f"{there} and {format_value(own.quality)} on the sealed test tracks"
        if there
        else format_value(own.quality)
    )
    if base is None:
        if there:
            yield f"Its mean is {mean}."
        return
    is_worse = (own.quality < base.quality) if study.higher_is_better else (own.quality > base.quality)
    yield (
        f"Its mean is {mean}, that of {base.configuration} {format_value(base.quality)}"
        + (": it is worse than the base model." if is_worse else ".")
    )


def _effects_table(mains: tuple[MainEffect, ...]) -> Table:
    columns = (*text_columns("axis", "level"), *number_columns("mean", "effect", "95 % interval", "scores"))
    rows = tuple(
        _level_row(main.field, level, place) for main in mains for place, level in enumerate(main.levels)
    )
    return Table("Main effect of each axis", columns, rows, n_fixed=2)


def _level_row(field: str, level: LevelEffect, place: int) -> tuple[Cell, ...]:
    return (
        Cell(field),
        Cell(clean_text(level.label), order=float(place)),
        number_cell(level.mean),
        number_cell(level.effect, partial(format_difference, error=level.se)),
        interval_cell(level.ci_low, level.ci_high),
        number_cell(level.n_trials, format_count),
    )


def _describe_effect(main: MainEffect) -> str:
    if main.p_value is None or main.f_value is None:
        return f"{main.field}: not tested."
    known = [level.effect for level in main.levels if level.effect is not None]
    test = f"F({main.df}, {main.df_error}) = {main.f_value:.2f}, p {_say_probability(main.p_value)}"
    if main.p_value > ALPHA or not known:
        return f"{main.field}: no detectable effect ({test})."
    reach = format_value(max(known) - min(known))
    return f"{main.field}: the levels differ by up to {reach} ({test})."


def _say_probability(p_value: float) -> str:
    text = format_probability(p_value)
    return text if text.startswith("<") else f"= {text}"


def _interaction_table(found: Interaction) -> Table:
    columns = (
        *text_columns(f"{found.rows} \u00d7 {found.columns}"),
        *number_columns(*map(clean_text, found.column_labels)),
    )
    rows = tuple(
        (
            Cell(clean_text(label), order=float(i)),
            *(_interaction_cell(cell, is_best=found.best == (i, j)) for j, cell in enumerate(line)),
        )
        for i, (label, line) in enumerate(zip(found.row_labels, found.cells, strict=True))
    )
    return Table(f"{found.rows} (rows) by {found.columns} (columns), means over seeds", columns, rows)


def _interaction_cell(cell: InteractionCell, *, is_best: bool) -> Cell:
    if cell.mean is None:
        return Cell(f"{MISSING} (not run)", tone="missing")
    hint = ", ".join(cell.configurations)
    if cell.deviation is not None:
        hint += f"; {format_difference(cell.deviation)} from the sum of the effects of the axes"
    text = format_with_error(cell.mean, cell.se)
    return Cell((Strong(text),) if is_best else text, order=cell.mean, hint=hint)


def _describe_interaction(found: Interaction) -> str:
    marked = "The best mean is set in bold; \u00b1 is the standard error over training seeds. "
    if found.p_value is None or found.f_value is None:
        return f"{marked}The interaction was not tested."
    test = f"F({found.df}, {found.df_error}) = {found.f_value:.2f}, p {_say_probability(found.p_value)}"
    if found.p_value > ALPHA:
        return f"{marked}No detectable interaction ({test}): the effects above are sufficient."
    return (
        f"{marked}The axes interact ({test}): the effect of one depends on the other, so read this table "
        "rather than the effects above."
    )


def _build_costs(study: MetricStudy, kinds: Mapping[str, str]) -> Iterator[Block]:
    """Yield quality and cost, with a mark where no other configuration is as good for less."""
    fronts = {front.cost: set(front.optimal) for front in study.fronts}
    if not fronts:
        return
    columns = (
        *text_columns("configuration", *["kind"] * bool(kinds)),
        *number_columns("mean", "trainable parameters", "training time", "total time", "peak memory (GiB)"),
        *text_columns("on the Pareto front of quality against"),
    )
    words = {"trainable_params": "parameters", "train_s": "time", "peak_memory_gib": "memory"}
    rows = tuple(
        _point_row(
            point,
            [words[cost] for cost, names in fronts.items() if point.configuration in names],
            kinds,
        )
        for point in study.points[:MAX_ROWS]
    )
    yield Table("Quality and cost of every configuration, means over training seeds", columns, rows)
    yield Paragraph(
        "A configuration is on a front if no other is at least as good at a lower cost, or better at the same cost; "
        "the variation between seeds is ignored there."
    )


def _point_row(point: Point, fronts: list[str], kinds: Mapping[str, str]) -> tuple[Cell, ...]:
    return (
        Cell(point.configuration),
        *[Cell(kinds.get(point.configuration, MISSING))] * bool(kinds),
        Cell(format_with_error(point.quality, point.se), order=point.quality),
        number_cell(point.trainable_params, format_count),
        number_cell(point.train_s, format_duration),
        number_cell(point.total_s, format_duration),
        number_cell(point.peak_memory_gib, "{:.2f}".format),
        Cell(", ".join(fronts) or MISSING),
    )
