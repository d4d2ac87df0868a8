"""`lora-bench validate`: check specs, and that the files they name are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.cli.inputs import load_plan
from lora_bench.cli.options import option
from lora_bench.errors import EXIT_OK, Problem, SpecError, UsageError
from lora_bench.planning.trainings import count_trainings
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.report.formatting import count_noun


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench validate`."""

    specs: Sequence[Path] = option(nargs="+", metavar="SPEC", help="YAML files or shipped specs")
    spec_only: bool = option(
        "--spec-only", help="do not look for recordings, captions and models on this machine"
    )


def execute(options: Options) -> int:
    """Print a line per valid spec, then the problems of all others.

    Raises:
        SpecError: with the problems of every spec.
        UsageError: a file cannot be opened.
    """
    problems: list[Problem] = []
    for path in options.specs:
        try:
            plan, missing = load_plan(path, with_inputs=not options.spec_only)
        except SpecError as error:
            problems += error.problems
        except UsageError as error:
            if len(options.specs) == 1:
                raise
            problems.append(Problem(str(path), "", str(error).removeprefix(f"{path}: ")))
        else:
            problems += missing
            if not missing:
                print(f"{path}: ok, {describe_plan(plan)}", *plan.notes, sep="\n  ")
    if problems:
        raise SpecError(problems)
    return EXIT_OK


def describe_plan(plan: ExperimentPlan) -> str:
    """`2 zero-shot and 8 fine-tuned trials (4 trainings), 3 prompts, 50 clips each, 3 metrics`."""
    if plan.is_tuning:
        from lora_bench.runner.tuning import plan_later  # loads numpy

        tried = {trial.training or trial.id for trial in plan.trials}
        # an attempt with a seed that is scored is the training of that trial, under the same id
        later = {t.training or t.id for t in plan_later(plan).trials if t.train is not None} - tried
        return (
            f"{len(plan.trials)} attempts of tune ({count_noun(len(tried), 'training')}), then {plan.n_later} trials "
            f"({count_noun(len(later), 'training')}){_describe_clips(plan)}"
        )
    n_zero_shot = sum(trial.kind == "zero-shot" for trial in plan.trials)
    n_existing = sum(trial.existing_adapter is not None for trial in plan.trials)
    n_external = sum(trial.kind == "external" for trial in plan.trials)
    n_tuned = len(plan.trials) - n_zero_shot - n_existing - n_external
    existing = f", {count_noun(n_existing, 'existing adapter')}" if n_existing else ""
    external = f", and {n_external} of other systems" if n_external else ""
    optuna = plan.spec.search.optuna
    n_candidates = sum(trial.search is not None for trial in plan.trials)
    searched = f" (a search tries {optuna.n_trials} of {n_candidates})" if optuna is not None else ""
    n_trainings = count_trainings([trial.training for trial in plan.trials if trial.train is not None])
    shared = f" ({count_noun(n_trainings, 'training')})" if n_trainings < n_tuned else ""
    trials = f"{n_zero_shot} zero-shot and {count_noun(n_tuned, 'fine-tuned trial')}"
    if plan.spec.trials.zero_shot_only:
        trials = f"{count_noun(n_zero_shot, 'zero-shot trial')} alone"
    return f"{trials}{searched}{shared}{existing}{external}{_describe_clips(plan)}"


def _describe_clips(plan: ExperimentPlan) -> str:
    prompts, metrics = (
        count_noun(len(plan.spec.prompts), "prompt"),
        count_noun(len(plan.spec.metrics), "metric"),
    )
    return f", {prompts}, {plan.spec.generation.n_clips} clips each, {metrics}"
