"""The Frechet distance against SciPy's matrix square root, alone and with its interval.

    python benchmarks/frechet.py --case distance --dim 2048 --clips 150 --windows 1
    python benchmarks/frechet.py --case interval --dim 128 --clips 300 --windows 8

`distance` is one value.  `interval` is the value with the jackknife of both sides (one replicate per clip
and side); the contenders recompute every replicate, of which `--replicates` are timed and scaled up.
Times are CPU seconds of the process, which other work on the machine lengthens little.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
from scipy import linalg
from side_by_side import Contender, resident_gib, run_side_by_side

from lora_bench.artifacts import Embeddings
from lora_bench.metrics import parse_metric
from lora_bench.metrics.frechet import frechet_distance
from lora_bench.stages.score import score_embeddings


def distance_by_sqrtm(x: np.ndarray, y: np.ndarray) -> float:
    """The textbook computation of FID and FAD tools."""
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = linalg.sqrtm(cov_x @ cov_y)
    shift = x.mean(axis=0) - y.mean(axis=0)
    return float(shift @ shift + np.trace(cov_x) + np.trace(cov_y) - 2.0 * np.trace(root).real)


def make_vectors(arguments: argparse.Namespace, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    of_clip = rng.normal(size=(arguments.clips, 1, arguments.dim))
    values = 0.6 * of_clip + 0.8 * rng.normal(size=(arguments.clips, arguments.windows, arguments.dim))
    return (values + 0.1 * seed).reshape(-1, arguments.dim)


def wrap(values: np.ndarray, arguments: argparse.Namespace) -> Embeddings:
    names = tuple(str(clip) for clip in range(arguments.clips))
    index = np.repeat(np.arange(arguments.clips), arguments.windows)
    return Embeddings(values, index, names, names, {})


def time_distance(distance: Callable[[np.ndarray, np.ndarray], float]) -> Contender:
    def measure(arguments: argparse.Namespace) -> dict[str, float]:
        x, y = make_vectors(arguments, 1), make_vectors(arguments, 2)
        loaded_gib, start, n = resident_gib(), time.process_time(), 0
        value = 0.0
        while n == 0 or (time.process_time() - start < 2.0 and n < 100):
            value, n = distance(x, y), n + 1
        return {"per_s": n / (time.process_time() - start), "value": value, "loaded_gib": loaded_gib}

    return measure


def time_interval(arguments: argparse.Namespace) -> dict[str, float]:
    x, y = (wrap(make_vectors(arguments, seed), arguments) for seed in (1, 2))
    loaded_gib, start = resident_gib(), time.process_time()
    score = score_embeddings(parse_metric("vggish"), x, y)
    spent = time.process_time() - start
    assert score.se is not None
    return {"per_s": 1.0 / spent, "value": score.value, "se": score.se, "loaded_gib": loaded_gib}


def time_replicates(distance: Callable[[np.ndarray, np.ndarray], float]) -> Contender:
    def measure(arguments: argparse.Namespace) -> dict[str, float]:
        x, y = make_vectors(arguments, 1), make_vectors(arguments, 2)
        loaded_gib, start = resident_gib(), time.process_time()
        for clip in range(arguments.replicates):
            gone = slice(clip * arguments.windows, (clip + 1) * arguments.windows)
            distance(np.delete(x, gone, axis=0), y)
        spent = (time.process_time() - start) * 2 * arguments.clips / arguments.replicates
        return {"per_s": 1.0 / spent, "loaded_gib": loaded_gib}

    return measure


CASES: dict[str, dict[str, Contender]] = {
    "distance": {
        "ours": time_distance(frechet_distance),
        "sqrtm": time_distance(distance_by_sqrtm),
    },
    "interval": {
        "ours": time_interval,
        "ours, replicates recomputed": time_replicates(frechet_distance),
        "sqrtm, replicates recomputed": time_replicates(distance_by_sqrtm),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    parser.add_argument("--case", choices=sorted(CASES), default="distance")
    case = parser.parse_known_args()[0].case
    parser.add_argument("--help", action="help", help="show this text")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--clips", type=int, default=150)
    parser.add_argument("--windows", type=int, default=1)
    parser.add_argument("--replicates", type=int, default=20)
    run_side_by_side(parser, CASES[case], figure="per_s", unit="per CPU second")


if __name__ == "__main__":
    main()
