"""`lora-bench plan`: list the trials, why each one runs, and the time, memory and disk space it takes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import to_json

from lora_bench.cli.inputs import load_plan
from lora_bench.cli.options import json_option, option, overrides_option, runs_dir_option, spec_option
from lora_bench.cli.outlook import Outlook, count_choices, foresee_trials, sum_up
from lora_bench.cli.plan_text import format_outlooks, format_time, write_notes
from lora_bench.cli.planned_power import foresee_power
from lora_bench.cli.tables import print_json_text
from lora_bench.errors import EXIT_OK, Problem, SpecError, UsageError
from lora_bench.forecast import Prediction, find_device, forecast_cache, read_history
from lora_bench.forecast.cards import choose_card
from lora_bench.machine.gpus import limit_gpus, require_gpus
from lora_bench.planning.plan import MANY_TRIALS
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.runner.tuning import plan_later, plan_step
from lora_bench.store import JsonObject, to_jsonable

SCHEMA = 1


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench plan`."""

    spec: Path = spec_option()
    overrides: Sequence[str] = overrides_option()
    runs_dir: Path = runs_dir_option()
    probe: bool = option(
        "--probe", help="measure memory and time of models that no earlier run has measured on this machine"
    )
    gpu: str | None = option(
        "--gpu",
        metavar="NAME",
        help='forecast memory and time on paper for a GPU such as "H100 80GB", without one',
    )
    power: Path | None = option(
        "--power",
        metavar="RUN",
        help="smallest difference that a verdict can find, by the variances of an earlier run (folder, spec or report)",
    )
    detect: str | None = option(
        "--detect",
        metavar="DELTA",
        help="with --power: what it takes to find this difference, such as 0.5, or 20%% of zero-shot's score",
    )
    json: bool = json_option()


def execute(options: Options) -> int:
    """Print the plan as a table or as JSON.

    Raises:
        UsageError: the earlier run of `--power` is missing or has no differences, `--detect` is no difference, or
            the GPU of `--gpu` is not known.
        SpecError: after the plan, if an input is missing on this machine, or LoRA targets match no module.
    """
    card = None if options.gpu is None else choose_card(options.gpu)
    if card is not None and options.probe:
        raise UsageError(
            "--probe: it measures this machine, and --gpu forecasts another one; leave out one of them"
        )
    plan, missing = load_plan(options.spec, options.overrides)
    runs_dir = options.runs_dir.absolute()
    plan = plan_step(plan, runs_dir / plan.name)
    scored = plan_later(plan) if plan.is_tuning else plan
    power = foresee_power(scored, options.power, options.detect, options.runs_dir)
    if options.probe:
        _probe(plan, runs_dir)
    outlooks = foresee_trials(plan, runs_dir, card)
    later = foresee_trials(scored, runs_dir, card) if plan.is_tuning else []
    cache_bytes = forecast_cache(plan, runs_dir / plan.name)
    if options.json:
        # Python's own writer takes as long over 10,000 trials as everything else together
        document = make_document(plan, runs_dir / plan.name, outlooks, cache_bytes)
        if power is not None:
            document = {**document, "power": power.list_fields()}
        problems = [str(problem) for problem in missing]
        print_json_text(to_json({**document, "problems": problems}, indent=1).decode())
        return _finish(missing)
    print(format_outlooks(outlooks))
    notes = write_notes(plan, outlooks, runs_dir, cache_bytes, card)
    if later and (time_s := sum_up(later, 0, cache_bytes).time_s):
        notes.append(f"step 2 of 2: about {format_time(time_s)}, one trial at a time")
    for line in [*notes, *(power.describe() if power is not None else ())]:
        print(line)
    return _finish(missing)


def _finish(missing: list[Problem]) -> int:
    if missing:
        sys.stdout.flush()
        raise SpecError(missing)
    return EXIT_OK


def _probe(plan: ExperimentPlan, runs_dir: Path) -> None:
    """Measure every model without a record on this machine, with its largest trial."""
    from lora_bench.cli.progress_display import open_display
    from lora_bench.forecast.probe import measure_probe

    history = read_history(runs_dir)
    n_gpus = plan.spec.resources.gpu
    device = find_device(n_gpus, history)
    heaviest: dict[str, TrialPlan] = {}
    for trial in plan.trials:
        if trial.train is None or history.of_model(trial.model, device):
            continue
        key = f"{trial.model.id} {trial.model.backend} {trial.model.dtype}"
        if key not in heaviest or _weigh(trial) > _weigh(heaviest[key]):
            heaviest[key] = trial
    if heaviest:
        require_gpus(n_gpus)
    with open_display(quiet=False) as progress, limit_gpus(n_gpus):
        for trial in heaviest.values():
            measure_probe(trial, runs_dir, progress)


def _weigh(trial: TrialPlan) -> float:
    """Return the seconds of audio in one forward pass of training."""
    return 0.0 if trial.train is None else trial.train.batch_size * trial.dataset.clip_s


def make_document(
    plan: ExperimentPlan, run_folder: Path, outlooks: Sequence[Outlook], cache_bytes: int | None
) -> JsonObject:
    """Return the plan for scripts; unknown values are null."""
    trials = [
        {
            **to_jsonable(outlook.trial),
            "reason": outlook.reason.kind,
            "reason_text": outlook.reason.text,
            "predicted": _write_prediction(outlook.prediction),
        }
        for outlook in outlooks
    ]
    return {
        "schema": SCHEMA,
        "name": plan.name,
        "run_folder": run_folder.as_posix(),
        "baseline": plan.baseline,
        "overrides": list(plan.overrides),
        "override_effects": list(plan.override_effects),
        "needs_yes": plan.n_to_run > MANY_TRIALS,
        "predicted": to_jsonable(sum_up(outlooks, count_choices(plan, outlooks), cache_bytes)),
        "trials": trials,
    }


FIGURES = (
    "disk_bytes", "memory_gib", "memory_origin", "memory_basis", "time_basis", "time_s", "origin", "n_records",
)  # fmt: skip


def _write_prediction(prediction: Prediction) -> JsonObject:
    adapter, stages, checkpointing = prediction.adapter, prediction.stages, prediction.checkpointing
    resolved = {} if checkpointing is None else {"gradient_checkpointing": to_jsonable(checkpointing)}
    on_gpu = {} if stages is None else {"device": prediction.device, "stages": to_jsonable(stages)}
    return {
        "matched_modules": None if adapter is None else dict(adapter.matched_modules),
        "trainable_params": None if adapter is None else adapter.trainable_params,
        "adapter_bytes": None if adapter is None else adapter.n_bytes,
        "problem": None if adapter is None else adapter.problem,
        **on_gpu,
        **resolved,
        **{name: getattr(prediction, name) for name in FIGURES},
    }
