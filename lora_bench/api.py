"""The Python functions behind the command line: load a spec, plan it, run it; score two folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_bench import spec as specs
from lora_bench.errors import EXIT_OK
from lora_bench.planning import plan as plans
from lora_bench.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from lora_bench.evaluation.folder_scores import ScoreOptions
    from lora_bench.planning.plan import ExperimentPlan
    from lora_bench.spec import LoadedSpec


@dataclass(frozen=True)
class RunOutcome:
    """What a run left behind.

    Attributes:
        is_complete: every trial and every score is there, or was given up as the spec asks.
        run_folder: states, adapters, clips and scores.
        report: the HTML page.
    """

    is_complete: bool
    run_folder: Path
    report: Path


def load_spec(spec: str | Path, overrides: Sequence[str] = ()) -> LoadedSpec:
    """Read and check a spec.

    Args:
        spec: a YAML file, or the name of a shipped spec such as `quickstart`.
        overrides: `key=value` each, as in `lora-bench run -o`.

    Raises:
        UsageError: the file cannot be opened.
        SpecError: the spec is wrong; the error lists every problem with its place.
    """
    return specs.load_spec(Path(spec), overrides)


def plan_experiment(spec: LoadedSpec) -> ExperimentPlan:
    """Expand a spec into trials, and decide what each is compared with.

    Raises:
        SpecError: names collide, the baseline does not exist, or a combination is not valid.
    """
    return plans.plan_file(spec)


def run_experiment(
    plan: ExperimentPlan,
    *,
    runs_dir: str | Path = "runs",
    reports_dir: str | Path = "reports",
    executor: str = "local",
    ray_address: str | None = None,
    progress: Progress | None = None,
) -> RunOutcome:
    """Do what is missing of an experiment, then write its results and report.

    Args:
        plan: from `plan_experiment`.
        runs_dir: gets a folder of the experiment's name; finished parts in it are kept.
        reports_dir: gets a folder with `report.html`, `report.md` and tables.
        executor: `local` runs one trial after the other, `ray` in parallel.
        ray_address: a cluster to join; None starts Ray on this machine.
        progress: told about trials, stages and steps; None keeps quiet.

    Raises:
        StoreError: another process runs the same experiment, or the disk is full.
        DatasetError, ModelError, ResourceError: before any trial starts.
        InterruptedRunError: the run was stopped; the same call resumes it.
    """
    from lora_bench.runner import experiment

    runs, reports = Path(runs_dir).absolute(), Path(reports_dir).absolute()
    code = experiment.run_experiment(
        plan,
        runs_dir=runs,
        reports_dir=reports,
        progress=progress or SilentProgress(),
        executor=executor,
        ray_address=ray_address,
    )
    return RunOutcome(code == EXIT_OK, runs / plan.name, reports / plan.report_name / "report.html")


def score_folders(
    reference: str | Path,
    generated: str | Path,
    metrics: Sequence[str],
    *,
    options: ScoreOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a folder of generated audio against a folder of recordings.

    Args:
        reference: recordings, in any format and at any depth; a file is a track.
        generated: clips; a file is a clip.
        metrics: names such as `mfcc20` or `encodec`.
        options: model, clip length, prompt, guards; None takes the defaults.
        progress: told about metrics and clips; None keeps quiet.

    Returns:
        The document that `lora-bench score --json` prints.

    Raises:
        UsageError, AudioFileError, ScoreError: an unknown metric, an unreadable file, or too few clips.
    """
    from lora_bench.evaluation import folder_scores

    return folder_scores.score_folders(
        Path(reference), Path(generated), metrics, progress or SilentProgress(), options
    )
