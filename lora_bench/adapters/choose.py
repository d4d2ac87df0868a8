"""Choice of a trained trial of a run: by id, by name, or the best on a metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.errors import UsageError
from lora_bench.metrics.names import is_higher_better
from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.trial_plan import TrialPlan, read_plan
from lora_bench.report.formatting import format_interval, format_value, use_plain_signs
from lora_bench.report.view import RunView
from lora_bench.results.gather import gather_results
from lora_bench.results.records import ScoreRecord
from lora_bench.results.run_records import TrialResult
from lora_bench.study.choice import describe_bias, describe_side
from lora_bench.study.table import Side, find_score

BEST = "best"


@dataclass(frozen=True)
class ChosenTrial:
    """A trial with an adapter.

    Attributes:
        plan: its settings.
        adapter: its folder, as training left it.
        view: the run, for the model card.
        reason: by what and from how many it was chosen, and its score, in words; None if it was named.
    """

    plan: TrialPlan
    adapter: Path
    view: RunView
    reason: str | None


def choose_trial(
    run_folder: Path, name: str, metric: str | None = None, *, view: RunView | None = None
) -> ChosenTrial:
    """Find a trained trial of a run.

    Args:
        run_folder: folder of the run.
        name: a trial's id, its name, or `best`.
        metric: what `best` means; the run's first metric if left out.
        view: the run's results if they were gathered already.

    Raises:
        UsageError: there is no such run, trial, metric or adapter; says what there is.
    """
    run = RunFolder(run_folder)
    if not run.plan.is_file():
        raise UsageError(
            f"{run_folder}: expected the folder of a run, with {RunFolder.plan} in it, such as runs/quickstart"
        )
    view = view or RunView(gather_results(run_folder), run_folder)
    trained = [trial for trial in view.trials if trial.adapter]
    if not trained:
        raise UsageError(f"{run_folder}: no trial has an adapter yet; see `lora-bench status {run_folder}`")
    if name == BEST:
        trial, reason = _find_best(view, trained, metric)
    else:
        trial, reason = _find_named(run_folder, view, name), None
    plans = {plan.id: plan for plan in read_plan(run.plan).trials}
    return ChosenTrial(plans[trial.id], run.trial(trial.id).adapter, view, reason)


def _find_named(run_folder: Path, view: RunView, name: str) -> TrialResult:
    found = [trial for trial in view.trials if name in (trial.id, trial.name, *trial.aliases)]
    named = [trial for trial in found if trial.adapter]
    if len(named) == 1:
        return named[0]
    choices = ", ".join(view.name_trial(trial.id) for trial in view.trials if trial.adapter)
    if len(named) > 1:
        ids = ", ".join(trial.id for trial in named)
        raise UsageError(f"--trial {name}: {len(named)} trials have this name; give the id of one: {ids}")
    if found:
        why = "is the base model" if found[0].is_zero_shot else f"is {found[0].state}"
        why = why if found[0].external is None else "is another system"
        raise UsageError(f"--trial {name}: has no adapter, it {why}; trials with one: {choices}")
    raise UsageError(f"--trial {name}: {run_folder} has no such trial; expected `best` or one of {choices}")


def _find_best(view: RunView, trained: Sequence[TrialResult], metric: str | None) -> tuple[TrialResult, str]:
    """Return the trial with the best value over all prompts, corrected for bias where that is known, and why.

    The selection side decides where there is one; the reason then tells the score on the tracks that it did not see.
    """
    chosen = metric or view.metrics[0]
    if chosen not in view.metrics:
        raise UsageError(
            f"--metric {chosen}: was not measured in this run; measured: {', '.join(view.metrics)}"
        )
    selection = {
        trial.id: score for trial in trained if (score := find_score(trial, chosen, None, "selection"))
    }
    side: Side = "selection" if selection else "test"
    scores = {trial.id: score for trial in trained if (score := view.score(trial.id, chosen, None))}
    seen = selection or scores
    if not seen:
        raise UsageError(
            f"--trial best: no trial with an adapter has a {chosen} score over all prompts; name a trial, or "
            "choose another --metric"
        )
    sign = -1.0 if is_higher_better(chosen) else 1.0
    candidates = [trial for trial in trained if trial.id in seen]
    trial = min(candidates, key=lambda trial: sign * seen[trial.id].best_value)
    own = _describe_score(scores.get(trial.id))
    if side == "selection":
        own = f"{format_value(seen[trial.id].best_value)} there, {own} on the sealed test tracks"
    by = describe_side(chosen, side)
    parts = [f"best on {chosen} of {len(candidates)} trained, by {by}: {view.name_trial(trial.id)}, {own}"]
    compared = view.contrast(trial.configuration, chosen, None)
    if compared and compared.verdict:
        parts.append(f"against zero-shot: {compared.verdict}")
    if bias := describe_bias(chosen, side, len(candidates)):
        parts.append(bias)
    repeated = view.results.repeated_choice
    if repeated is not None and repeated.metric == chosen:
        counts = {share.configuration: share.n_chosen for share in repeated.configurations}
        parts.append(
            f"it is chosen on {counts.get(trial.configuration, 0)} of {repeated.n_repeats} random halves of the "
            f"{repeated.n_tracks} tracks"
        )
    return trial, use_plain_signs("; ".join(parts))


def _describe_score(score: ScoreRecord | None) -> str:
    if score is None:
        return "no score"
    value = format_value(score.best_value)
    if score.ci_low is not None and score.ci_high is not None:
        value += f" (95 % {format_interval(score.ci_low, score.ci_high)})"
    return value
