"""A whole experiment: prepare, run the trials, compare, report.  Files are the state.

The order is chosen so that nothing that is already on disk is computed or even imported again: a
repeated run of a finished experiment reads a few JSON files and renders the report.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from lora_bench.environment import describe_environment
from lora_bench.errors import EXIT_INCOMPLETE, EXIT_OK, StoreError
from lora_bench.pairing import compare_trials
from lora_bench.plan import ExperimentPlan, TrialPlan
from lora_bench.progress import Progress
from lora_bench.results import write_results
from lora_bench.runner import run_trials
from lora_bench.spec.schema import DatasetSpec
from lora_bench.store import Store, hash_json, read_json, write_json, write_text


def dataset_fingerprint(dataset: DatasetSpec) -> str:
    """Cheap identity of the source files (names, sizes, times), to notice that a folder changed.

    Results are keyed by content elsewhere; this only decides whether a finished trial is looked at again.
    """
    if dataset.path is None:
        return hash_json({"builtin": dataset.builtin})
    files: list[tuple[str, int, int]] = []
    for root, folders, names in os.walk(dataset.path):
        folders.sort()
        for name in sorted(names):
            stat = (Path(root) / name).stat()
            files.append((str(Path(root, name).relative_to(dataset.path)), stat.st_size, stat.st_mtime_ns))
    return hash_json(files)


def inputs_key(trial: TrialPlan) -> str:
    """What a finished trial was finished for: the whole plan of the trial and the state of its data."""
    return hash_json({"trial": trial, "data": dataset_fingerprint(trial.dataset)})


def is_finished(trial: TrialPlan, folder: Path) -> bool:
    """Whether the trial's files say that exactly this was done."""
    state = folder / "state.json"
    if not state.is_file() or not (folder / "scores.json").is_file():
        return False
    found = read_json(state)
    return found.get("state") == "done" and found.get("inputs") == inputs_key(trial)


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
        0 if every trial and every cell is there, 3 if not.

    Raises:
        StoreError: another process runs the same experiment, or the disk is full.
        DatasetError, ModelError, ResourceError: before any trial starts.
    """
    run_folder = (runs_dir / plan.name).absolute()
    run_folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(
            f"{run_folder}: another process ({_holder(run_folder)}) runs this experiment; wait for it, or "
            "give --runs-dir another folder"
        ) from error
    try:
        write_text(run_folder / ".holder", f"pid {os.getpid()} on {socket.gethostname()}")
        write_json(run_folder / "plan.json", plan)
        store = Store(runs_dir / ".cache")
        pending = [t for t in plan.trials if not is_finished(t, run_folder / "trials" / t.id)]
        if pending or not (run_folder / "environment.json").is_file():
            write_json(run_folder / "environment.json", describe_environment())
        _prepare(plan, run_folder, store, progress)
        if pending:
            run_trials(
                pending,
                run_folder,
                store.root,
                progress,
                executor=executor,
                resources=plan.spec.resources,
                ray_address=ray_address,
                inputs={trial.id: inputs_key(trial) for trial in pending},
            )
        compare_trials(plan, run_folder, progress)
    finally:
        results = write_results(run_folder)
        (run_folder / ".holder").unlink(missing_ok=True)
        lock.release()
    from lora_bench.report import render_report

    render_report(run_folder, reports_dir)
    return EXIT_OK if results["complete"] else EXIT_INCOMPLETE


def _prepare(plan: ExperimentPlan, run_folder: Path, store: Store, progress: Progress) -> None:
    """Data, floors and reference excerpts, unless the files say that they are there."""
    first = plan.trials[0]
    key = hash_json(
        {
            "model": first.model,
            "dataset": first.dataset,
            "data": dataset_fingerprint(first.dataset),
            "clip_s": first.generation.clip_s,
            "n_clips": first.generation.n_clips,
            "metrics": first.metrics,
        }
    )
    place = run_folder / "dataset.json"
    if place.is_file() and read_json(place).get("prepared_for") == key:
        return
    from lora_bench.preparation import prepare_experiment

    prepare_experiment(plan, key, run_folder, store, progress)


def _holder(run_folder: Path) -> str:
    """Who holds the run, as far as its file says."""
    place = run_folder / ".holder"
    return place.read_text(encoding="utf-8").strip() if place.is_file() else "unknown"
