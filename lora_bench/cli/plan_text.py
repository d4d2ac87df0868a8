"""The outlook of a plan as a table with notes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lora_bench.cli.commands.validate import describe_plan
from lora_bench.cli.dataset_sides import describe_sides
from lora_bench.cli.gpu_notes import describe_gpu
from lora_bench.cli.melodies import describe_melodies
from lora_bench.cli.outlook import Outlook, Sums, count_choices, sum_up
from lora_bench.cli.tables import format_table
from lora_bench.errors import LoraBenchError
from lora_bench.forecast import Outcome, describe_accuracy, find_obstacle, read_outcomes
from lora_bench.forecast.cards import Card, find_card
from lora_bench.forecast.held_out import describe_few_tracks
from lora_bench.machine.gpus import CPU
from lora_bench.planning.plan import MANY_TRIALS
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.report.formatting import count_noun
from lora_bench.runner.search.optuna import INSTALL
from lora_bench.spec.budgets import format_budgeted
from lora_bench.spec.external import ExternalSpec
from lora_bench.spec.kinds import has_setting

HEAD = (
    "trial", "rank", "alpha", "targets", "steps", "seed", "modules", "params", "adapter", "memory", "disk",
    "time", "why it runs",
)  # fmt: skip
NUMBERS = (1, 2, 4, 5, 6, 7, 8, 9, 10, 11)
UNKNOWN = "?"
FAR = 0.1  # of a budget, which a comparison at equal parameters should not be below


def format_outlooks(outlooks: Sequence[Outlook]) -> str:
    """Return the table of trials."""
    return format_table(HEAD, [_make_row(outlook) for outlook in outlooks], right=NUMBERS)


def _make_row(outlook: Outlook) -> tuple[str, ...]:
    trial, prediction = outlook.trial, outlook.prediction
    adapter = prediction.adapter
    sizes = ("-", "-", "-")
    if trial.lora is not None:
        sizes = (UNKNOWN, UNKNOWN, UNKNOWN)
    if adapter is not None:
        n_modules = sum(adapter.matched_modules.values())
        params = format_budgeted(adapter.trainable_params, trial.budget)
        sizes = (str(n_modules), params, format_bytes(adapter.n_bytes))
    memory = "-" if trial.train is None or prediction.is_trained else UNKNOWN
    if prediction.peak_gib is not None and outlook.is_open:
        is_measured = prediction.peak_gib == prediction.memory_gib
        memory = f"{_mark(prediction.memory_basis if is_measured else 'shapes')}{prediction.peak_gib:.1f} GiB"
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
    if trial.existing_adapter is not None:
        return ("-", "-", "existing adapter", "-")
    if trial.lora is None or trial.train is None:
        return ("-", "-", "-", "-")
    targets = trial.lora.targets if isinstance(trial.lora.targets, str) else " ".join(trial.lora.targets)
    kind = trial.lora.kind
    rank = str(trial.lora.rank) if has_setting(kind, "rank") else "-"
    rank = f"block {trial.lora.block_size}" if kind == "oft" else rank
    alpha = f"{trial.lora.resolved_alpha:g}" if has_setting(kind, "alpha") else "-"
    return (rank, alpha, targets, str(trial.train.steps))


def write_notes(
    plan: ExperimentPlan,
    outlooks: Sequence[Outlook],
    runs_dir: Path,
    cache_bytes: int | None,
    card: Card | None = None,
) -> list[str]:
    """Return the lines below the table: overrides, warnings, where figures come from, and the sums.

    `card` is that of a forecast on paper.
    """
    lines = [
        *(f"override: {line}" for line in plan.override_effects),
        *plan.notes,
        *_describe_far(outlooks),
        *describe_few_tracks(plan),
        *describe_sides(plan, runs_dir / plan.name),
        *describe_melodies(plan),
    ]
    lines += _describe_obstacles(outlooks)
    lines += [
        _describe_external(outlook.trial, outlook.trial.external)
        for outlook in outlooks
        if outlook.trial.external
    ]
    lines += _describe_origins(
        outlooks, read_outcomes(runs_dir), has_gpu=plan.spec.resources.gpu > 0 or card is not None
    )
    lines += _describe_checkpointing(outlooks)
    device = outlooks[0].prediction.device if outlooks else CPU
    n_gpus = plan.spec.resources.gpu
    lines += describe_gpu(outlooks, n_gpus, card or find_card(device), on_paper=card is not None)
    n_choices = count_choices(plan, outlooks)
    if n_choices and find_spec("optuna") is None:
        lines.append(f"warning: search.optuna: optuna is not installed; run `{INSTALL}` in the repository")
    sums = sum_up(outlooks, n_choices, cache_bytes)
    n_done = sum(outlook.reason.kind == "cached" for outlook in outlooks)
    at_most = " at most" if n_choices else ""
    lines.append(
        f"{plan.name}: {describe_plan(plan)}; {sums.n_to_run} to run, {n_done} done"
        f"{_describe_sum(sums, at_most)}; in {runs_dir / plan.name}"
    )
    if plan.n_to_run > MANY_TRIALS:
        lines.append(f"more than {MANY_TRIALS} trials: `lora-bench run` needs --yes")
    return lines


def _describe_far(outlooks: Sequence[Outlook]) -> list[str]:
    """Return the configurations that stay far below their budgets."""
    far = {
        outlook.trial.configuration: None
        for outlook in outlooks
        if outlook.trial.budget is not None
        and (adapter := outlook.prediction.adapter) is not None
        and adapter.trainable_params < (1.0 - FAR) * outlook.trial.budget
    }
    if not far:
        return []
    return [f"lora.budget: no size comes nearer for {', '.join(far)}, more than {100 * FAR:g} % below"]


def _describe_obstacles(outlooks: Sequence[Outlook]) -> list[str]:
    """Return a warning per model that cannot run on this machine."""
    models = {outlook.trial.model.model_dump_json(): outlook.trial.model for outlook in outlooks}
    found = {
        f"{model.id}: {obstacle}": None for model in models.values() if (obstacle := find_obstacle(model))
    }
    return [f"warning: {line}; its trials would fail" for line in found]


def _describe_external(trial: TrialPlan, external: ExternalSpec) -> str:
    """Return how many clips another system has to give, and what is not known of it."""
    from lora_bench.stages.external.folder import match_clips

    n_clips, n_prompts = trial.sampling.n_clips, len(trial.prompts)
    wanted = f"{n_clips} clips for each of {n_prompts} prompts"
    if external.clips is None:
        n_calls = "one call" if external.per == "run" else f"one call per prompt ({n_prompts})"
        return f"{trial.name}: a command generates {wanted} in {n_calls}; no training, its time is unknown"
    try:
        counts = [len(files) for files in match_clips(external.clips, trial.prompts).values()]
    except LoraBenchError:
        return f"{trial.name}: {wanted} of {external.clips}; no training"  # what is wrong with it is listed below
    few = f"; partial: some prompts have {min(counts)}" if min(counts) < n_clips else ""
    more = f", the first {n_clips} of up to {max(counts)}" if max(counts) > n_clips else ""
    return f"{trial.name}: {wanted}{more}, from {external.clips}{few}; no training, its time is unknown"


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
        if not outlook.is_open or outlook.trial.external is not None:
            continue
        n = found.n_records
        words = {
            "same settings": "from earlier trials with the same settings on this machine",
            "other settings": f"~ is scaled from {n} earlier trial{'s' if n != 1 else ''} on this machine, with other "
            "settings",
            "probe": "~ is from a short probe on this machine (scoring not included)",
            "shapes": f"~ is {estimate}",
            "data sheet": "~ is on paper",
        }
        if found.memory_basis != "none":
            accuracy = describe_accuracy(outcomes, "memory", found.memory_basis, found.device)
            lines[f"memory with {model}: {words[found.memory_basis]}{accuracy}"] = None
        if found.time_s is None:
            lines[
                f"time with {model}: unknown, no earlier run on this machine; `--probe` measures it in about a minute"
            ] = None
        else:
            accuracy = describe_accuracy(outcomes, "time", found.time_basis, found.device)
            lines[f"time with {model}: {words[found.time_basis]}{accuracy}"] = None
    return [*sorted(lines), *unsized]


def _describe_checkpointing(outlooks: Sequence[Outlook]) -> list[str]:
    """Return what `train.gradient_checkpointing: auto` comes to, over the trainings that are left."""
    found = [item.prediction.checkpointing for item in outlooks if item.is_open]
    choices = [choice for choice in found if choice is not None]
    known = [
        (choice.needed_gib, choice.memory_gib, choice.is_on)
        for choice in choices
        if choice.needed_gib is not None and choice.memory_gib is not None
    ]
    lines: list[str] = []
    if known:
        needed_gib, memory_gib, _ = max(known)
        n_on = sum(is_on for *_, is_on in known)
        n_known = count_noun(len(known), "trial")
        state = f"on for {n_on} of {n_known}" if n_on else f"off for {n_known}"
        lines.append(
            f"gradient checkpointing: {state}: without it up to {needed_gib:.1f} GiB are needed of {memory_gib:.1f}"
        )
    if n_unknown := len(choices) - len(known):
        lines.append(
            f"gradient checkpointing: unknown for {count_noun(n_unknown, 'trial')} until training starts: the "
            "size of the model or the memory of the GPU is unknown here"
        )
    return lines


def _describe_sum(sums: Sums, at_most: str) -> str:
    parts: list[str] = []
    if sums.time_s and sums.n_to_run:
        others = ", without other systems" if sums.has_external else ""
        parts.append(f"about {format_time(sums.time_s)}{at_most}, one trial at a time{others}")
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
