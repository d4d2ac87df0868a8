"""The Frechet distance between the Gaussians of two sets of vectors, in float64.

The distance is squared (`|mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^1/2`, without a root); the covariances have
ddof=1.  With any factors `S = R R^T` the last trace is the nuclear norm of `R1^T R2`, so no matrix square root is
needed.  With fewer vectors than dimensions R is the centred data itself (no covariance is formed), otherwise a
Cholesky factor; a singular covariance takes an eigendecomposition without the numerically zero eigenvalues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from lora_bench.errors import ScoreError, UnscoredError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# A Cholesky pivot this far below the largest one means a singular covariance: its square is rounding error.
MIN_PIVOT_RATIO = 1e-7


@dataclass(frozen=True)
class Gaussian:
    """Mean and factored covariance of a set of vectors.

    Attributes:
        mean: [D].
        root: [D, r] with covariance `root @ root.T`.
        trace: trace of the covariance.
        n_vectors: size of the set.
    """

    mean: NDArray[np.float64]
    root: NDArray[np.float64]
    trace: float
    n_vectors: int


def check_vectors(vectors: ArrayLike, side: str) -> NDArray[np.float64]:
    """Return the vectors as float64 [M, D].

    Args:
        vectors: [M, D]; a flat array is M vectors of one dimension.
        side: `generated` or `reference`, for the message.

    Raises:
        UnscoredError: there are fewer than two vectors.
        ScoreError: the array is not two-dimensional or not finite.
    """
    array = np.asarray(vectors, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] == 0:
        raise ScoreError(f"{side} embeddings: shape {array.shape}, expected [vectors, dimensions]")
    if len(array) < 2:
        raise UnscoredError(
            f"{side} embeddings: {len(array)} vector(s), a distance needs at least 2; give more clips"
        )
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ScoreError(
            f"{side} embeddings: {int((~finite).sum())} of {len(array)} vectors hold NaN or infinite values, "
            f"the first is vector {int(np.argmin(finite))}; a distance needs finite values, so look at the "
            "clip and the encoder that made it"
        )
    return array


def check_same_dim(generated: NDArray[np.float64], reference: NDArray[np.float64]) -> None:
    """Refuse to compare vectors of different lengths.

    Raises:
        ScoreError: the dimensions differ.
    """
    if generated.shape[1] != reference.shape[1]:
        raise ScoreError(
            f"generated embeddings have {generated.shape[1]} dimensions, the reference {reference.shape[1]}; "
            "both sides must come from the same encoder"
        )


def fit_gaussian(vectors: NDArray[np.float64]) -> Gaussian:
    """Fit mean and factored covariance (ddof=1) to checked vectors [M, D], M at least 2."""
    n, dim = vectors.shape
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    trace = float(np.einsum("md,md->", centred, centred)) / (n - 1)
    if n <= dim:
        return Gaussian(mean, np.ascontiguousarray(centred.T) / np.sqrt(n - 1), trace, n)
    return Gaussian(mean, factor_covariance(centred.T @ centred / (n - 1)), trace, n)


def factor_covariance(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a root R [D, r] with `R @ R.T` equal to a symmetric positive semidefinite matrix [D, D]."""
    try:
        root = np.asarray(linalg.cholesky(covariance, lower=True, check_finite=False))
    except linalg.LinAlgError:
        return _factor_singular(covariance)
    pivots = np.diagonal(root)
    return root if pivots.min() > MIN_PIVOT_RATIO * pivots.max() else _factor_singular(covariance)


def _factor_singular(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    values, axes = np.linalg.eigh(covariance)
    kept = values > numerical_zero(values)
    return np.asarray(axes[:, kept] * np.sqrt(values[kept]), dtype=np.float64)


def numerical_zero(eigenvalues: NDArray[np.float64]) -> float:
    """Return the size below which an eigenvalue of a positive semidefinite matrix is rounding error."""
    return (
        float(np.finfo(np.float64).eps)
        * eigenvalues.shape[-1]
        * max(float(eigenvalues.max(initial=0.0)), 0.0)
    )


def frechet_between(one: Gaussian, other: Gaussian) -> float:
    """Compute the squared Frechet distance of two Gaussians of the same dimension; never negative."""
    shift = one.mean - other.mean
    coupling = one.root.T @ other.root
    overlap = float(np.sum(linalg.svdvals(coupling, check_finite=False))) if coupling.size else 0.0
    distance = float(shift @ shift) + one.trace + other.trace - 2.0 * overlap
    # The rounding error of identical sets is not a distance (and must not be negative).
    return distance if distance > 1e-13 * (one.trace + other.trace) else 0.0


def frechet_distance(generated: ArrayLike, reference: ArrayLike) -> float:
    """Compute the plug-in squared Frechet distance of two sets of vectors.

    Args:
        generated: [M, D] or [M].
        reference: [M', D] or [M'].

    Raises:
        ScoreError: not finite, different dimensions, or fewer than two vectors (`UnscoredError`).
    """
    ours, theirs = check_vectors(generated, "generated"), check_vectors(reference, "reference")
    check_same_dim(ours, theirs)
    return frechet_between(fit_gaussian(ours), fit_gaussian(theirs))
