"""Populations that the intervals were not derived from: heavy tails, styles, autocorrelated windows, unequal tracks.

    python benchmarks/heavy_tails.py

Means and covariances are known, hence the Frechet distances; kernel distances are computed from large samples.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg

from lora_bench.artifacts import Embeddings
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.contrast import Difference, join_family, subtract
from lora_bench.metrics.kernel import KAD_SCALE, squared_distances
from lora_bench.stages.score import replicate_score, score_embeddings

TAIL_FREEDOM = 5.0
N_STYLES = 3
WINDOW_MEMORY = 0.6
N_TRUTH = 6000


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
    """Recordings, a base generator, and a tuned one.

    `progress` of the way from base to recordings is gone in mean and root.  `reshaped` instead gives the tuned
    generator the base's mean and covariance with other styles: the Frechet distance is equal, the distribution is not.
    """

    def __init__(self, dim: int, progress: float, *, reshaped: bool = False, seed: int = 0) -> None:
        rng = np.random.default_rng([dim, seed])
        scales = np.arange(1, dim + 1) ** -0.35
        axes = linalg.qr(rng.normal(size=(dim, dim)))[0]
        turned = linalg.qr(axes + 0.45 / np.sqrt(dim) * rng.normal(size=(dim, dim)))[0]
        own = turned * (scales * np.exp(0.3 * rng.normal(size=dim)) * np.sqrt(1.2))
        shift = rng.normal(size=dim)
        shift *= 0.6 / np.linalg.norm(shift)
        root = axes * scales
        self.recordings = make_population(rng, np.zeros(dim), root, 0.5, 0.5)
        self.base = make_population(rng, shift, own, 0.3, 0.5)
        if reshaped:
            self.tuned = make_population(rng, shift, own, 0.9, 0.5)
        else:
            mean, moved = (1 - progress) * shift, (1 - progress) * own + progress * root
            self.tuned = make_population(rng, mean, moved, 0.3, 0.5)

    def frechet(self, generator: Population) -> float:
        """True squared Frechet distance to the recordings."""
        other = self.recordings
        shift = generator.mean - other.mean
        overlap = linalg.svdvals(generator.root.T @ other.root).sum()
        return float(
            shift @ shift + np.trace(generator.covariance) + np.trace(other.covariance) - 2.0 * overlap
        )

    @cached_property
    def _truth(self) -> dict[str, float]:
        rng = np.random.default_rng(1)
        ones = np.ones(N_TRUTH, dtype=np.int64)
        sets = {name: getattr(self, name).draw(rng, ones) for name in ("recordings", "base", "tuned")}
        gaps = np.sqrt(squared_distances(sets["recordings"], sets["recordings"]))
        width = float(np.median(gaps[np.triu_indices(N_TRUTH, 1)]))

        def mean_kernel(one: str, other: str) -> float:
            kernel = np.exp(squared_distances(sets[one], sets[other]) / (-2.0 * width**2))
            same = N_TRUTH if one == other else 0
            return float((kernel.sum() - same) / (N_TRUTH**2 - same))

        own = mean_kernel("recordings", "recordings")
        return {
            name: KAD_SCALE * (mean_kernel(name, name) + own - 2.0 * mean_kernel(name, "recordings"))
            for name in ("base", "tuned")
        }

    def kernel(self, name: str) -> float:
        """100 x squared maximum mean discrepancy of `base` or `tuned`, from a sample of `N_TRUTH` vectors."""
        return self._truth[name]

    def sample_recordings(self, rng: np.random.Generator, n_tracks: int) -> Embeddings:
        """Tracks of 6 to 24 windows."""
        sizes = rng.integers(6, 25, size=n_tracks)
        return _wrap(self.recordings.draw(rng, sizes), sizes)

    def sample_generators(self, rng: np.random.Generator, n_clips: int) -> tuple[Embeddings, Embeddings]:
        """The same clips by the base and by the tuned generator: half of what a clip's windows share is common."""
        sizes = np.full(n_clips, 6)
        dim = len(self.base.mean)
        first, noise = rng.normal(size=(2, n_clips, dim + 1))
        second = np.sqrt(0.5) * first + np.sqrt(0.5) * noise
        return _wrap(self.base.draw(rng, sizes, first), sizes), _wrap(
            self.tuned.draw(rng, sizes, second), sizes
        )


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
    "20,40,4",
    "20,40,10",
    "20,40,16",
    "20,80,16",
    "20,150,8",
    "20,40,32",
    "64,40,4",
    "64,40,10",
    "64,40,32",
    "128,80,16",
)
N_PROMPTS = 5


@dataclass
class Tally:
    """How often something was given, and was right."""

    n: int = 0
    given: int = 0
    right: int = 0

    def add(self, low: float | None, high: float | None, truth: float) -> None:
        """Count an interval."""
        self.n += 1
        if low is not None and high is not None:
            self.given += 1
            self.right += low <= truth <= high

    def __str__(self) -> str:
        if not self.given:
            return "refused"
        rate = 100.0 * self.right / self.given
        return f"{rate:.1f} ± {100.0 * np.sqrt(max(rate, 1.0) * (101.0 - rate) / 1e4 / self.given):.1f}"


def difference(
    metric: Metric, base: list[Embeddings], tuned: list[Embeddings], recordings: Embeddings
) -> Difference:
    """The tuned generator less the base, over some prompts together."""
    ours, theirs = (replicate_score(metric, sets, recordings)[0] for sets in (tuned, base))
    return subtract([(ours, theirs)])


def has_verdict(metric: Metric, pairs: list[tuple[Embeddings, Embeddings]], recordings: Embeddings) -> bool:
    """Whether any simultaneous interval of the prompts, and of these together, excludes zero."""
    names = [str(place) for place in range(len(pairs))]
    sets = [[pair] for pair in pairs] + [pairs]
    labels = [[name] for name in names] + [names]
    members = [
        (
            difference(metric, [base for base, _ in chosen], [tuned for _, tuned in chosen], recordings),
            {"clips": [(name,) for name in label], "tracks": [("tracks",)]},
        )
        for chosen, label in zip(sets, labels, strict=True)
    ]
    family = join_family(members)
    intervals = [found.interval(family.alpha) for found, _ in members]
    return any(interval.low > 0.0 or interval.high < 0.0 for interval in intervals)


def measure_coverage(dim: int, n_clips: int, n_tracks: int, n_trials: int) -> list[Tally]:
    """Coverage of the 95 % intervals of FD, its difference, MMD and its difference."""
    world = HeavyWorld(dim, 0.3)
    truths = {
        FRECHET: (world.frechet(world.base), world.frechet(world.tuned) - world.frechet(world.base)),
        KERNEL: (world.kernel("base"), world.kernel("tuned") - world.kernel("base")),
    }
    tallies = [Tally() for _ in range(4)]
    for trial in range(n_trials):
        rng = np.random.default_rng([dim, n_clips, n_tracks, trial])
        base, tuned = world.sample_generators(rng, n_clips)
        recordings = world.sample_recordings(rng, n_tracks)
        for place, (metric, (level, change)) in enumerate(truths.items()):
            score = score_embeddings(metric, base, recordings)
            found = difference(metric, [base], [tuned], recordings)
            interval = None if found.lacking else found.interval()
            tallies[2 * place].add(score.ci_low, score.ci_high, level)
            tallies[2 * place + 1].add(interval and interval.low, interval and interval.high, change)
    return tallies


def count_false_verdicts(dim: int, n_clips: int, n_tracks: int, n_trials: int) -> Tally:
    """How often a report over `N_PROMPTS` prompts has a verdict although every true Frechet difference is zero."""
    world = HeavyWorld(dim, 0.0, reshaped=True)
    tally = Tally()
    for trial in range(n_trials):
        rng = np.random.default_rng([dim, n_clips, n_tracks, trial, 1])
        recordings = world.sample_recordings(rng, n_tracks)
        pairs = [world.sample_generators(rng, n_clips) for _ in range(N_PROMPTS)]
        tally.n += 1
        tally.given += 1
        tally.right += has_verdict(FRECHET, pairs, recordings)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--designs", nargs="+", default=DESIGNS, metavar="D,CLIPS,TRACKS")
    parser.add_argument("--trials", type=int, default=200)
    arguments = parser.parse_args()
    print("| D, clips, tracks | FD | ΔFD | MMD | ΔMMD | any false verdict, equal FD, 5 prompts |")
    print("|:---|---:|---:|---:|---:|---:|")
    for design in arguments.designs:
        sizes = tuple(int(number) for number in design.split(","))
        cells = [*measure_coverage(*sizes, arguments.trials), count_false_verdicts(*sizes, arguments.trials)]
        print(f"| {design.replace(',', ', ')} |", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
