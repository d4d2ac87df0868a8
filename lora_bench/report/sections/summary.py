"""The head of a report: its warnings, and three sentences on the outcome."""

from __future__ import annotations

from lora_bench.metrics.verdicts import Verdict
from lora_bench.report.formatting import (
    add_interval,
    count_noun,
    format_difference,
    format_duration,
    join_words,
)
from lora_bench.report.view import RunView
from lora_bench.results.records import Contrast
from lora_bench.results.search_tally import describe_rest, describe_search
from lora_bench.results.settings import read_section

MAX_NAMED = 3
_ORDER = [*Verdict, "without a verdict"]


def write_warnings(view: RunView) -> list[str]:
    """Return what limits the numbers: an untrained model, an incomplete run."""
    warnings: list[str] = []
    model = view.results.model
    if model.trained is False:
        warnings.append(
            f"The model {model.name or ''} is untrained (random weights that stand in for a real "
            "model): the scores below say nothing about music."
        )
    if not view.results.complete:
        warnings.append(_describe_gaps(view))
    return warnings


def _describe_gaps(view: RunView) -> str:
    unfinished = [trial for trial in view.trials if trial.state != "done"]
    missing = [(trial, gap) for trial in view.trials for gap in trial.unscored if gap.cause != "stated"]
    rest = describe_rest(view.results.search)
    if rest and not unfinished and not missing:
        return f"This run is incomplete: {rest}."
    text = (
        f"This run is incomplete: {f'{rest}, ' if rest else ''}"
        f"{count_noun(len(unfinished), 'trial')} of {len(view.trials):,} not done, "
        f"{count_noun(len(missing), 'cell')} missing."
    )
    named = [f"{view.name_trial(t.id)}: {t.reason or t.state}" for t in unfinished[:MAX_NAMED]]
    if not unfinished:
        names = list(dict.fromkeys(f"{view.name_trial(t.id)} on {gap.metric}" for t, gap in missing))
        named = [f"not scored: {name}" for name in names[:MAX_NAMED]]
    n_more = len(unfinished) - len(named)
    more = f"; and {n_more} more under What is missing" if n_more > 0 else ""
    return f"{text} {'; '.join(named)}{more}." if named else text


def write_summary(view: RunView) -> list[str]:
    """Return three sentences: what was compared, the outcome, and its limits; a fourth on a search."""
    search = [] if view.results.search is None else [describe_search(view.results.search)]
    return [_describe_setting(view), _describe_outcome(view), _describe_bounds(view), *search]


def _describe_setting(view: RunView) -> str:
    dataset, generation = view.results.dataset, view.generation
    n_runs = sum(item.n_seeds for item in view.fine_tuned)
    runs = f" ({count_noun(n_runs, 'training run')})" if n_runs != len(view.fine_tuned) else ""
    sentence = (
        f"{count_noun(len(view.fine_tuned), 'LoRA configuration')}{runs} of "
        f"{view.results.model.name or read_section(view.spec, 'model').get('id') or 'the model'} "
        f"against the model itself (zero-shot) on {count_noun(len(view.prompts), 'prompt')}"
    )
    if generation.get("n_clips"):
        sentence += f" with {generation['n_clips']} clips of {generation.get('clip_s', 0):g} s each"
    if generation.get("quantization"):
        sentence += f" (decoded approximately, in {generation['quantization']})"
    if dataset.train is not None and dataset.eval is not None:
        sentence += (
            f", trained on {count_noun(dataset.train.n_tracks, 'track')} "
            f"({format_duration(dataset.train.duration_s)}) of {dataset.name or 'the dataset'} and scored against "
            f"{count_noun(dataset.eval.n_tracks, 'held-out track')}"
        )
    return sentence + "."


def _describe_outcome(view: RunView) -> str:
    """Return the outcome on the primary metric, over the genre's prompts."""
    if not view.fine_tuned or view.zero_shot is None:
        return "There is nothing to compare zero-shot with."
    metric = view.primary_metric or next(iter(view.metrics), "")
    found = [item for name in view.fine_tuned if (item := view.contrast(name.name, metric, None)) is not None]
    if not found:
        return "No fine-tuned configuration was compared with zero-shot, so the effect of fine-tuning is unknown."
    groups: dict[str, list[Contrast]] = {}
    for item in found:
        groups.setdefault(item.verdict or "without a verdict", []).append(item)
    parts = [
        f"{join_words([_describe_change(item) for item in items[:MAX_NAMED]])}"
        f"{f' and {len(items) - MAX_NAMED} more' if len(items) > MAX_NAMED else ''} "
        f"{'is' if len(items) == 1 else 'are'} {verdict}"
        for verdict, items in sorted(groups.items(), key=lambda pair: _ORDER.index(pair[0]))
    ]
    return f"On {metric} over {view.pooled}, compared with zero-shot, {'; '.join(parts)}."


def _describe_change(item: Contrast) -> str:
    change = add_interval(format_difference(item.delta), item.ci_low, item.ci_high, signed=True)
    return f"{item.configuration} ({change})"


def _describe_bounds(view: RunView) -> str:
    """Return the limits of the outcome: tests, training seeds, reference levels."""
    n_seeds = max((item.n_seeds for item in view.fine_tuned), default=0)
    levels = sorted({floor.floor for floor in view.results.floors})
    limits = [
        "the intervals hold simultaneously over the configurations with 95 %"
        if view.results.contrasts
        else "no differences were computed, so a smaller or larger value alone is no finding"
    ]
    if n_seeds == 1:
        limits.append(
            "each configuration was trained once, so verdicts are about this adapter, not about new trainings"
        )
    elif n_seeds > 1:
        limits.append(f"configurations were trained with up to {n_seeds} seeds")
    limits.append(
        f"the reference levels for the values are {join_words(levels)}"
        if levels
        else "no reference levels were measured"
    )
    sentence = "; ".join(limits)
    return sentence[0].upper() + sentence[1:] + "."
