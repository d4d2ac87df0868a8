"""The calibration of a run's design in words."""

from __future__ import annotations

from math import sqrt

from lora_bench.planning.run_folder import RunFolder
from lora_bench.results.reading import read_part
from lora_bench.results.run_files import CalibrationFile, ContrastsFile


def tell_calibration(run: RunFolder) -> str | None:
    """Return the calibration of a run's present contrasts, or what is wrong with its file; None without one."""
    problems: list[str] = []
    found = read_part(run.calibration, CalibrationFile, problems)
    contrasts = read_part(run.contrasts, ContrastsFile, [])
    if problems:
        return problems[0]
    if found is None or contrasts is None or found.key != contrasts.key:
        return None
    text = describe_calibration(found)
    return f"{text[0].upper()}{text[1:]}."


def describe_calibration(found: CalibrationFile) -> str:
    """Return one sentence on coverage and false verdicts, with their binomial standard errors."""
    tracks = (
        ""
        if found.n_tracks is None
        else f" and {found.n_tracks} reference track{'s' * (found.n_tracks != 1)}"
    )
    drawn = (
        f"in {found.n_draws} reports on {found.metric} with {found.n_clips} clips per prompt{tracks} drawn from this "
        "run's own"
    )
    if found.covered is None or found.jointly_covered is None:
        return f"{drawn}, too few had an interval for every difference to say how often they are right"
    joint = ""
    if found.n_differences > 1:
        rate = _format(found.jointly_covered, found.n_draws)
        joint = f", and all {found.n_differences} simultaneous intervals did together in {rate}"
    return (
        f"{drawn}, single 95 % intervals held the true difference in {_format(found.covered, found.n_draws)}{joint}; "
        "with the clips of every configuration drawn from those of zero-shot, "
        f"{_format(found.false_verdicts, found.n_draws)} of the reports had a false verdict"
    )


def _format(rate: float, n: int) -> str:
    """Return a rate with its standard error; at 0 and 1, that of half an event."""
    inner = min(max(rate, 0.5 / n), 1.0 - 0.5 / n)
    return f"{100 * rate:.1f} ± {100 * sqrt(inner * (1.0 - inner) / n):.1f} %"
