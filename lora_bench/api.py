"""Public functions: load a spec, plan it, run it, load its results; score two folders.

The command line calls the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench import spec as specs
from lora_bench.errors import EXIT_OK, InterruptedRunError, LoraBenchError, StoreError, UsageError
from lora_bench.planning import plan as plans
from lora_bench.planning.run_folder import ReportFolder
from lora_bench.progress import Progress, SilentProgress
from lora_bench.runner.process_environment import choose_waiting

if TYPE_CHECKING:
    import pandas as pd

    from lora_bench.evaluation.folder_scores import FolderScores, ScoreOptions
    from lora_bench.forecast import Prediction
    from lora_bench.planning.trial_plan import ExperimentPlan
    from lora_bench.spec import LoadedSpec


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a run.

    Attributes:
        is_complete: whether every trial and every score exists, or was given up as the spec asks.
        run_folder: folder with states, adapters, clips and scores.
        report: the HTML report.
    """

    is_complete: bool
    run_folder: Path
    report: Path


def load_spec(spec: str | Path, overrides: Sequence[str] = (), *, with_paths: bool = False) -> LoadedSpec:
    """Read and check a spec.

    Args:
        spec: a YAML file, or the name of a shipped spec such as `quickstart`.
        overrides: `key=value` each, as in `lora-bench run -o`.
        with_paths: list missing folders among the problems of an invalid spec.

    Raises:
        UsageError: the file cannot be opened.
        SpecError: the spec is wrong; the error lists every problem with its place.
    """
    return specs.load_spec(Path(spec), overrides, with_paths=with_paths)


def plan_experiment(spec: LoadedSpec) -> ExperimentPlan:
    """Expand a spec into trials, and decide what each is compared with.

    Raises:
        SpecError: names collide, the baseline does not exist, or a combination is not valid.
    """
    from lora_bench.forecast.budgets import fit_budget

    return plans.plan_file(spec, fit_budget)


def run_experiment(
    plan: ExperimentPlan,
    *,
    runs_dir: str | Path = "runs",
    reports_dir: str | Path = "reports",
    executor: str | None = None,
    ray_address: str | None = None,
    progress: Progress | None = None,
) -> RunOutcome:
    """Run the unfinished trials of an experiment, then write its results and report.

    Args:
        plan: from `plan_experiment`.
        runs_dir: folder of runs; finished work in the experiment's folder is reused.
        reports_dir: folder of reports; the experiment's holds `report.html`, `report.md` and tables.
        executor: `local` runs one trial at a time, `ray` several in parallel; None is `ray` with an address, else
            `local`.
        ray_address: the Ray cluster to join; None starts Ray on this machine.
        progress: receives trials, stages and steps; None is silent.

    Raises:
        UsageError: `ray_address` with the executor `local`.
        StoreError: another process runs the same experiment, or the disk is full.
        DatasetError, ModelError, ResourceError: before any trial starts.
        InterruptedRunError: the run was stopped; its report shows what is finished, and the same call resumes it.
    """
    choose_waiting()
    from lora_bench.forecast import keep_outcomes
    from lora_bench.runner import experiment

    if ray_address is not None and executor == "local":
        raise UsageError(
            "the address of a Ray cluster is given, but the executor `local` does not use one; leave out one of them"
        )
    runs, reports = Path(runs_dir).absolute(), Path(reports_dir).absolute()
    run_folder = runs / plan.name
    predictions = _predict(plan, runs)
    try:
        code = experiment.run_experiment(
            plan,
            runs_dir=runs,
            reports_dir=reports,
            progress=progress or SilentProgress(),
            executor=executor or ("local" if ray_address is None else "ray"),
            ray_address=ray_address,
        )
    except (KeyboardInterrupt, InterruptedRunError):
        from lora_bench.report.render import render_report

        with suppress(LoraBenchError, OSError):  # a run that was stopped early has nothing to report
            render_report(run_folder, reports)
        raise
    with suppress(StoreError):  # the forecast's accuracy is optional, the run's results are written
        keep_outcomes(runs, run_folder, predictions)
    return RunOutcome(code == EXIT_OK, run_folder, ReportFolder(reports / plan.report_name).page)


def _predict(plan: ExperimentPlan, runs_dir: Path) -> dict[str, Prediction]:
    """Return the forecasts of the unfinished trials by id."""
    from lora_bench.forecast import Forecaster, find_device, read_history
    from lora_bench.runner.freshness import is_finished

    records = read_history(runs_dir)
    n_gpus = plan.spec.resources.gpu
    forecaster = Forecaster(records, device=find_device(n_gpus, records), n_gpus=n_gpus)
    folders = {trial.id: runs_dir / plan.name / "trials" / trial.id for trial in plan.trials}
    return {
        trial.id: forecaster.predict(trial, folders[trial.id])
        for trial in plan.trials
        if not is_finished(trial, folders[trial.id])
    }


def load_results(run: str | Path) -> pd.DataFrame:
    """Return the results of a run as a data frame.

    Args:
        run: folder of a run in any state, or of a report.

    Returns:
        A row per trial, metric and prompt, with the columns of `results.csv`: value, interval, difference from
        zero-shot, verdict, and every setting in which trials differ.  A cell without a score has its reason in
        `unscored`; a missing `prompt` is all prompts together.

    Raises:
        StoreError: the folder holds no run, or its plan is damaged.
    """
    import io

    import pandas as pd

    from lora_bench.results.gather import gather_results
    from lora_bench.results.parquet_table import render_parquet

    return pd.read_parquet(io.BytesIO(render_parquet(gather_results(Path(run)))))


def score_folders(
    reference: str | Path,
    generated: str | Path,
    metrics: Sequence[str],
    *,
    options: ScoreOptions | None = None,
    progress: Progress | None = None,
) -> FolderScores:
    """Score a folder of generated audio against a folder of recordings.

    Args:
        reference: recordings, in any format and at any depth; a file is a track.
        generated: clips; a file is a clip.
        metrics: names such as `mfcc20` or `encodec`.
        options: model, clip length, prompt, guards; None takes the defaults.
        progress: receives metrics and clips; None is silent.

    Returns:
        `scores`, `unscored`, and `checks`; its `to_json()` is the document that `lora-bench score --json` prints.

    Raises:
        UsageError, AudioFileError, ScoreError: an unknown metric, an unreadable file, or too few clips.
    """
    choose_waiting()
    from lora_bench.evaluation import folder_scores

    return folder_scores.score_folders(
        Path(reference), Path(generated), metrics, progress or SilentProgress(), options
    )
