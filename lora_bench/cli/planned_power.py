"""The power of a plan's verdicts, for `lora-bench plan --power`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import UsageError
from lora_bench.planning.trial_plan import ExperimentPlan

if TYPE_CHECKING:
    from lora_bench.forecast.power import PowerForecast


def foresee_power(
    plan: ExperimentPlan, earlier: Path | None, detect: str | None, runs_dir: Path
) -> PowerForecast | None:
    """Return what the verdicts of a plan can find by the variances of an earlier run; None without one.

    Args:
        plan: of the spec.
        earlier: `--power`: the run's folder, its spec, or its report's folder.
        detect: `--detect`.
        runs_dir: `--runs-dir`.

    Raises:
        UsageError: the earlier run is missing or has no differences, or `--detect` is no difference or stands alone.
    """
    if earlier is None:
        if detect is not None:
            raise UsageError("--detect needs the variances of an earlier run; add `--power RUN`")
        return None
    from lora_bench.forecast.power import forecast_power
    from lora_bench.results.gather import gather_results

    return forecast_power(plan, gather_results(resolve_run(earlier, runs_dir)), detect)
