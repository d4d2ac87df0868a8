"""`lora-bench plan`: list the trials, why each one runs, and the time, memory and disk space it takes."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from pydantic_core import to_json

from lora_bench.cli.commands.validate import describe_plan
from lora_bench.cli.dataset_sides import describe_sides
from lora_bench.cli.inputs import load_plan
from lora_bench.cli.options import json_option, option, overrides_option, runs_dir_option, spec_option
from lora_bench.cli.planned_power import foresee_power
from lora_bench.cli.tables import format_table, print_json_text
from lora_bench.errors import EXIT_OK, Problem, SpecError
from lora_bench.forecast import (
    Forecaster,
    Outcome,
    Prediction,
    describe_accuracy,
    find_obstacle,
    forecast_cache,
    read_history,
    read_outcomes,
)
from lora_bench.forecast.held_out import describe_few_tracks
from lora_bench.planning.plan import MANY_TRIALS, ExperimentPlan, TrialPlan
from lora_bench.planning.run_folder import RunFolder
from lora_bench.results.search_tally import tally_plan
from lora_bench.runner.freshness import Reason, RunHistory
from lora_bench.runner.search.optuna import INSTALL
from lora_bench.store import JsonObject, to_jsonable

SCHEMA = 1
HEAD = (
    "trial", "rank", "alpha", "targets", "steps", "seed", "modules", "params", "adapter", "memory", "disk",
    "time", "why it runs",
)  # fmt: skip
NUMBERS = (1, 2, 4, 5, 6, 7, 8, 9, 10, 11)
UNKNOWN = "?"


@dataclass(frozen=True)
class Outlook:
    """A trial with its reason and its prediction."""

    trial: TrialPlan
    reason: Reason
    prediction: Prediction
    is_chosen_later: bool = False
    """Whether a search has yet to choose it."""

    @property
    def is_open(self) -> bool:
        """Return whether it will or may run."""
        return self.reason.kind not in {"cached", "untried"}


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench plan`."""

    spec: Path = spec_option()
    overrides: Sequence[str] = overrides_option()
    runs_dir: Path = runs_dir_option()
    probe: bool = option(
        "--probe", help="measure memory and time of models that no earlier run has measured on this machine"
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
        UsageError: the earlier run of `--power` is missing or has no differences, or `--detect` is no difference.
        SpecError: after the plan, if an input is missing on this machine, or LoRA targets match no module.
    """
    plan, missing = load_plan(options.spec, options.overrides)
    runs_dir = options.runs_dir.absolute()
    power = foresee_power(plan, options.power, options.detect, options.runs_dir)
    if options.probe:
        _probe(plan, runs_dir)
    outlooks = _foresee(plan, runs_dir)
    cache_bytes = forecast_cache(plan, runs_dir / plan.name)
    if options.json:
        # Python's own writer takes as long over 10,000 trials as everything else together
        document = make_document(plan, runs_dir / plan.name, outlooks, cache_bytes)
        if power is not None:
            document = {**document, "power": power.list_fields()}
        problems = [str(problem) for problem in missing]
        print_json_text(to_json({**document, "problems": problems}, indent=1).decode())
        return _finish(missing)
    print(format_table(HEAD, [_make_row(outlook) for outlook in outlooks], right=NUMBERS))
    notes = _write_notes(plan, outlooks, runs_dir, cache_bytes)
    for line in [*notes, *(power.describe() if power is not None else ())]:
        print(line)
    return _finish(missing)


def _finish(missing: list[Problem]) -> int:
    if missing:
        sys.stdout.flush()
        raise SpecError(missing)
    return EXIT_OK


def _foresee(plan: ExperimentPlan, runs_dir: Path) -> list[Outlook]:
    """Return every trial with its reason and its prediction; finished trials take no time."""
    run_folder = runs_dir / plan.name
    history, tally = RunHistory(run_folder), tally_plan(run_folder, plan)
    forecaster = Forecaster(read_history(runs_dir), has_gpu=plan.spec.resources.gpu > 0)
    outlooks: list[Outlook] = []
    for trial in plan.trials:
        reason = history.explain(trial, tally)
        prediction = forecaster.predict(trial, RunFolder(run_folder).trial(trial.id).path)
        if reason.kind == "cached":
            prediction = replace(prediction, time_s=0.0, time_basis="none")
        later = tally is not None and not tally.is_over and trial.id in tally.unbegun
        outlooks.append(Outlook(trial, reason, prediction, is_chosen_later=later))
    return outlooks


def _probe(plan: ExperimentPlan, runs_dir: Path) -> None:
    """Measure every model without a record on this machine, with its largest trial."""
    from lora_bench.cli.progress_display import open_display
    from lora_bench.forecast.probe import measure_probe

    history = read_history(runs_dir)
    heaviest: dict[str, TrialPlan] = {}
    for trial in plan.trials:
        if trial.train is None or history.of_model(trial.model):
            continue
        key = f"{trial.model.id} {trial.model.backend} {trial.model.dtype}"
        if key not in heaviest or _weigh(trial) > _weigh(heaviest[key]):
            heaviest[key] = trial
    with open_display(quiet=False) as progress:
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
        "predicted": to_jsonable(_sum_up(outlooks, _count_choices(plan, outlooks), cache_bytes)),
        "trials": trials,
    }


FIGURES = (
    "disk_bytes", "memory_gib", "memory_origin", "memory_basis", "time_basis", "time_s", "origin", "n_records",
)  # fmt: skip


def _write_prediction(prediction: Prediction) -> JsonObject:
    adapter = prediction.adapter
    return {
        "matched_modules": None if adapter is None else dict(adapter.matched_modules),
        "trainable_params": None if adapter is None else adapter.trainable_params,
        "adapter_bytes": None if adapter is None else adapter.n_bytes,
        "problem": None if adapter is None else adapter.problem,
        **{name: getattr(prediction, name) for name in FIGURES},
    }


def _count_choices(plan: ExperimentPlan, outlooks: Sequence[Outlook]) -> int:
    """Return how many trials a search still has to choose."""
    optuna = plan.spec.search.optuna
    if optuna is None:
        return 0
    n_tried = sum(
        outlook.trial.search is not None and not outlook.is_chosen_later and outlook.reason.kind != "untried"
        for outlook in outlooks
    )
    return max(0, optuna.n_trials - n_tried)


@dataclass(frozen=True)
class Sums:
    """Time, disk and peak memory of the trials that are still to run; None if any is unknown."""

    n_to_run: int
    time_s: float | None
    disk_bytes: float | None
    cache_bytes: int | None
    """Part of `disk_bytes`."""
    memory_gib: float | None


def _sum_up(outlooks: Sequence[Outlook], n_choices: int, cache_bytes: int | None) -> Sums:
    """Add up the predictions.

    Of the trials that a search chooses from, the `n_choices` largest count, so the sums are upper bounds.
    """
    fixed = [item.prediction for item in outlooks if item.is_open and not item.is_chosen_later]
    offered = [item.prediction for item in outlooks if item.is_open and item.is_chosen_later]
    tuned = [item.prediction for item in outlooks if item.is_open and item.trial.train is not None]
    memories = [item.memory_gib for item in tuned if not item.is_trained]
    disk_bytes = _add([item.disk_bytes for item in fixed], [item.disk_bytes for item in offered], n_choices)
    known = [value for value in memories if value is not None]
    return Sums(
        n_to_run=len(fixed) + min(n_choices, len(offered)),
        time_s=_add([item.time_s for item in fixed], [item.time_s for item in offered], n_choices),
        disk_bytes=None if disk_bytes is None or cache_bytes is None else disk_bytes + cache_bytes,
        cache_bytes=cache_bytes,
        memory_gib=max(known) if known and len(known) == len(memories) else None,
    )


def _add(
    fixed: Sequence[float | None], offered: Sequence[float | None], n_choices: int
) -> int | float | None:
    """Return the sum of `fixed` and of the largest `n_choices` of `offered`; None if any is unknown."""
    known = [value for value in fixed if value is not None]
    others = sorted((value for value in offered if value is not None), reverse=True)
    if len(known) + len(others) < len(fixed) + len(offered):
        return None
    chosen = [*known, *others[:n_choices]]
    return sum(chosen) if all(isinstance(value, int) for value in chosen) else math.fsum(chosen)


def _make_row(outlook: Outlook) -> tuple[str, ...]:
    trial, prediction = outlook.trial, outlook.prediction
    adapter = prediction.adapter
    sizes = ("-", "-", "-")
    if trial.lora is not None:
        sizes = (UNKNOWN, UNKNOWN, UNKNOWN)
    if adapter is not None:
        n_modules = sum(adapter.matched_modules.values())
        sizes = (str(n_modules), f"{adapter.trainable_params:,}", format_bytes(adapter.n_bytes))
    memory = "-" if trial.train is None or prediction.is_trained else UNKNOWN
    if prediction.memory_gib is not None:
        memory = f"{_mark(prediction.memory_basis)}{prediction.memory_gib:.1f} GiB"
    time = format_time(prediction.time_s) if outlook.is_open else "-"
    if prediction.time_s is not None and outlook.is_open:
        time = f"{_mark(prediction.time_basis)}{time}"
    return (
        trial.name,
        *_describe_lora(trial),
        "-" if trial.train_seed is None else str(trial.train_seed),
        *sizes,
        memory,
        format_bytes(prediction.disk_bytes),
        time,
        outlook.reason.text,
    )


def _describe_lora(trial: TrialPlan) -> tuple[str, str, str, str]:
    if trial.lora is None or trial.train is None:
        return ("-", "-", "-", "-")
    targets = trial.lora.targets if isinstance(trial.lora.targets, str) else " ".join(trial.lora.targets)
    return (str(trial.lora.rank), f"{trial.lora.resolved_alpha:g}", targets, str(trial.train.steps))


def _write_notes(
    plan: ExperimentPlan, outlooks: Sequence[Outlook], runs_dir: Path, cache_bytes: int | None
) -> list[str]:
    lines = [
        *(f"override: {line}" for line in plan.override_effects),
        *plan.notes,
        *describe_few_tracks(plan),
        *describe_sides(plan, runs_dir / plan.name),
    ]
    lines += _describe_obstacles(outlooks)
    lines += _describe_origins(outlooks, read_outcomes(runs_dir), has_gpu=plan.spec.resources.gpu > 0)
    n_choices = _count_choices(plan, outlooks)
    if n_choices and find_spec("optuna") is None:
        lines.append(f"warning: search.optuna: optuna is not installed; run `{INSTALL}` in the repository")
    sums = _sum_up(outlooks, n_choices, cache_bytes)
    n_done = sum(outlook.reason.kind == "cached" for outlook in outlooks)
    at_most = " at most" if n_choices else ""
    lines.append(
        f"{plan.name}: {describe_plan(plan)}; {sums.n_to_run} to run, {n_done} done"
        f"{_describe_sum(sums, at_most)}; in {runs_dir / plan.name}"
    )
    if plan.n_to_run > MANY_TRIALS:
        lines.append(f"more than {MANY_TRIALS} trials: `lora-bench run` needs --yes")
    return lines


def _describe_obstacles(outlooks: Sequence[Outlook]) -> list[str]:
    """Return a warning per model that cannot run on this machine."""
    models = {outlook.trial.model.model_dump_json(): outlook.trial.model for outlook in outlooks}
    found = {
        f"{model.id}: {obstacle}": None for model in models.values() if (obstacle := find_obstacle(model))
    }
    return [f"warning: {line}; its trials would fail" for line in found]


def _mark(basis: str) -> str:
    """Return `~` for a figure that was not measured with the same settings."""
    return "" if basis == "same settings" else "~"


def _describe_origins(
    outlooks: Sequence[Outlook], outcomes: Sequence[Outcome], *, has_gpu: bool
) -> list[str]:
    """Return the sources of memory and time by model, and the error of earlier forecasts."""
    estimate = (
        "an estimate from shapes, for training on a GPU"
        if has_gpu
        else "a rough estimate from shapes, for a CPU"
    )
    lines: dict[str, None] = {}
    unsized: dict[str, None] = {}
    for outlook in outlooks:
        model, found = outlook.trial.model.id, outlook.prediction
        if found.disk_bytes is None:
            unsized[f"sizes with {model}: unknown, its config.json is not on this machine"] = None
        if not outlook.is_open:
            continue
        n = found.n_records
        words = {
            "same settings": "from earlier trials with the same settings on this machine",
            "other settings": f"~ is scaled from {n} earlier trial{'s' if n != 1 else ''} on this machine, with other "
            "settings",
            "probe": "~ is from a short probe on this machine (scoring not included)",
            "shapes": f"~ is {estimate}",
        }
        if found.memory_basis != "none":
            accuracy = describe_accuracy(outcomes, "memory", found.memory_basis)
            lines[f"memory with {model}: {words[found.memory_basis]}{accuracy}"] = None
        if found.time_s is None:
            lines[
                f"time with {model}: unknown, no earlier run on this machine; `--probe` measures it in about a minute"
            ] = None
        else:
            accuracy = describe_accuracy(outcomes, "time", found.time_basis)
            lines[f"time with {model}: {words[found.time_basis]}{accuracy}"] = None
    return [*sorted(lines), *unsized]


def _describe_sum(sums: Sums, at_most: str) -> str:
    parts: list[str] = []
    if sums.time_s and sums.n_to_run:
        parts.append(f"about {format_time(sums.time_s)}{at_most}, one trial at a time")
    if sums.disk_bytes and sums.n_to_run:
        cache = f", including about {format_bytes(sums.cache_bytes)} of cache" if sums.cache_bytes else ""
        parts.append(f"{format_bytes(sums.disk_bytes)} of disk{at_most}{cache}")
    return f" ({', '.join(parts)})" if parts else ""


def format_bytes(n_bytes: float | None) -> str:
    """Return megabytes or gigabytes; `?` if unknown."""
    if n_bytes is None:
        return UNKNOWN
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.1f} GB"


def format_time(time_s: float | None) -> str:
    """Return seconds, minutes or hours; `?` if unknown."""
    if time_s is None:
        return UNKNOWN
    if time_s < 100:
        return f"{time_s:.0f} s"
    return f"{time_s / 60:.0f} min" if time_s < 6000 else f"{time_s / 3600:.1f} h"
