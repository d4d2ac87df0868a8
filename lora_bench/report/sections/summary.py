"""The head of a report: its warnings, and three sentences on the outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lora_bench.metrics.verdicts import Verdict
from lora_bench.report.formatting import count_noun, format_duration, format_value, join_words
from lora_bench.report.view import Configuration, RunView, is_higher_better
from lora_bench.results.search_tally import describe_rest, describe_search
from lora_bench.results.settings import read_section

MAX_NAMED = 3


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
    """Return the outcome by metric; from tests where there are tests."""
    if not view.fine_tuned or view.zero_shot is None:
        return "There is nothing to compare zero-shot with."
    outcomes: dict[str, list[str]] = {}
    for metric in view.metrics:
        outcome = _describe_metric_outcome(view, metric)
        if outcome:
            outcomes.setdefault(outcome, []).append(metric)
    parts = [f"on {join_words(metrics)} {outcome}" for outcome, metrics in outcomes.items()]
    if not parts:
        return "No fine-tuned configuration has been scored, so the effect of fine-tuning is unknown."
    sentence = "; ".join(parts)
    return sentence[0].upper() + sentence[1:] + "."


def _describe_metric_outcome(view: RunView, metric: str) -> str:
    scored = [
        item
        for item in view.fine_tuned
        if any(view.cell(item, metric, p).value is not None for p in view.prompts)
    ]
    if not scored:
        return ""
    if any(view.cell(item, metric, prompt).verdict for item in scored for prompt in (*view.prompts, None)):
        return _describe_tested(view, metric, scored)
    return _describe_untested(view, metric, scored)


def _describe_tested(view: RunView, metric: str, scored: Sequence[Configuration]) -> str:
    """Return the counts of verdicts per prompt for the configuration with most improvements."""
    counts = {
        item.name: Counter(v for p in view.prompts if (v := view.cell(item, metric, p).verdict))
        for item in scored
    }
    overall = Counter(v for item in scored if (v := view.cell(item, metric, None).verdict))
    best = max(scored, key=lambda item: counts[item.name][Verdict.BETTER] - counts[item.name][Verdict.WORSE])
    found = counts[best.name]
    n = sum(found.values())
    if not any(count[Verdict.BETTER] or count[Verdict.WORSE] for count in (*counts.values(), overall)):
        return "no configuration differs detectably from zero-shot on any prompt"
    n_better, n_worse = found[Verdict.BETTER], found[Verdict.WORSE]
    words = [f"better on {n_better} of {count_noun(n, 'prompt')}"]
    if n_worse:
        words.append(f"worse on {n_worse}")
    if n > n_better + n_worse:
        words.append(f"with {Verdict.NO_DIFFERENCE} on {n - n_better - n_worse}")
    text = f"{best.name} is {join_words(words)}"
    verdict = view.cell(best, metric, None).verdict
    if verdict:
        text += f" (over all prompts: {verdict})"
    if len(scored) > 1 and overall:
        shares = [_count_verdict(number, word) for word, number in sorted(overall.items())]
        text += f"; of {len(scored)} configurations over all prompts {join_words(shares)}"
    return text


def _count_verdict(number: int, verdict: str) -> str:
    if verdict == Verdict.NO_DIFFERENCE:
        return f"{number} {'shows' if number == 1 else 'show'} {verdict}"
    return f"{number} {'is' if number == 1 else 'are'} {verdict}"


def _describe_untested(view: RunView, metric: str, scored: Sequence[Configuration]) -> str:
    """Return plain differences of point values, marked as untested."""
    sign = -1.0 if is_higher_better(metric) else 1.0
    pairs = {
        item.name: [
            (base, tuned)
            for prompt in view.prompts
            if (base := _base_value(view, item, metric, prompt)) is not None
            and (tuned := view.cell(item, metric, prompt).value) is not None
        ]
        for item in scored
    }
    wins = {name: sum(sign * tuned < sign * base for base, tuned in values) for name, values in pairs.items()}
    compared = [item for item in scored if pairs[item.name]]
    if not compared:
        return ""
    best = max(compared, key=lambda item: wins[item.name])
    n = len(pairs[best.name])
    text = f"{best.name} has the better value on {wins[best.name]} of {count_noun(n, 'prompt')}"
    base, tuned = _base_value(view, best, metric, None), view.cell(best, metric, None).value
    if base is not None and tuned is not None:
        text += f" (all prompts: {format_value(base)} zero-shot, {format_value(tuned)} fine-tuned)"
    return text + ", which was not tested"


def _base_value(view: RunView, item: Configuration, metric: str, prompt: str | None) -> float | None:
    base = view.base_of(item)
    return view.cell(base, metric, prompt).value if base else None


def _describe_bounds(view: RunView) -> str:
    """Return the limits of the outcome: tests, training seeds, reference levels."""
    n_seeds = max((item.n_seeds for item in view.fine_tuned), default=0)
    levels = sorted({floor.floor for floor in view.results.floors})
    limits = [
        "the verdicts are paired tests at 5 % with Holm's correction over prompts"
        if view.results.comparisons
        else "no differences were tested, so a smaller or larger value alone is no finding"
    ]
    if n_seeds == 1:
        limits.append(
            "each configuration was trained once (n=1), so the spread over training runs is unknown"
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
