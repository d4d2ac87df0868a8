"""Comparison of every finished fine-tuned or external trial with its partners, from the files of both.

Planning decides the partners: the zero-shot trial of the same model, data and sampling, and, where the experiment
names a baseline, the baseline's trial of the same training seed.

This module decides from files alone whether there is anything to compare.  `run_contrasts.py` compares and imports
the statistics, which a repeated run of a finished experiment therefore never imports.
"""

from __future__ import annotations

from pathlib import Path

from lora_bench.comparison.looks import Look, read_decisions, settle_look
from lora_bench.metrics.verdicts import ALPHA
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.planning.sources import list_sources
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.progress import Progress
from lora_bench.results.reading import read_part, read_record, write_record
from lora_bench.results.run_files import ContrastsFile, GuardsFile, StateFile
from lora_bench.store import hash_file, hash_json, to_jsonable

VERSION = 4  # raise it when the same embeddings give another comparison

Pair = tuple[TrialPlan, TrialPlan]


def find_pairs(plan: ExperimentPlan) -> tuple[list[Pair], list[Pair]]:
    """Return trials with their zero-shot trial, and trials with the baseline's, as planned.

    An external trial has a pair with every training of the baseline.
    """
    by_id = {trial.id: trial for trial in plan.trials}
    with_zero_shot = [(trial, by_id[trial.zero_shot]) for trial in plan.trials if trial.zero_shot]
    with_baseline = [(trial, by_id[trial.baseline_trial]) for trial in plan.trials if trial.baseline_trial]
    baselines = [trial for trial in plan.trials if trial.configuration == plan.baseline]
    with_baseline += [
        (trial, other)
        for trial in plan.trials
        for other in baselines
        if trial.external is not None and have_same_references(trial, other)
    ]
    return with_zero_shot, with_baseline


def have_same_references(trial: TrialPlan, other: TrialPlan) -> bool:
    """Return whether the clips of two trials are scored against the same recordings."""
    one, two = ((item.model, item.dataset.recordings, item.generation.clip_s) for item in (trial, other))
    return one == two


def compare_trials(
    plan: ExperimentPlan, run_folder: Path, progress: Progress, look: Look | None = None
) -> None:
    """Write `contrasts.json` and `guards.json`: every configuration, metric and prompt that is done.

    What was compared before under the same scores and guards is not compared again.

    Args:
        plan: the experiment, with the clips of this look.
        run_folder: holds the files of the trials.
        progress: told about every metric of every configuration.
        look: None is the only one.
    """
    run = RunFolder(run_folder)
    done = {trial.id: trial for trial in plan.trials if _is_done(run.trial(trial.id))}
    zero_shot, baseline = (
        [pair for pair in pairs if all(trial.id in done for trial in pair)] for pairs in find_pairs(plan)
    )
    trials = [run.trial(trial_id) for trial_id in done]
    sources = list_sources([to_jsonable(trial) for trial in plan.trials])
    floors = [run.source(source.folder).floors for source in sources]
    files = [hash_file(path) for trial in trials for path in (trial.scores, trial.guards)]
    files += [hash_file(path) for path in floors if path.is_file()]
    pairs = [[trial.id for trial in pair] for pair in (*zero_shot, *baseline)]
    verdict = plan.spec.verdict.model_dump(exclude={"looks"})
    facts = [VERSION, files, pairs, plan.baseline, plan.spec.prompt_sets, verdict]
    before = None if look is None else read_decisions(plan, run_folder).before(look.n_clips)
    key = hash_json(facts if before is None else [*facts, to_jsonable(look), before.configurations])
    written = read_part(run.contrasts, ContrastsFile, []), read_part(run.guards, GuardsFile, [])
    if all(file is not None and file.key == key for file in written):
        return
    from lora_bench.comparison.run_contrasts import check_control, contrast_pairs, join_guards

    n_groups = [
        len({(a.configuration, b.configuration) for a, b in pairs}) for pairs in (zero_shot, baseline)
    ]
    progress.start("compare", sum(n_groups) * len(plan.spec.metrics))
    alpha = ALPHA if look is None else look.alpha
    found, missing = contrast_pairs(zero_shot, "zero-shot", plan, run_folder, progress, alpha)
    others, more = contrast_pairs(baseline, "baseline", plan, run_folder, progress, alpha)
    contrasts = [*found, *others]
    decisions = None
    if look is not None and before is not None:
        earlier = written[0].contrasts if written[0] is not None else ()
        contrasts, decisions = settle_look(contrasts, earlier, look, before)
    record = ContrastsFile(
        key=key, contrasts=tuple(contrasts), missing=(*missing, *more), decisions=decisions
    )
    write_record(run.contrasts, record)
    guards = GuardsFile(
        key=key,
        guards=tuple(join_guards(done, run_folder)),
        control=tuple(
            record
            for pair in zero_shot
            if pair[0].external is None
            for record in check_control(pair, run_folder)
        ),
    )
    write_record(run.guards, guards)


def _is_done(folder: TrialFolder) -> bool:
    if not folder.is_scored or not folder.state.is_file():
        return False
    return read_record(folder.state, StateFile).state == "done"
