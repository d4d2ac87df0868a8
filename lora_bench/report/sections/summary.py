"""The head of a report: what to be warned of, and three sentences on what came out."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lora_bench.report.formatting import count_noun, format_duration, format_value, join_words
from lora_bench.report.view import NO_DIFFERENCE, Configuration, RunView, is_higher_better
from lora_bench.results.search_tally import describe_rest, describe_search

MAX_NAMED = 3


def write_warnings(view: RunView) -> list[str]:
    """What makes the numbers less than they look: an untrained model, an incomplete run."""
    warnings: list[str] = []
    model: dict[str, Any] = view.results.get("model") or {}
    if model.get("trained") is False:
        warnings.append(
            f"The model {model.get('name', '')!s} is untrained (random weights that stand in for a real "
            "model): the scores below say nothing about music."
        )
    if not view.results["complete"]:
        warnings.append(_describe_gaps(view))
    return warnings


def _describe_gaps(view: RunView) -> str:
    unfinished = [trial for trial in view.trials if trial["state"] != "done"]
    missing = [
        (trial, gap)
        for trial in view.trials
        for gap in trial.get("unscored") or []
        if gap.get("cause") != "stated"
    ]
    rest = describe_rest(view.results.get("search"))
    if rest and not unfinished and not missing:
        return f"This run is incomplete: {rest}."
    text = (
        f"This run is incomplete: {f'{rest}, ' if rest else ''}"
        f"{count_noun(len(unfinished), 'trial')} of {len(view.trials):,} not done, "
        f"{count_noun(len(missing), 'cell')} missing."
    )
    named = [
        f"{view.names_of_trials[t['id']]}: {t.get('reason') or t['state']}" for t in unfinished[:MAX_NAMED]
    ]
    if not unfinished:
        names = list(
            dict.fromkeys(f"{view.names_of_trials[t['id']]} on {gap['metric']}" for t, gap in missing)
        )
        named = [f"not scored: {name}" for name in names[:MAX_NAMED]]
    n_more = len(unfinished) - len(named)
    more = f"; and {n_more} more under What is missing" if n_more > 0 else ""
    return f"{text} {'; '.join(named)}{more}." if named else text


def write_summary(view: RunView) -> list[str]:
    """Three sentences: what was compared, what came out, and what to hold it against; a fourth on a search."""
    search = view.results.get("search")
    told = [describe_search(search)] if search else []
    return [_describe_setting(view), _describe_outcome(view), _describe_bounds(view), *told]


def _describe_setting(view: RunView) -> str:
    dataset: dict[str, Any] = view.results.get("dataset") or {}
    model: dict[str, Any] = view.results.get("model") or {}
    generation: dict[str, Any] = view.spec.get("generation") or {}
    n_runs = sum(item.n_seeds for item in view.fine_tuned)
    runs = f" ({count_noun(n_runs, 'training run')})" if n_runs != len(view.fine_tuned) else ""
    sentence = (
        f"{count_noun(len(view.fine_tuned), 'LoRA configuration')}{runs} of "
        f"{model.get('name') or (view.spec.get('model') or {}).get('id') or 'the model'} "
        f"against the model itself (zero-shot) on {count_noun(len(view.prompts), 'prompt')}"
    )
    if generation.get("n_clips"):
        sentence += f" with {generation['n_clips']} clips of {generation.get('clip_s', 0):g} s each"
    if generation.get("quantization"):
        sentence += f" (decoded approximately, in {generation['quantization']})"
    if dataset.get("train"):
        train, held_out = dataset["train"], dataset["eval"]
        sentence += (
            f", trained on {count_noun(train['n_tracks'], 'track')} ({format_duration(train['duration_s'])}) "
            f"of {dataset.get('name') or 'the dataset'} and scored against {held_out['n_tracks']} held-out "
            f"{'track' if held_out['n_tracks'] == 1 else 'tracks'}"
        )
    return sentence + "."


def _describe_outcome(view: RunView) -> str:
    """Which configuration did what on how many prompts; by tests where there are tests."""
    if not view.fine_tuned or view.zero_shot is None:
        return "There is nothing to compare zero-shot with."
    told: dict[str, list[str]] = {}
    for metric in view.metrics:
        outcome = _describe_metric_outcome(view, metric)
        if outcome:
            told.setdefault(outcome, []).append(metric)
    parts = [f"on {join_words(metrics)} {outcome}" for outcome, metrics in told.items()]
    if not parts:
        return "No fine-tuned configuration has been scored, so nothing is known of what fine-tuning did."
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


def _describe_tested(view: RunView, metric: str, scored: list[Configuration]) -> str:
    """Counts of verdicts per prompt of the configuration with most improvements."""
    counts = {
        item.name: Counter(v for p in view.prompts if (v := view.cell(item, metric, p).verdict))
        for item in scored
    }
    overall = Counter(v for item in scored if (v := view.cell(item, metric, None).verdict))
    best = max(scored, key=lambda item: counts[item.name]["better"] - counts[item.name]["worse"])
    found = counts[best.name]
    n = sum(found.values())
    if not any(count["better"] or count["worse"] for count in counts.values()) and not (
        overall["better"] or overall["worse"]
    ):
        return "no configuration differs detectably from zero-shot on any prompt"
    others = n - found["better"] - found["worse"]
    words = [f"better on {found['better']} of {count_noun(n, 'prompt')}"]
    if found["worse"]:
        words.append(f"worse on {found['worse']}")
    if others:
        words.append(f"with {NO_DIFFERENCE} on {others}")
    text = f"{best.name} is {join_words(words)}"
    verdict = view.cell(best, metric, None).verdict
    if verdict:
        text += f" (over all prompts: {verdict})"
    if len(scored) > 1 and overall:
        told = [
            f"{number} {'is' if number == 1 else 'are'} {word}" for word, number in sorted(overall.items())
        ]
        text += f"; of {len(scored)} configurations over all prompts {join_words(told)}"
    return text


def _describe_untested(view: RunView, metric: str, scored: list[Configuration]) -> str:
    """Plain differences of point values, said to be untested."""
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
    """Whether the differences can be trusted as they stand."""
    tested = bool(view.part("comparisons"))
    n_seeds = max((item.n_seeds for item in view.fine_tuned), default=0)
    floors = sorted({str(floor["floor"]) for floor in view.part("floors") if floor.get("floor")})
    said = [
        "the verdicts are paired tests at 5 % with Holm's correction over prompts"
        if tested
        else "no differences were tested, so a smaller or larger value alone is no finding"
    ]
    if n_seeds == 1:
        said.append("each configuration was trained once (n=1), which says nothing of another training run")
    elif n_seeds > 1:
        said.append(f"configurations were trained with up to {n_seeds} seeds")
    said.append(
        f"the floors to hold the values against are {join_words(floors)}"
        if floors
        else "no floors were measured"
    )
    sentence = "; ".join(said)
    return sentence[0].upper() + sentence[1:] + "."
