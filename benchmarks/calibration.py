"""Coverage of intervals, false positives and power of tests, on simulated clips.

    python benchmarks/calibration.py --out benchmarks/results/calibration --rows ROWS

Every trial draws a base and a tuned generator's clips (paired) and recordings in tracks, all with correlated
windows, from populations whose distances are known.  Results are appended trial by trial to `coverage.csv`
and `power.csv` in `--rows`; the same command resumes, then writes `calibration.md`,
`summary_coverage.csv` and `summary_power.csv`.  The whole takes an hour of one core, most of
it at D = 200.  False positives on really generated clips: `noop_adapter.py`.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from calibration_report import (
    COLLAPSE_SPREAD,
    COVERAGE_COLUMNS,
    COVERAGE_PROGRESS,
    DESIGNS,
    FRECHET,
    KERNEL,
    LESS_VARIETY,
    POWER_COLUMNS,
    POWER_DIM,
    POWER_PROGRESS,
    read_rows,
    write_report,
)
from populations import Design, World

from lora_bench.comparison.paired_test import compare_paired
from lora_bench.stages.score import score_embeddings

PARTS = ("power", "coverage")


def append_rows(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    new = not path.is_file()
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(columns)
        for row in rows:
            writer.writerow([f"{item:.6g}" if isinstance(item, float) else item for item in row])


def suffix(trials: range) -> str:
    """Processes that share the work write files of their own."""
    return f"-{trials.start}" if trials.start else ""


def cover_difference(world: World, design: Design, seeds: list[int]) -> tuple[float, ...]:
    """Truth, estimate and interval of the paired difference, and the seconds it took."""
    rng = np.random.default_rng(seeds)
    base, tuned = world.sample_generators(rng, design)
    recordings = world.sample_recordings(rng, design)
    start = time.perf_counter()
    found = compare_paired(FRECHET, base, tuned, recordings, n_permutations=1)
    spent = time.perf_counter() - start
    assert found.se is not None
    assert found.ci_low is not None
    assert found.ci_high is not None
    truth = world.frechet(world.tuned) - world.frechet(world.base)
    return truth, found.delta_plugin, found.delta, found.se, found.ci_low, found.ci_high, spent


def cover_once(worlds: tuple[World, World], dim: int, name: str, trial: int) -> Iterator[tuple[object, ...]]:
    """One simulated experiment: intervals of the distance, of the paired differences, and of the MMD."""
    world, collapsed = worlds
    seeds, design = [dim, trial, 1], DESIGNS[name]
    rng = np.random.default_rng(seeds)
    base, _ = world.sample_generators(rng, design)
    recordings = world.sample_recordings(rng, design)
    head, start = (dim, name, trial), time.perf_counter()
    score = score_embeddings(FRECHET, base, recordings)
    truth, spent = world.frechet(world.base), time.perf_counter() - start
    yield (*head, "FD", truth, score.value, score.corrected, score.se, score.ci_low, score.ci_high, spent)
    yield (*head, "delta FD", *cover_difference(world, design, seeds))
    if name == next(iter(DESIGNS)):
        yield (*head, LESS_VARIETY, *cover_difference(collapsed, design, seeds))
    start = time.perf_counter()
    score = score_embeddings(KERNEL, base, recordings)
    estimate = (score.value, score.corrected, score.se, score.ci_low, score.ci_high)
    yield (*head, "MMD", world.kernel(world.base), *estimate, time.perf_counter() - start)


def run_coverage(folder: Path, dims: list[int], trials: range, decay: float) -> None:
    path = folder / f"coverage{suffix(trials)}.csv"
    done = {(row["dim"], row["design"], row["trial"]) for row in read_rows(folder, "coverage")}
    for dim in dims:
        worlds = (
            World(dim, COVERAGE_PROGRESS, decay=decay),
            World(dim, COVERAGE_PROGRESS, spread=COLLAPSE_SPREAD, decay=decay),
        )
        for design in DESIGNS:
            for trial in trials:
                if (str(dim), design, str(trial)) not in done:
                    append_rows(path, COVERAGE_COLUMNS, list(cover_once(worlds, dim, design, trial)))


def run_power(folder: Path, trials: range, n_permutations: int, decay: float) -> None:
    path = folder / f"power{suffix(trials)}.csv"
    done = {(row["metric"], float(row["progress"]), row["trial"]) for row in read_rows(folder, "power")}
    for progress in POWER_PROGRESS:
        world = World(POWER_DIM, progress, decay=decay)
        truths = {
            FRECHET: world.frechet(world.tuned) - world.frechet(world.base),
            KERNEL: world.kernel(world.tuned) - world.kernel(world.base),
        }
        for trial in trials:
            rng = np.random.default_rng([trial, 2])
            base, tuned = world.sample_generators(rng, Design())
            recordings = world.sample_recordings(rng, Design())
            for metric, truth in truths.items():
                if (metric.name, progress, str(trial)) in done:
                    continue
                found = compare_paired(
                    metric, base, tuned, recordings, n_permutations=n_permutations, seed=trial
                )
                row = (metric.name, progress, trial, truth, found.delta, found.p_value, found.verdict)
                append_rows(path, POWER_COLUMNS, [row])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--dims", type=int, nargs="+", default=[20, 128, 200])
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--decay", type=float, default=0.7, help="how fast variances fall with their rank")
    parser.add_argument(
        "--rows", type=Path, help="folder of the rows of single trials; default: that of --out"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--first-trial", type=int, default=0, help="to divide the work among processes")
    arguments = parser.parse_args()
    rows = arguments.rows or arguments.out
    for folder in (arguments.out, rows):
        folder.mkdir(parents=True, exist_ok=True)
    trials = range(arguments.first_trial, arguments.trials)
    if "power" in arguments.parts:
        run_power(rows, trials, arguments.permutations, arguments.decay)
    if "coverage" in arguments.parts:
        run_coverage(rows, arguments.dims, trials, arguments.decay)
    write_report(arguments.out, rows, arguments.decay)
    print(arguments.out / "calibration.md")


if __name__ == "__main__":
    main()
