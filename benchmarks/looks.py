"""What looks before all clips cost and save: false verdicts of reports, true changes found, and clips generated.

    python benchmarks/looks.py --reports 400 > benchmarks/results/calibration/looks.md

Simulated Gaussian clips and recordings (`populations.py`).  A report compares three configurations with zero-shot over
two prompts together.  Every configuration has one adapter and shares a half of its clips' common noise with zero-shot.
Levels are those of `verdict.looks`; *5 % at every look* is what they protect from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from heavy_tails import FRECHET, Tally, excludes_zero, replicate
from populations import Design, World

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.looks import Look, split_level
from lora_bench.metrics.clusters import take_clips
from lora_bench.metrics.contrast import Cause, Place, join_family, subtract
from lora_bench.metrics.verdicts import ALPHA

DIM, N_CONFIGURATIONS, N_PROMPTS = 20, 3, 2
LOOKS = [40, 80, 150]
PROGRESS = (0.0, 0.08, 0.16, 0.3)

Configurations = list[list[Embeddings]]
"""Of zero-shot and every configuration: the clips of each prompt."""


def draw_report(world: World, rng: np.random.Generator) -> tuple[Configurations, Embeddings]:
    """Draw all clips of a report, and the recordings."""
    design = Design()
    by_prompt = [world.sample_generators(rng, design, N_CONFIGURATIONS) for _ in range(N_PROMPTS)]
    return [list(sets) for sets in zip(*by_prompt, strict=True)], world.sample_recordings(rng, design)


def look_once(
    zero_shot: list[Embeddings], tuned: Configurations, recordings: Embeddings, look: Look
) -> list[bool]:
    """Return which configurations have a verdict, better or worse, with the first clips of each prompt."""
    kept = [[take_clips(clips, range(look.n_clips)) for clips in sets] for sets in (zero_shot, *tuned)]
    base, *others = [replicate(FRECHET, sets, recordings) for sets in kept]
    places: dict[Cause, list[Place]] = {
        "clips": [(str(prompt),) for prompt in range(N_PROMPTS)], "tracks": [("all",)],
    }  # fmt: skip
    found = [subtract([(other, base)]) for other in others]
    family = join_family([(difference, places) for difference in found], look.alpha)
    return [excludes_zero(difference, family.alpha) for difference in found]


def decide(sets: Configurations, recordings: Embeddings, looks: Sequence[Look]) -> list[tuple[bool, int]]:
    """Return per configuration whether a verdict was given at any look, and its clips per prompt."""
    zero_shot, *tuned = sets
    at: dict[int, int] = {}
    for look in looks:
        verdicts = look_once(zero_shot, tuned, recordings, look)
        at |= {place: look.n_clips for place, given in enumerate(verdicts) if given and place not in at}
    return [(place in at, at.get(place, looks[-1].n_clips)) for place in range(len(tuned))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reports", type=int, default=200)
    parser.add_argument("--progress", type=float, nargs="+", default=PROGRESS, help="of the tuned generators")
    arguments = parser.parse_args()
    n_reports = arguments.reports
    ways = {
        "one look, at all clips": [Look(LOOKS[-1], ALPHA)],
        "shared 5 %": split_level(LOOKS),
        "5 % at every look": [Look(n, ALPHA) for n in LOOKS],
    }
    print(
        f"# Looks before all clips\n\n`python benchmarks/looks.py --reports {n_reports}`: looks at", end=" "
    )
    print(
        f"{', '.join(map(str, LOOKS))} clips per prompt; {N_CONFIGURATIONS} configurations, {N_PROMPTS} prompts, ",
        end="",
    )
    print("150 recordings of 50 tracks, D = 20. In percent, with standard errors.\n")
    print(
        "| true change of FD | levels | reports with a verdict | configurations with a verdict | clips generated |"
    )
    print("|---:|:---|---:|---:|---:|")
    for progress in arguments.progress:
        world = World(DIM, progress)
        change = world.frechet(world.tuned) / world.frechet(world.base) - 1.0
        reports = {name: Tally() for name in ways}
        single = {name: Tally() for name in ways}
        clips: dict[str, list[int]] = {name: [] for name in ways}
        for report in range(n_reports):
            sets, recordings = draw_report(world, np.random.default_rng([report, 7]))
            for name, looks in ways.items():
                decided = decide(sets, recordings, looks)
                reports[name].count(any(given for given, _ in decided))
                for given, n_clips in decided:
                    single[name].count(given)
                    clips[name].append(n_clips)
        for name in ways:
            share = 100.0 * np.mean(clips[name]) / LOOKS[-1]
            cells = f"{100 * change:+.0f} %", name, reports[name], single[name], f"{share:.0f}"
            print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
