"""Agreement of our distances with independent computations, on generated data and on audio.

    python benchmarks/agreement.py            # writes benchmarks/results/agreement.md

Every reference is computed here, independently of the package:

`sqrtm`  scipy's matrix square root of the product of the covariances (ddof=1), float64.
`fad`    `FrechetAudioDistance.calculate_frechet_distance` of the PyPI package frechet-audio-distance, its own
         code, called on means and covariances (its networks and its loader are not needed for that).
`fadtk`  the formula of microsoft/fadtk, `fadtk/fad.py` (`calc_frechet_distance`): the trace of the root is the
         sum of the roots of the eigenvalues of the product of the covariances.
`kid`    the unbiased squared MMD over all pairs of vectors, by scikit-learn's `rbf_kernel` (Gretton et al.,
         2012, eq. 3).  Ours leaves out pairs of the same clip, which with one vector per clip is the same.
`seed`   librosa's MFCC of files at their own rates, scikit-learn's StandardScaler on each (20, frames)
         matrix, all frames side by side, mean, covariance, `sqrtm` with 1e-6 on the diagonals only where
         the root is not finite.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from scipy import linalg
from scipy.spatial.distance import pdist

from lora_bench.artifacts import AudioClip, Embeddings
from lora_bench.audio import load_audio, resample, to_channels
from lora_bench.encoders.mfcc import MfccEncoder, SeedMfccEncoder
from lora_bench.metrics import parse_metric
from lora_bench.metrics.clusters import cluster_embeddings
from lora_bench.metrics.estimate import estimate_distance
from lora_bench.metrics.frechet import frechet_distance
from lora_bench.stages.score import score_embeddings

TOLERANCE = 1e-6
Statistics = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """One comparison; `expected` None where the other side gives no number, with the reason in `note`."""

    case: str
    reference: str
    ours: float
    expected: float | None
    scale: float
    note: str = ""

    @property
    def error(self) -> float | None:
        """Difference in units of the traces that cancel in the distance; None without a number."""
        return None if self.expected is None else abs(self.ours - self.expected) / self.scale


def fit(vectors: np.ndarray) -> Statistics:
    """Mean and covariance (ddof=1) in float64."""
    array = np.asarray(vectors, dtype=np.float64)
    return array.mean(axis=0), np.atleast_2d(np.cov(array, rowvar=False))


def join(x: Statistics, y: Statistics, trace_of_root: float) -> float:
    """The squared distance from its parts."""
    shift = x[0] - y[0]
    return float(shift @ shift + np.trace(x[1]) + np.trace(y[1]) - 2.0 * trace_of_root)


def by_sqrtm(x: Statistics, y: Statistics) -> float:
    """The textbook formula; 1e-6 on the diagonals only where the root is not finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = linalg.sqrtm(x[1] @ y[1])
        if not np.isfinite(root).all():
            offset = 1e-6 * np.eye(len(x[1]))
            root = linalg.sqrtm((x[1] + offset) @ (y[1] + offset))
    return join(x, y, float(np.trace(root).real))


def by_eigenvalues(x: Statistics, y: Statistics) -> float:
    """The formula of fadtk."""
    roots = np.sqrt(linalg.eigvals(x[1] @ y[1]).astype(complex))
    return join(x, y, float(roots.sum().real))


def load_fad() -> Callable[[Statistics, Statistics], float] | str:
    """frechet-audio-distance's own function, or why it cannot be had.

    Its module imports laion_clap and resampy at the top, which this computation does not use and which fetch
    files from the network, so empty modules stand in for what is not needed.
    """
    found = importlib.util.find_spec("frechet_audio_distance")
    if found is None or found.origin is None:
        return "frechet-audio-distance is not installed"
    folder = Path(found.origin).parent
    with _stand_ins("laion_clap"):
        name = "agreement_fad"
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
        try:
            module = importlib.import_module(f"{name}.fad")
        except ImportError as error:
            return f"its module cannot be imported ({error})"
    plain = object.__new__(module.FrechetAudioDistance)

    def calculate(x: Statistics, y: Statistics) -> float:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return float(plain.calculate_frechet_distance(*x, *y))

    return calculate


@contextlib.contextmanager
def _stand_ins(*names: str) -> Iterator[None]:
    kept = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: types.ModuleType(name) for name in names})
    try:
        yield
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def wrap(values: np.ndarray, n_windows: int = 1) -> Embeddings:
    names = tuple(f"{clip:04d}" for clip in range(len(values) // n_windows))
    return Embeddings(values, np.repeat(np.arange(len(names)), n_windows), names, names, {})


def make_vectors(n: int, dim: int, *, seed: int, rank: int | None = None, shift: float = 0.0) -> np.ndarray:
    """Correlated Gaussian vectors, of lower rank where that is asked for."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(rank or dim, dim)) * np.geomspace(1.0, 0.05, rank or dim)[:, None]
    return rng.normal(size=(n, rank or dim)) @ mixing + shift


def compare_generated() -> Iterator[Agreement]:
    """The Frechet distance on Gaussian vectors, from far more vectors than dimensions to far fewer."""
    fad = load_fad()
    cases = [
        ("D=1, N=200", 200, 1, None),
        ("D=20, N=150", 150, 20, None),
        ("D=20, N=150, rank 19", 150, 20, 19),
        ("D=128, N=1200", 1200, 128, None),
        ("D=128, N=100 (N < D)", 100, 128, None),
        ("D=512, N=150 (N < D)", 150, 512, None),
    ]
    for label, n, dim, rank in cases:
        x = make_vectors(n, dim, seed=1, rank=rank)
        y = make_vectors(n, dim, seed=2, rank=rank, shift=0.3)
        yield from _compare_frechet(f"Gaussian vectors, {label}", x, y, fad)


def _compare_frechet(
    case: str, x: np.ndarray, y: np.ndarray, fad: Callable[[Statistics, Statistics], float] | str
) -> Iterator[Agreement]:
    ours, one, other = frechet_distance(x, y), fit(x), fit(y)
    scale = float(np.trace(one[1]) + np.trace(other[1]))
    yield Agreement(case, "sqrtm", ours, by_sqrtm(one, other), scale)
    yield Agreement(case, "fadtk", ours, by_eigenvalues(one, other), scale)
    if isinstance(fad, str):
        yield Agreement(case, "fad", ours, None, scale, fad)
        return
    try:
        yield Agreement(case, "fad", ours, fad(one, other), scale)
    except (ValueError, TypeError) as error:
        yield Agreement(case, "fad", ours, None, scale, f"it fails: {type(error).__name__}: {error}")


def compare_kernel() -> Iterator[Agreement]:
    """The kernel distance with the median bandwidth of the reference."""
    from sklearn.metrics.pairwise import rbf_kernel

    for label, n, dim in (("D=20, N=150", 150, 20), ("D=128, N=100", 100, 128)):
        x, y = make_vectors(n, dim, seed=3), make_vectors(n, dim, seed=4, shift=0.2)
        width = float(np.median(pdist(y)))
        gamma = 1.0 / (2.0 * width**2)
        own = [rbf_kernel(side, gamma=gamma) for side in (x, y)]
        inside = [(kernel.sum() - n) / (n * (n - 1.0)) for kernel in own]
        expected = 100.0 * (inside[0] + inside[1] - 2.0 * rbf_kernel(x, y, gamma=gamma).mean())
        sides = [cluster_embeddings(wrap(side), name) for side, name in ((x, "generated"), (y, "reference"))]
        yield Agreement(
            f"Gaussian vectors, {label}", "kid", estimate_distance("mmd", *sides).value, expected, 100.0
        )


def render_phrase(seed: int, rate_hz: int, *, level: float = 0.3, seconds: float = 4.0) -> np.ndarray:
    """Plucked notes of random pitch over noise: sound with onsets, harmonics and rests."""
    rng = np.random.default_rng(seed)
    audio = rng.normal(0.0, 0.002, int(seconds * rate_hz))
    t = np.arange(rate_hz // 2) / rate_hz
    for start_s in np.arange(0.0, seconds - 0.5, 0.25):
        pitch_hz = 110.0 * 2.0 ** (rng.integers(0, 25) / 12.0)
        note = sum(np.sin(2.0 * np.pi * k * pitch_hz * t) / k**1.5 for k in range(1, 6)) * np.exp(-6.0 * t)
        place = int(start_s * rate_hz)
        audio[place : place + len(t)] += level * note
    return np.clip(audio, -1.0, 1.0).astype(np.float32)


def write_folders(folder: Path) -> tuple[list[Path], list[Path]]:
    """Two folders of audio at mixed rates, one of them half in stereo; the second is darker and quieter."""
    sides: list[list[Path]] = []
    for side, (seed, level) in enumerate(((100, 0.3), (200, 0.1))):
        paths: list[Path] = []
        for index in range(12):
            rate_hz = (16_000, 22_050, 44_100)[index % 3] if side == 0 else 16_000
            audio = render_phrase(seed + index, rate_hz, level=level)
            audio = np.stack([audio, 0.5 * audio], axis=1) if side == 0 and index % 2 else audio
            path = folder / f"{'reference' if side == 0 else 'generated'}-{index:02d}.wav"
            soundfile.write(path, audio, rate_hz, subtype="PCM_16")
            paths.append(path)
        sides.append(paths)
    return sides[0], sides[1]


def read_clips(paths: list[Path]) -> Iterator[AudioClip]:
    for path in paths:
        audio, rate_hz = load_audio(path)
        yield AudioClip(path.stem, path.stem, audio, rate_hz)


def seed_frames(paths: list[Path]) -> np.ndarray:
    """The published table's vectors, from librosa and scikit-learn alone: [frames, 20]."""
    import librosa
    from sklearn.preprocessing import StandardScaler

    parts = []
    for path in paths:
        audio, rate_hz = librosa.load(path, sr=None, mono=True)
        parts.append(StandardScaler().fit_transform(librosa.feature.mfcc(y=audio, sr=rate_hz, n_mfcc=20)))
    return np.concatenate(parts, axis=1).T


def plain_frames(paths: list[Path], rate_hz: int, divisor: np.ndarray) -> np.ndarray:
    """MFCC at one rate over a fixed divisor, from librosa alone but for the one resampler: [frames, 20]."""
    import librosa

    parts = []
    for path in paths:
        audio, found_hz = soundfile.read(path, dtype="float32", always_2d=True)
        mono = to_channels(resample(np.ascontiguousarray(audio.T), found_hz, rate_hz), 1)[0]
        parts.append(librosa.feature.mfcc(y=mono, sr=rate_hz, n_mfcc=20))
    return np.concatenate(parts, axis=1).T / divisor


def compare_audio() -> Iterator[Agreement]:
    """From wav files to distances: the published table's metric, and its mended form."""
    fad = load_fad()
    with tempfile.TemporaryDirectory() as name:
        reference, generated = write_folders(Path(name))
        encoder = SeedMfccEncoder()
        ours = score_embeddings(
            parse_metric("mfcc20-seed"),
            encoder.embed(read_clips(generated)),
            encoder.embed(read_clips(reference)),
        ).value
        one, other = fit(seed_frames(generated)), fit(seed_frames(reference))
        scale = float(np.trace(one[1]) + np.trace(other[1]))
        yield Agreement("wav files, mfcc20-seed", "seed", ours, by_sqrtm(one, other), scale)
        fixed = MfccEncoder(16_000)
        divisor = np.asarray(fixed.fit_scale(read_clips(reference)).values)
        embedded = [fixed.embed(read_clips(paths)) for paths in (generated, reference)]
        expected = [plain_frames(paths, 16_000, divisor) for paths in (generated, reference)]
        ours = score_embeddings(parse_metric("mfcc20"), *embedded).value
        one, other = fit(expected[0]), fit(expected[1])
        scale = float(np.trace(one[1]) + np.trace(other[1]))
        yield Agreement("wav files, mfcc20 against librosa", "sqrtm", ours, by_sqrtm(one, other), scale)
        vectors = [np.asarray(side.values, dtype=np.float64) for side in embedded]
        yield from _compare_frechet("wav files, our mfcc20 vectors", vectors[0], vectors[1], fad)


def write_table(found: list[Agreement]) -> str:
    """The report in markdown."""
    worst = max(item.error for item in found if item.error is not None)
    missing = [item for item in found if item.error is None]
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("numpy", "scipy", "scikit-learn", "librosa", "frechet-audio-distance", "soxr")
    )
    said = (
        f"Largest difference: {worst:.1e} in {len(found) - len(missing)} comparisons (limit {TOLERANCE:.0e}). "
        f"{len(missing)} without a number from the other side."
    )
    lines = [
        "# Agreement with other computations",
        "",
        "Written by `python benchmarks/agreement.py`; its docstring says what each reference is.",
        "The difference is in units of the sum of both covariances' traces (of 100 for the kernel distance),",
        "because the distance is what is left of them: a matrix root that is wrong in its eighth digit shows there.",
        "",
        said,
        "`FrechetAudioDistance.score` as a whole needs the weights of its networks, which nothing here fetches; its",
        "networks' vectors are compared in `tests/encoders/test_pretrained.py`. It has no covariance for D=1.",
        "",
        "| data | reference | ours | reference's | difference |",
        "|---|---|---:|---:|---:|",
    ]
    for item in found:
        theirs = "none" if item.expected is None else f"{item.expected:.8f}"
        error = item.note if item.error is None else f"{item.error:.1e}"
        lines.append(f"| {item.case} | `{item.reference}` | {item.ours:.8f} | {theirs} | {error} |")
    lines += ["", f"{versions}; Python {platform.python_version()}, {platform.machine()}.", ""]
    return "\n".join(lines)


def main() -> int:
    """Compare, write, and fail if a difference is above the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).parent / "results" / "agreement.md"
    parser.add_argument("--output", type=Path, default=default, help="where the table is written")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    found = [*compare_generated(), *compare_kernel(), *compare_audio()]
    text = write_table(found)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(item.error is None or item.error <= TOLERANCE for item in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
