"""Check of LoRA targets against the model's config, before anything runs."""

from __future__ import annotations

from lora_bench.errors import Problem
from lora_bench.forecast.adapters import list_problems
from lora_bench.forecast.shapes import find_shape
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.spec.kinds import LOW_RANK

FIELD = "lora.targets"


def find_unmatched_targets(plan: ExperimentPlan, place: str) -> list[Problem]:
    """Return a problem per target and model that do not match, and per kind that a model cannot have.

    Models of unknown size are not checked.
    """
    trials: dict[tuple[str, str], list[TrialPlan]] = {}
    for trial in plan.trials:
        if trial.lora is not None and trial.existing_adapter is None:  # whose files say what it adapts
            trials.setdefault((trial.model.model_dump_json(), repr(trial.lora.spell())), []).append(trial)
    problems = _find_rounded_kinds(plan, place)
    for group in trials.values():
        first = group[0]
        shape = find_shape(first.model)
        if first.lora is None or shape is None:
            continue
        names = list(dict.fromkeys(trial.configuration for trial in group))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        where = f"`{FIELD}` of {', '.join(f'`{name}`' for name in names[:3])}{more} ({first.model.id})"
        problems += [Problem(place, FIELD, f"{where}: {text}") for text in list_problems(first.lora, shape)]
    return problems


def is_half_precision(dtype: str, plan: ExperimentPlan) -> bool:
    """Return whether a model's weights are in half precision, as far as that is known before it is loaded."""
    return dtype in {"bfloat16", "float16"} or (dtype == "auto" and plan.spec.resources.gpu > 0)


def _find_rounded_kinds(plan: ExperimentPlan, place: str) -> list[Problem]:
    """Return a problem per kind whose update half-precision weights would round away."""
    found: dict[str, Problem] = {}
    for trial in plan.trials:
        dtype = trial.model.dtype
        is_half = is_half_precision(dtype, plan)
        if (
            trial.lora is None
            or trial.existing_adapter is not None
            or trial.lora.kind in LOW_RANK
            or not is_half
        ):
            continue
        kind = trial.lora.kind
        message = (
            f"`lora.kind` of `{trial.configuration}`: the update of kind `{kind}` is merged into the weights, and "
            f"`model.dtype` {dtype} would round small updates away; set model.dtype: float32"
        )
        found.setdefault(kind, Problem(place, "lora.kind", message))
    return list(found.values())
