"""Check of LoRA targets against the model's config, before anything runs."""

from __future__ import annotations

from lora_bench.errors import Problem
from lora_bench.forecast.adapters import list_problems
from lora_bench.forecast.shapes import find_shape
from lora_bench.planning.plan import ExperimentPlan, TrialPlan

FIELD = "lora.targets"


def find_unmatched_targets(plan: ExperimentPlan, place: str) -> list[Problem]:
    """Return a problem per target and model that do not match; models of unknown size are not checked."""
    trials: dict[tuple[str, str], list[TrialPlan]] = {}
    for trial in plan.trials:
        if trial.lora is not None:
            trials.setdefault((trial.model.model_dump_json(), repr(trial.lora.targets)), []).append(trial)
    problems: list[Problem] = []
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
