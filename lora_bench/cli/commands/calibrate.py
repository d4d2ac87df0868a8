"""`lora-bench calibrate`: measure how often the intervals and verdicts of a run's design are right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_bench.cli.options import json_option, option, quiet_option, run_option, runs_dir_option
from lora_bench.cli.progress_display import open_display
from lora_bench.cli.run_places import resolve_run
from lora_bench.cli.tables import print_json
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.trial_plan import read_plan

DEFAULT_DRAWS = 200


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench calibrate`."""

    run: Path = run_option()
    runs_dir: Path = runs_dir_option()
    draws: int = option(
        "--draws", default=DEFAULT_DRAWS, metavar="N", help=f"simulated reports; default: {DEFAULT_DRAWS}"
    )
    seed: int = option("--seed", default=0, metavar="N", help="seed of the draws; default: 0")
    json: bool = json_option()
    quiet: bool = quiet_option()


def execute(options: Options) -> int:
    """Write `calibration.json` into the run's folder, and print it.

    Raises:
        UsageError: neither the folder of a run nor a spec that has one, or `--draws` is not above 0.
        StoreError: the folder holds no run.
        UnscoredError: nothing was compared with zero-shot, or its embeddings are gone.
    """
    if options.draws < 1 or options.seed < 0:
        name, value, least = (
            ("--draws", options.draws, 1) if options.draws < 1 else ("--seed", options.seed, 0)
        )
        raise UsageError(f"{name} is {value}; expected a whole number of at least {least}")
    folder = resolve_run(options.run, options.runs_dir).absolute()
    run = RunFolder(folder)
    plan = read_plan(run.plan)
    from lora_bench.comparison.calibration import calibrate_run
    from lora_bench.results.calibration import describe_calibration
    from lora_bench.results.reading import write_record

    with open_display(quiet=options.quiet) as progress:
        found = calibrate_run(plan, folder, options.draws, options.seed, progress)
    write_record(run.calibration, found)
    if options.json:
        print_json(found.model_dump(by_alias=True))
    else:
        print(f"{plan.name}: {describe_calibration(found)}")
    return EXIT_OK
