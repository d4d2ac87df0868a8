"""Populations that the intervals were not derived from: heavy tails, styles, autocorrelated windows, unequal tracks.

    python benchmarks/heavy_tails.py
    python benchmarks/heavy_tails.py --power --designs 20,40,10

Means and covariances are known, hence the Frechet distances; kernel distances are computed from large samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy import linalg

from lora_bench.artifacts import Embeddings
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.contrast import Cause, Difference, Place, add_seed_errors, join_family, subtract
from lora_bench.metrics.kernel import KAD_SCALE, squared_distances
from lora_bench.metrics.replicates import Replicates
from lora_bench.metrics.verdicts import ALPHA
from lora_bench.stages.score import replicate_score, score_embeddings

TAIL_FREEDOM = 5.0
N_STYLES = 3
WINDOW_MEMORY = 0.6
N_TRUTH = 4000


@dataclass(frozen=True)
class Population:
    """Where vectors come from: `mean + root (style + shared + window)`.

    Attributes:
        mean: [D].
        root: [D, D] of the covariance.
        styles: [N_STYLES, D] offsets with mean 0; the remaining covariance is `rest @ rest.T`.
        rest: [D, D] root of what styles leave of the identity.
        shared: share of the remaining variance that windows of a track (or clip) have in common.
    """

    mean: np.ndarray
    root: np.ndarray
    styles: np.ndarray
    rest: np.ndarray
    shared: float

    def draw(
        self, rng: np.random.Generator, sizes: np.ndarray, common: np.ndarray | None = None
    ) -> np.ndarray:
        """Vectors [sum of sizes, D] of clusters.

        Args:
            rng: source of randomness.
            sizes: windows of each cluster.
            common: [G, D + 1] normal numbers behind the clusters' style and shared part; None draws them.
        """
        n, dim = len(sizes), len(self.mean)
        common = rng.normal(size=(n, dim + 1)) if common is None else common
        style = np.searchsorted(np.array([-0.43, 0.43]), common[:, 0])  # thirds of the normal distribution
        tails = np.sqrt((TAIL_FREEDOM - 2.0) / rng.chisquare(TAIL_FREEDOM, size=(n, 1)))
        shared = common[:, 1:] * tails
        units: list[np.ndarray] = []
        for cluster, size in enumerate(sizes):
            window = rng.normal(size=(int(size), dim))
            for place in range(1, int(size)):
                window[place] = (
                    WINDOW_MEMORY * window[place - 1] + np.sqrt(1 - WINDOW_MEMORY**2) * window[place]
                )
            inner = np.sqrt(self.shared) * shared[cluster] + np.sqrt(1.0 - self.shared) * window
            units.append(self.styles[style[cluster]] + inner @ self.rest.T)
        return self.mean + np.concatenate(units) @ self.root.T

    @property
    def covariance(self) -> np.ndarray:
        """[D, D]."""
        return self.root @ self.root.T


def make_population(
    rng: np.random.Generator, mean: np.ndarray, root: np.ndarray, style_share: float, shared: float
) -> Population:
    """A population whose styles take `style_share` of the variance along two random directions."""
    dim = len(mean)
    axes = linalg.qr(rng.normal(size=(dim, dim)))[0][:, :2]
    corners = np.array([[1.0, 0.0], [-0.5, np.sqrt(0.75)], [-0.5, -np.sqrt(0.75)]]) * np.sqrt(2.0)
    styles = np.sqrt(style_share) * corners @ axes.T
    left = np.eye(dim) - styles.T @ styles / N_STYLES
    return Population(mean, root, styles, np.asarray(linalg.sqrtm(left).real), shared)


class HeavyWorld:
    """Recordings and a base generator, which is fine-tuned."""

    def __init__(self, dim: int) -> None:
        rng = np.random.default_rng([dim, 0])
        scales = np.arange(1, dim + 1) ** -0.35
        axes = linalg.qr(rng.normal(size=(dim, dim)))[0]
        turned = linalg.qr(axes + 0.45 / np.sqrt(dim) * rng.normal(size=(dim, dim)))[0]
        own = turned * (scales * np.exp(0.3 * rng.normal(size=dim)) * np.sqrt(1.2))
        shift = rng.normal(size=dim)
        shift *= 0.6 / np.linalg.norm(shift)
        self.recordings = make_population(rng, np.zeros(dim), axes * scales, 0.5, 0.5)
        self.base = make_population(rng, shift, own, 0.3, 0.5)

    def tune(self, change: float) -> Population:
        """Move the base straight (by optimal transport) to where its Frechet distance has changed by a share.

        With no change it has the base's mean and covariance and other styles: an equal distance of another
        distribution.
        """
        left = np.sqrt(1.0 + change)
        own, goal = self.base.root, self.recordings.root
        one, _, other = linalg.svd(goal.T @ own)
        root = left * own + (1.0 - left) * goal @ one @ other
        rng = np.random.default_rng([len(own), 1])
        return make_population(rng, left * self.base.mean, root, 0.3 if change else 0.9, 0.5)

    def frechet(self, generator: Population) -> float:
        """True squared Frechet distance to the recordings."""
        other = self.recordings
        shift = generator.mean - other.mean
        overlap = linalg.svdvals(generator.root.T @ other.root).sum()
        return float(
            shift @ shift + np.trace(generator.covariance) + np.trace(other.covariance) - 2.0 * overlap
        )

    @cached_property
    def _truth(self) -> tuple[np.ndarray, float, float]:
        """Return a large sample of single recordings, the bandwidth, and their mean kernel."""
        sample = self.recordings.draw(np.random.default_rng(1), np.ones(N_TRUTH, dtype=np.int64))
        gaps = np.sqrt(squared_distances(sample, sample))
        width = float(np.median(gaps[np.triu_indices(N_TRUTH, 1)]))
        return sample, width, mean_kernel(sample, sample, width)

    def kernel(self, generator: Population) -> float:
        """100 x squared maximum mean discrepancy, from samples of `N_TRUTH` vectors."""
        sample, width, own = self._truth
        made = generator.draw(np.random.default_rng(2), np.ones(N_TRUTH, dtype=np.int64))
        return KAD_SCALE * (mean_kernel(made, made, width) + own - 2.0 * mean_kernel(made, sample, width))

    def sample_recordings(self, rng: np.random.Generator, n_tracks: int) -> Embeddings:
        """Tracks of 6 to 24 windows."""
        sizes = rng.integers(6, 25, size=n_tracks)
        return _wrap(self.recordings.draw(rng, sizes), sizes)


def mean_kernel(one: np.ndarray, other: np.ndarray, width: float) -> float:
    """Mean of the Gaussian kernel over pairs of different vectors."""
    kernel = np.exp(squared_distances(one, other) / (-2.0 * width**2))
    same = len(one) if one is other else 0
    return float((kernel.sum() - same) / (kernel.size - same))


def sample_clips(
    rng: np.random.Generator, generators: Sequence[Population], n_clips: int, common: float = 0.5
) -> list[Embeddings]:
    """The same clips by several generators; `common`: share of what a clip's windows share that the noise decides."""
    sizes = np.full(n_clips, 6)
    noise = rng.normal(size=(len(generators), n_clips, len(generators[0].mean) + 1))
    noise[1:] = np.sqrt(common) * noise[0] + np.sqrt(1.0 - common) * noise[1:]
    return [_wrap(made.draw(rng, sizes, of), sizes) for made, of in zip(generators, noise, strict=True)]


def _wrap(values: np.ndarray, sizes: np.ndarray) -> Embeddings:
    names = tuple(f"{cluster:03d}" for cluster in range(len(sizes)))
    return Embeddings(
        values=values,
        clip_index=np.repeat(np.arange(len(sizes)), sizes),
        clip_names=names,
        groups=names,
        provenance={"encoder": "simulated"},
    )


FRECHET, KERNEL = parse_metric("encodec"), parse_metric("mmd/encodec")
DESIGNS = (
    "20,20,4",
    "20,40,4",
    "20,40,10",
    "20,40,16",
    "20,80,16",
    "20,150,8",
    "20,150,32",
    "64,40,4",
    "64,40,10",
    "64,80,16",
    "64,80,32",
    "128,40,8",
    "128,80,16",
    "128,150,32",
)
N_PROMPTS = 5
CHANGE = -0.3
POWER_CHANGES = (-0.09, -0.18, -0.34, -0.49)
SEED_SD = 0.05
"""Spread of the change over training seeds."""


@dataclass
class Tally:
    """How often something was given, and was right."""

    n: int = 0
    given: int = 0
    right: int = 0

    def count(self, is_so: bool) -> None:
        """Count an event or its absence."""
        self.n += 1
        self.given += 1
        self.right += is_so

    def add(self, low: float | None, high: float | None, truth: float) -> None:
        """Count an interval."""
        self.n += 1
        if low is not None and high is not None:
            self.given += 1
            self.right += low <= truth <= high

    def __str__(self) -> str:
        if not self.given:
            return "refused" if self.n else "-"
        rate = 100.0 * self.right / self.given
        return f"{rate:.1f} ± {100.0 * np.sqrt(max(rate, 1.0) * (101.0 - rate) / 1e4 / self.given):.1f}"


def replicate(metric: Metric, sets: Sequence[Embeddings], recordings: Embeddings) -> Replicates:
    """The distance of some prompts together, with its leave-one-out values."""
    return replicate_score(metric, sets, recordings)[0]


def has_verdict(metric: Metric, pairs: list[tuple[Embeddings, Embeddings]], recordings: Embeddings) -> bool:
    """Whether any simultaneous interval of the prompts, and of these together, excludes zero."""
    names = [str(place) for place in range(len(pairs))]
    members: list[tuple[Difference, dict[Cause, list[Place]]]] = []
    for chosen, label in [
        *(([pair], [name]) for pair, name in zip(pairs, names, strict=True)),
        (pairs, names),
    ]:
        tuned, base = (replicate(metric, [pair[side] for pair in chosen], recordings) for side in (1, 0))
        members.append(
            (subtract([(tuned, base)]), {"clips": [(name,) for name in label], "tracks": [("all",)]})
        )
    family = join_family(members)
    return any(excludes_zero(found, family.alpha) for found, _ in members)


def excludes_zero(found: Difference, alpha: float = ALPHA) -> bool:
    """Whether the difference is called better or worse."""
    interval = found.interval(alpha)
    return interval.low > 0.0 or interval.high < 0.0


@cache
def know_truth(dim: int) -> tuple[HeavyWorld, list[Population], dict[Metric, list[float]]]:
    """A world, its base and fine-tuned generators, and their true distances."""
    world = HeavyWorld(dim)
    generators = [world.base, world.tune(CHANGE)]
    measures = (FRECHET, world.frechet), (KERNEL, world.kernel)
    return world, generators, {metric: [measure(one) for one in generators] for metric, measure in measures}


def measure_coverage(dim: int, n_clips: int, n_tracks: int, n_trials: int) -> list[Tally]:
    """Coverage of the 95 % intervals of FD, its difference, MMD and its difference."""
    world, generators, truths = know_truth(dim)
    tallies = [Tally() for _ in range(4)]
    for trial in range(n_trials):
        rng = np.random.default_rng([dim, n_clips, n_tracks, trial])
        base, tuned = sample_clips(rng, generators, n_clips)
        recordings = world.sample_recordings(rng, n_tracks)
        for place, (metric, (before, after)) in enumerate(truths.items()):
            score = score_embeddings(metric, base, recordings)
            tallies[2 * place].add(score.ci_low, score.ci_high, before)
            found = subtract(
                [(replicate(metric, [tuned], recordings), replicate(metric, [base], recordings))]
            )
            interval = None if found.lacking else found.interval()
            tallies[2 * place + 1].add(interval and interval.low, interval and interval.high, after - before)
    return tallies


def count_false_verdicts(dim: int, n_clips: int, n_tracks: int, n_trials: int) -> Tally:
    """How often a report over `N_PROMPTS` prompts has a verdict although every true Frechet difference is zero."""
    world = HeavyWorld(dim)
    generators = world.base, world.tune(0.0)
    tally = Tally()
    for trial in range(n_trials):
        rng = np.random.default_rng([dim, n_clips, n_tracks, trial, 1])
        recordings = world.sample_recordings(rng, n_tracks)
        pairs = [
            (base, tuned)
            for base, tuned in (sample_clips(rng, generators, n_clips) for _ in range(N_PROMPTS))
        ]
        tally.count(has_verdict(FRECHET, pairs, recordings))
    return tally


def measure_power(sizes: tuple[int, int, int], change: float, n_trials: int) -> list[Tally]:
    """How often a true change is found: FD, MMD with one adapter; FD with other noise; FD, MMD with three."""
    dim, n_clips, n_tracks = sizes
    world = HeavyWorld(dim)
    tallies = [Tally() for _ in range(5)]
    for trial in range(n_trials):
        rng = np.random.default_rng([*sizes, trial, 2])
        adapters = [world.tune(change), *(world.tune(change + SEED_SD * rng.normal()) for _ in range(3))]
        recordings = world.sample_recordings(rng, n_tracks)
        base, *tuned = sample_clips(rng, (world.base, *adapters), n_clips)
        _, unpaired = sample_clips(rng, (world.base, adapters[0]), n_clips, common=0.0)
        cases = [(FRECHET, tuned[:1]), (KERNEL, tuned[:1]), (FRECHET, [unpaired])]
        for place, (metric, seeds) in enumerate([*cases, (FRECHET, tuned[1:]), (KERNEL, tuned[1:])]):
            before = replicate(metric, [base], recordings)
            found = subtract([(replicate(metric, [made], recordings), before) for made in seeds])
            tallies[place].count(excludes_zero(add_seed_errors([found])[0]))
    return tallies


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--designs", nargs="+", default=DESIGNS, metavar="D,CLIPS,TRACKS")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument(
        "--reports", type=int, help="of several prompts, for false verdicts; default: --trials"
    )
    parser.add_argument("--power", action="store_true", help="how often true changes are found")
    arguments = parser.parse_args()
    head = ("FD", "ΔFD", "MMD", "ΔMMD", f"any false verdict, equal FD, {N_PROMPTS} prompts")
    if arguments.power:
        head = ("change", "FD", "MMD", "FD, other noise", "FD, 3 seeds", "MMD, 3 seeds")
    print("| D, clips, tracks |", " | ".join(head), "|")
    print("|:---|" + "---:|" * len(head))
    for design in arguments.designs:
        dim, n_clips, n_tracks = (int(number) for number in design.split(","))
        sizes = dim, n_clips, n_tracks
        name = f"| {design.replace(',', ', ')} |"
        if arguments.power:
            for change in POWER_CHANGES:
                cells = measure_power(sizes, change, arguments.trials)
                print(name, f"{100 * change:+.0f} % |", " | ".join(map(str, cells)), "|", flush=True)
            continue
        n_reports = arguments.trials if arguments.reports is None else arguments.reports
        cells = [*measure_coverage(*sizes, arguments.trials), count_false_verdicts(*sizes, n_reports)]
        print(name, " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
