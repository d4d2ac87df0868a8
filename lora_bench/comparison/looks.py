"""Looks at the verdicts before all clips are generated: a configuration whose verdict is reached needs no more clips.

Every look spends a part of the 5 %: the interval of a look with a share `t` of the clips, the looks before it included,
has spent `0.05 t^2` (the power family of Kim and DeMets, Biometrika 74, 1987, with exponent 2).  The parts are added as
Bonferroni does, which needs no assumption about how looks depend on one another: they share clips and tracks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.metrics.verdicts import ALPHA
from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.results.reading import read_part
from lora_bench.results.records import Contrast
from lora_bench.results.run_files import ContrastsFile, Decisions
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.store import hash_json, to_jsonable

VERSION = 1  # raise it when looks decide otherwise from the same clips


@dataclass(frozen=True)
class Look:
    """One look.

    Attributes:
        n_clips: per prompt.
        alpha: what it spends of the 5 %.
    """

    n_clips: int
    alpha: float


def list_looks(spec: ExperimentSpec) -> list[Look]:
    """Return the looks of a spec, the last one at all clips; a single one where none are asked for."""
    return split_level([*spec.verdict.looks, spec.generation.n_clips])


def split_level(counts: Sequence[int]) -> list[Look]:
    """Share the 5 % among looks at rising numbers of clips."""
    spent = [ALPHA * (n / counts[-1]) ** 2 for n in counts]
    return [Look(n, now - before) for n, now, before in zip(counts, spent, [0.0, *spent[:-1]], strict=True)]


def read_decisions(plan: ExperimentPlan, run_folder: Path) -> Decisions:
    """Return what earlier looks at the same question have decided."""
    key = _key_decisions(plan)
    file = read_part(RunFolder(run_folder).contrasts, ContrastsFile, [])
    found = None if file is None else file.decisions
    return found if found is not None and found.key == key else Decisions(key=key)


def _key_decisions(plan: ExperimentPlan) -> str:
    spec = plan.spec
    trials = sorted(trial.id for trial in plan.trials)
    question = [spec.verdict, spec.prompts, spec.prompt_sets, spec.metrics, spec.generation.n_clips]
    return hash_json([VERSION, trials, plan.baseline, *map(to_jsonable, question)])


def left_looks(plan: ExperimentPlan, run_folder: Path) -> list[Look]:
    """Return the looks from the last one that was made."""
    n_clips = read_decisions(plan, run_folder).n_clips if plan.spec.verdict.looks else 0
    return [look for look in list_looks(plan.spec) if look.n_clips >= n_clips]


def is_decided(plan: ExperimentPlan, run_folder: Path) -> bool:
    """Return whether every configuration that is compared with zero-shot has its verdict."""
    if not plan.spec.verdict.looks:
        return False
    decided = read_decisions(plan, run_folder).configurations
    return all(trial.configuration in decided for trial in plan.trials if trial.kind != "zero-shot")


def plan_look(plan: ExperimentPlan, look: Look, run_folder: Path) -> ExperimentPlan:
    """Return the plan of a look: configurations that were decided before keep the clips that they have."""
    if not plan.spec.verdict.looks:
        return plan
    decided = read_decisions(plan, run_folder).before(look.n_clips).configurations
    rest = None if look == list_looks(plan.spec)[-1] else look.n_clips
    trials = (
        trial.model_copy(update={"n_clips_so_far": decided.get(trial.configuration, rest)})
        for trial in plan.trials
    )
    return plan.model_copy(update={"trials": tuple(trials)})


def plan_rest(plan: ExperimentPlan, run_folder: Path) -> ExperimentPlan:
    """Return the plan without the clips that earlier looks have shown to be needless."""
    looks = left_looks(plan, run_folder)
    return plan_look(plan, looks[0] if is_decided(plan, run_folder) else looks[-1], run_folder)


def settle_look(
    fresh: Sequence[Contrast], earlier: Sequence[Contrast], look: Look, decisions: Decisions
) -> tuple[list[Contrast], Decisions]:
    """Return the contrasts after a look and what is decided now.

    A configuration is decided when the verdict over the genre's own prompts together is not *inconclusive*.  Its
    contrasts stay as the look found them that decided.

    Args:
        fresh: contrasts of this look, decided configurations included.
        earlier: contrasts of the look before.
        look: this one.
        decisions: of the looks before.
    """
    decided: Mapping[str, int] = decisions.configurations
    settled = [item for item in earlier if item.configuration in decided]
    settled += [item for item in fresh if item.configuration not in decided]
    now = {
        item.configuration: look.n_clips
        for item in settled
        if item.kind == "zero-shot"
        and item.primary
        and item.prompt is None
        and item.configuration not in decided
        and item.verdict not in {None, "inconclusive"}
    }
    return settled, decisions.model_copy(
        update={"n_clips": look.n_clips, "configurations": {**decided, **now}}
    )
