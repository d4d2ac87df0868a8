"""Are the intervals and tests what they say?  Coverage, false positives and power on simulated clips.

    python benchmarks/calibration.py --out reports/calibration [--trials 200] [--dims 20 128 200]

Every trial draws a base and a tuned generator's clips (paired) and recordings in tracks, all with correlated
windows, from populations whose distances are known.  Results are appended trial by trial to `coverage.csv`
and `power.csv`; the same command goes on where it stopped, then writes `calibration.md`, `summary.csv` and
`calibration.svg`.  With `--generated` and `--reference` (embeddings as a run stores them) the false-positive
rate is also measured on really generated clips: one generator's clips are divided at random into two.
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
    share,
    write_report,
)
from populations import Design, World

from lora_bench.comparisons import ALPHA, NO_DIFFERENCE, Comparison, compare_paired
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.clusters import take_clips
from lora_bench.stages.embed import load_embeddings
from lora_bench.stages.score import score_embeddings


def append_rows(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    new = not path.is_file()
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(columns)
        for row in rows:
            writer.writerow([f"{item:.6g}" if isinstance(item, float) else item for item in row])


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


def run_coverage(path: Path, dims: list[int], trials: int, decay: float) -> None:
    done = {(row["dim"], row["design"], row["trial"]) for row in read_rows(path)}
    for dim in dims:
        worlds = (
            World(dim, COVERAGE_PROGRESS, decay=decay),
            World(dim, COVERAGE_PROGRESS, spread=COLLAPSE_SPREAD, decay=decay),
        )
        for trial in range(trials):
            for design in DESIGNS:
                if (str(dim), design, str(trial)) not in done:
                    append_rows(path, COVERAGE_COLUMNS, list(cover_once(worlds, dim, design, trial)))


def run_power(path: Path, trials: int, n_permutations: int, decay: float) -> None:
    done = {(row["metric"], float(row["progress"]), row["trial"]) for row in read_rows(path)}
    for progress in POWER_PROGRESS:
        world = World(POWER_DIM, progress, decay=decay)
        truths = {
            FRECHET: world.frechet(world.tuned) - world.frechet(world.base),
            KERNEL: world.kernel(world.tuned) - world.kernel(world.base),
        }
        for trial in range(trials):
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


def run_real(
    generated: Path, reference: Path, metric: Metric, trials: int, n_permutations: int
) -> list[Comparison]:
    """Comparisons of a generator with itself: its clips, divided at random and paired at random."""
    clips, recordings = load_embeddings(generated), load_embeddings(reference)
    half = len(clips.clip_names) // 2
    names = tuple(f"{place:03d}" for place in range(half))
    found: list[Comparison] = []
    for trial in range(trials):
        order = [int(place) for place in np.random.default_rng([trial, 3]).permutation(2 * half)]
        one, other = (take_clips(clips, order[part]) for part in (slice(0, half), slice(half, 2 * half)))
        renamed = [
            type(item)(item.values, item.clip_index, names, names, item.provenance) for item in (one, other)
        ]
        found.append(compare_paired(metric, *renamed, recordings, n_permutations=n_permutations, seed=trial))
    return found


def describe_real(arguments: argparse.Namespace) -> list[str]:
    lines = ["", "## False positives on generated clips", ""]
    for name in arguments.metrics:
        found = run_real(
            arguments.generated,
            arguments.reference,
            parse_metric(name),
            arguments.trials,
            arguments.permutations,
        )
        rejected, error, n = share(item.p_value <= ALPHA for item in found)
        told, _, _ = share(item.verdict != NO_DIFFERENCE for item in found)
        lines.append(
            f"- `{name}`: {rejected:.3f} +- {error:.3f} of {n} random divisions of "
            f"{2 * found[0].n_pairs} clips have p <= {ALPHA:g}; {told:.3f} get a verdict other than "
            f"*{NO_DIFFERENCE}*."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--dims", type=int, nargs="+", default=[20, 128, 200])
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--decay", type=float, default=0.7, help="how fast variances fall with their rank")
    parser.add_argument("--generated", type=Path, help="embeddings of one generator's clips (.npz)")
    parser.add_argument("--reference", type=Path, help="embeddings of the recordings (.npz)")
    parser.add_argument("--metrics", nargs="+", default=["mfcc20", "mmd/mfcc20"], help="for --generated")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    run_power(arguments.out / "power.csv", arguments.trials, arguments.permutations, arguments.decay)
    run_coverage(arguments.out / "coverage.csv", arguments.dims, arguments.trials, arguments.decay)
    real = describe_real(arguments) if arguments.generated and arguments.reference else []
    write_report(arguments.out, arguments.decay, real)
    print(arguments.out / "calibration.md")


if __name__ == "__main__":
    main()
