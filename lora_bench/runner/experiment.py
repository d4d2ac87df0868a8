"""A whole experiment: prepare, run the trials, compare, report.  Files are the state.

The order is chosen so that nothing that is already on disk is computed or even imported again: a
repeated run of a finished experiment reads a few JSON files and renders the report.  Statistics are imported
where they are used: `plan` and `status` ask this module what is finished.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from lora_bench.comparison.looks import is_decided, left_looks, plan_look
from lora_bench.errors import EXIT_INCOMPLETE, EXIT_OK, StoreError
from lora_bench.forecast.adapter_files import fetch_adapter
from lora_bench.machine.gpus import limit_gpus, require_gpus
from lora_bench.planning.run_folder import CACHE, RunFolder
from lora_bench.planning.sources import list_sources
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.progress import Progress
from lora_bench.results.gather import write_results
from lora_bench.runner.environment import describe_environment
from lora_bench.runner.executor import run_trials
from lora_bench.runner.freshness import inputs_key, is_finished, source_key
from lora_bench.runner.hub_pins import pin_data
from lora_bench.runner.jobs.locks import hold_run
from lora_bench.runner.ray_backend.cluster import check_address
from lora_bench.runner.search.optuna import require_optuna
from lora_bench.runner.search.trial_search import SearchPlan, plan_search
from lora_bench.runner.tuning import tune_experiment
from lora_bench.store import Store, read_json, remove_drafts, to_jsonable, write_json


def run_experiment(
    plan: ExperimentPlan,
    *,
    runs_dir: Path,
    reports_dir: Path,
    progress: Progress,
    executor: str = "local",
    ray_address: str | None = None,
) -> int:
    """Do what is missing of an experiment, then write its results and report.

    Returns:
        0 if every trial and every cell is there, or was given up as the spec asks; 3 if not.

    Raises:
        StoreError: another process runs the same experiment, or the disk is full.
        DatasetError, ModelError, ResourceError: before any trial starts.
    """
    from lora_bench.comparison.pairs import compare_trials
    from lora_bench.comparison.repeated_choice import write_repeated_choice
    from lora_bench.study import write_study

    run_folder = (runs_dir / plan.name).absolute()
    store_root = (runs_dir / CACHE).absolute()
    with hold_run(run_folder, store_root):
        remove_drafts(reports_dir / plan.report_name)
        failed: set[str] = set()
        try:
            if plan.is_tuning:
                plan = tune_experiment(
                    plan,
                    run_folder,
                    progress,
                    lambda step: _run_missing(
                        step, run_folder, store_root, progress, executor=executor, ray_address=ray_address
                    ),
                )
            for look in left_looks(plan, run_folder):
                current = plan_look(plan, look, run_folder)
                failed |= _run_missing(
                    current,
                    run_folder,
                    store_root,
                    progress,
                    executor=executor,
                    ray_address=ray_address,
                    left_out=failed,
                )
                compare_trials(current, run_folder, progress, look if plan.spec.verdict.looks else None)
                if is_decided(plan, run_folder):
                    break
            write_repeated_choice(plan, run_folder)
        except BaseException:
            with suppress(StoreError, OSError):  # what stopped the run is what the user must hear of
                write_results(run_folder)
            raise
        results = write_results(run_folder)
        write_study(run_folder, results)
        from lora_bench.report.render import render_report

        render_report(run_folder, reports_dir)
    return EXIT_OK if results.complete else EXIT_INCOMPLETE


def _run_missing(
    plan: ExperimentPlan,
    run_folder: Path,
    store_root: Path,
    progress: Progress,
    *,
    executor: str,
    ray_address: str | None,
    left_out: Collection[str] = (),
) -> set[str]:
    """Prepare the data and run the trials that are missing, without those of `left_out`; return those that failed."""
    run = RunFolder(run_folder)
    pending, search = list_pending(plan, run_folder)
    pending = [trial for trial in pending if trial.id not in left_out]
    write_json(run.plan, plan)
    if pending or not run.environment.is_file():
        write_json(run.environment, describe_environment())
    if pending and ray_address is None:
        require_gpus(plan.spec.resources.gpu)  # before the data is prepared for trials that cannot run
    elif pending and ray_address is not None:
        check_address(ray_address)
    # with a GPU, Ray's workers need all of its memory; on a cluster this machine may have none
    uses_gpu = plan.spec.resources.gpu > 0
    for path in sorted({trial.existing_adapter for trial in pending if trial.existing_adapter is not None}):
        fetch_adapter(path)
    with limit_gpus(None if uses_gpu else 0.0):
        if not plan.is_tuning:  # whose attempts leave the tracks that score sealed
            _prepare(plan, run_folder, store_root, progress, apart=uses_gpu and executor == "ray")
    if pending:
        from lora_bench.runner.trackers import track_trials

        settings = {trial.id: to_jsonable({"lora": trial.lora, "train": trial.train}) for trial in pending}
        with track_trials(plan.spec.report.trackers, run_folder, settings, progress):
            run_trials(
                [pin_data(trial, run) for trial in pending],
                run_folder,
                store_root,
                progress,
                executor=executor,
                resources=plan.spec.resources,
                ray_address=ray_address,
                inputs={trial.id: inputs_key(trial) for trial in pending},
                search=search,
            )
    return {trial.id for trial in pending if not is_finished(trial, run.trial(trial.id).path)}


def list_pending(plan: ExperimentPlan, run_folder: Path) -> tuple[list[TrialPlan], SearchPlan | None]:
    """Trials that may be run, and the search that chooses among them, if it still has to.

    Raises:
        ResourceError: it has to choose, and optuna is not there.
    """
    run = RunFolder(run_folder)
    pending = [trial for trial in plan.trials if not is_finished(trial, run.trial(trial.id).path)]
    search = plan_search(plan, run_folder, pending)
    if search is None:
        return pending, None
    if search.n_left:
        require_optuna()
        return pending, search
    return [trial for trial in pending if trial.search is None or trial.id in search.begun], None


def _prepare(
    plan: ExperimentPlan, run_folder: Path, store_root: Path, progress: Progress, *, apart: bool
) -> None:
    """Prepare data, floors and reference excerpts of every source, unless the files say that they are there.

    Args:
        plan: of the run.
        run_folder: of the run.
        store_root: cache shared with trials.
        progress: told about stages.
        apart: do it in a process of its own.
    """
    by_id = {trial.id: trial for trial in plan.trials}
    for source in list_sources(to_jsonable(plan.trials)):
        trial = by_id[source.trial_ids[0]]
        key = source_key(trial)
        folder = RunFolder(run_folder).source(source.folder)
        if folder.dataset.is_file() and read_json(folder.dataset).get("prepared_for") == key:
            continue
        from lora_bench.runner.preparation import prepare_source, prepare_source_apart

        pinned = pin_data(trial, RunFolder(run_folder))
        n_workers = plan.spec.resources.n_workers
        if apart:
            prepare_source_apart(pinned, key, folder, store_root, progress, n_workers)
            continue
        store = Store(store_root, folder.cache_uses)
        prepare_source(pinned, key, folder, store, progress, n_workers)
        store.settle_uses()
