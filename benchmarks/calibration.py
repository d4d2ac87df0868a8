"""Coverage of intervals, false verdicts and power on simulated Gaussian clips, with many clips and tracks.

    python benchmarks/calibration.py > benchmarks/results/calibration/calibration.md

Base and tuned generators make the same clips; recordings come in tracks; all windows are correlated; the distances are
known exactly (`populations.py`).  Harder populations: `heavy_tails.py`; a run's own features: `lora-bench calibrate`.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from heavy_tails import FRECHET, KERNEL, Tally, excludes_zero, replicate
from populations import Design, World

from lora_bench.metrics import Metric
from lora_bench.metrics.contrast import Difference, subtract
from lora_bench.stages.score import score_embeddings

DESIGNS = {"50 tracks x 3 clips": Design(), "150 tracks x 1 clip": Design(n_tracks=150, n_track_clips=1)}
PROGRESS, LESS_VARIETY = 0.3, 0.93
POWER_DIM = 20
POWER_PROGRESS = (0.0, 0.04, 0.08, 0.16)

HEAD = """# Calibration on Gaussian data

`python benchmarks/calibration.py --trials {n} --dims {dims}`: {design.n_clips} generated clips of
{design.n_windows} windows ({design.clip_share:.0%} of the variance common to a clip, half of that common to base and
tuned); recordings in tracks ({design.track_share:.0%} of the variance common to a track,
{design.track_clip_share:.0%} more to a clip). Shares in percent, with standard errors, of {n} experiments.

## Coverage of the 95 % intervals

Δ: a generator that went {progress:.0%} of the way to the recordings, less the base; *less variety*: and then shrank by
the factor {spread:g}.

| D, recordings | FD | ΔFD | ΔFD, less variety | MMD | ΔMMD |
|:---|---:|---:|---:|---:|---:|"""
MIDDLE = """
## Verdicts

D = {dim}, {name}. A verdict without a true change is false; at most 5 % should be.

| true change of FD | verdicts | true change of MMD | verdicts |
|---:|---:|---:|---:|"""


def differ(world: World, metric: Metric, design: Design, rng: np.random.Generator) -> Difference:
    """Difference of the tuned generator from the base, in one simulated experiment."""
    base, tuned = world.sample_generators(rng, design)
    recordings = world.sample_recordings(rng, design)
    return subtract([(replicate(metric, [tuned], recordings), replicate(metric, [base], recordings))])


def cover_difference(
    world: World, metric: Metric, design: Design, rng: np.random.Generator, tally: Tally
) -> None:
    measure = world.frechet if metric is FRECHET else world.kernel
    interval = differ(world, metric, design, rng).interval()
    tally.add(interval.low, interval.high, measure(world.tuned) - measure(world.base))


def cover_score(world: World, metric: Metric, design: Design, rng: np.random.Generator, tally: Tally) -> None:
    measure = world.frechet if metric is FRECHET else world.kernel
    base, _ = world.sample_generators(rng, design)
    score = score_embeddings(metric, base, world.sample_recordings(rng, design))
    tally.add(score.ci_low, score.ci_high, measure(world.base))


def print_coverage(dim: int, n_trials: int) -> None:
    """Print a row per design."""
    moved, poorer = World(dim, PROGRESS), World(dim, PROGRESS, spread=LESS_VARIETY)
    questions = [
        partial(cover_score, moved, FRECHET), partial(cover_difference, moved, FRECHET),
        partial(cover_difference, poorer, FRECHET), partial(cover_score, moved, KERNEL),
        partial(cover_difference, moved, KERNEL),
    ]  # fmt: skip
    for name, design in DESIGNS.items():
        tallies = [Tally() for _ in questions]
        for trial in range(n_trials):
            for ask, tally in zip(questions, tallies, strict=True):
                ask(design, np.random.default_rng([dim, trial, 1]), tally)
        print(f"| {dim}, {name} |", " | ".join(map(str, tallies)), "|", flush=True)


def print_power(progress: float, n_trials: int) -> None:
    """Print how often a verdict is given; without progress, a false one."""
    world, cells = World(POWER_DIM, progress), list[str]()
    for metric, measure in ((FRECHET, world.frechet), (KERNEL, world.kernel)):
        tally = Tally()
        for trial in range(n_trials):
            tally.count(excludes_zero(differ(world, metric, Design(), np.random.default_rng([trial, 2]))))
        change = measure(world.tuned) / measure(world.base) - 1.0
        cells += [f"{100 * change:+.1f} %", str(tally)]
    print("|", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--dims", type=int, nargs="+", default=[20, 128])
    arguments = parser.parse_args()
    print(
        HEAD.format(
            n=arguments.trials,
            dims=" ".join(map(str, arguments.dims)),
            progress=PROGRESS,
            spread=LESS_VARIETY,
            design=Design(),
        )
    )
    for dim in arguments.dims:
        print_coverage(dim, arguments.trials)
    print(MIDDLE.format(dim=POWER_DIM, name=next(iter(DESIGNS))))
    for progress in POWER_PROGRESS:
        print_power(progress, arguments.trials)


if __name__ == "__main__":
    main()
