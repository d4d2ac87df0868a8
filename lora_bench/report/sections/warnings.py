"""What limits the numbers of a report: an untrained model, an incomplete run."""

from __future__ import annotations

from lora_bench.report.formatting import count_noun
from lora_bench.report.sections.systems import describe_partial
from lora_bench.report.view import RunView
from lora_bench.results.search_tally import describe_rest
from lora_bench.results.trial_states import explain_state

MAX_NAMED = 3


def write_warnings(view: RunView) -> list[str]:
    """Return what limits the numbers: an untrained model, an incomplete run, another system with too few clips."""
    warnings: list[str] = []
    model = view.results.model
    if model.trained is False:
        warnings.append(
            f"The model {model.name or ''} is untrained (random weights that stand in for a real "
            "model): the scores below say nothing about music."
        )
    if not view.results.complete:
        warnings.append(_describe_gaps(view))
    return [*warnings, *describe_partial(view)]


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
    named = [f"{view.name_trial(t.id)}: {explain_state(t)}" for t in unfinished[:MAX_NAMED]]
    if not unfinished:
        names = list(dict.fromkeys(f"{view.name_trial(t.id)} on {gap.metric}" for t, gap in missing))
        named = [f"not scored: {name}" for name in names[:MAX_NAMED]]
    n_more = len(unfinished) - len(named)
    more = f"; and {n_more} more under What is missing" if n_more > 0 else ""
    return f"{text} {'; '.join(named)}{more}." if named else text
