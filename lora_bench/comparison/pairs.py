"""Every finished fine-tuned trial against its partners, from what both left on disk.

Planning decides the partners: the zero-shot trial of the same model, data and sampling, and, where the experiment
names a baseline, the baseline's trial of the same training seed.  The two are kept apart in `comparisons.json`:
`comparisons` and `baseline_comparisons`, with their summaries over training seeds beside them.

Whether anything is to be compared is decided here, from files alone; `trial_pair.py` does it, and brings
in the statistics, which a repeated run of a finished experiment thus never imports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_bench.planning.plan import ExperimentPlan, TrialPlan
from lora_bench.planning.run_folder import folder_of
from lora_bench.progress import Progress
from lora_bench.store import hash_file, hash_json, read_json, write_json

VERSION = 2  # raise it when the same embeddings give another comparison

Json = dict[str, Any]
Pair = tuple[TrialPlan, TrialPlan]


def find_pairs(plan: ExperimentPlan) -> tuple[list[Pair], list[Pair]]:
    """Trials with their zero-shot trial, and trials with the baseline's, as planned."""
    by_id = {trial.id: trial for trial in plan.trials}
    with_zero_shot = [(trial, by_id[trial.zero_shot]) for trial in plan.trials if trial.zero_shot]
    with_baseline = [(trial, by_id[trial.baseline_trial]) for trial in plan.trials if trial.baseline_trial]
    return with_zero_shot, with_baseline


def compare_trials(plan: ExperimentPlan, run_folder: Path, progress: Progress) -> None:
    """Write `comparisons.json` and `guards.json`: every done trial, metric and prompt.

    What was compared before under the same scores and guards is not compared again.
    """
    done = {trial.id: trial for trial in plan.trials if _is_done(run_folder, trial)}
    zero_shot, baseline = (
        [pair for pair in pairs if all(trial.id in done for trial in pair)] for pairs in find_pairs(plan)
    )
    files = [
        hash_file(folder_of(run_folder, trial) / name)
        for trial in done.values()
        for name in ("scores.json", "guards.json")
    ]
    pairs = [[trial.id for trial in pair] for pair in (*zero_shot, *baseline)]
    key = hash_json([VERSION, files, pairs, plan.baseline, plan.spec.prompt_sets])
    places = [run_folder / "comparisons.json", run_folder / "guards.json"]
    if all(place.is_file() and read_json(place).get("key") == key for place in places):
        return
    progress.start("compare", len(zero_shot) + len(baseline))
    from lora_bench.comparison.trial_pair import check_control, compare_pairs, join_guards

    compared = {"comparisons": zero_shot, "baseline_comparisons": baseline}
    written: Json = {"key": key}
    configurations = {trial.id: trial.configuration for trial in plan.trials}
    for name, chosen in compared.items():
        written |= compare_pairs(name, chosen, configurations, run_folder, progress)
    write_json(places[0], written)
    control = [record for pair in zero_shot for record in check_control(pair, plan, run_folder)]
    write_json(places[1], {"key": key, **join_guards(done, run_folder), "control": control})


def _is_done(run_folder: Path, trial: TrialPlan) -> bool:
    folder = folder_of(run_folder, trial)
    if not all((folder / name).is_file() for name in ("scores.json", "guards.json", "state.json")):
        return False
    return read_json(folder / "state.json").get("state") == "done"
