"""Estimate the covariance of a population from fewer observations than the sample covariance needs.

The sample covariance spreads the eigenvalues: the large ones are too large, the small ones too small or zero.
Nonlinear shrinkage (Ledoit and Wolf, 2020, the analytical formula) moves them to the best value for each sample
eigenvector, which makes them too equal.  A power of them, chosen so that the sum of squares is the population's, has
about the spread of the population's eigenvalues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUPPORT = float(np.sqrt(5.0))  # of the Epanechnikov kernel of unit variance
MAX_POWER = 3.0
MIN_FREEDOM = 12  # with fewer the kernel around an eigenvalue would reach below zero


def shrink_covariance(sample: NDArray[np.float64], freedom: float) -> NDArray[np.float64]:
    """Estimate the population's covariance: full rank, with about its spectrum.

    Args:
        sample: [D, D] mean square, unbiased.
        freedom: its degrees of freedom, at least `MIN_FREEDOM`; may be less than D.

    Returns:
        [D, D] with the eigenvectors and the trace of `sample`.
    """
    values, axes = np.linalg.eigh(sample)
    values = np.maximum(values, 0.0)
    trace = float(values.sum())
    if trace <= 0.0:
        return sample
    shrunk = shrink_eigenvalues(values, freedom)
    shrunk = np.maximum(shrunk, 1e-10 * shrunk.max())
    # Unbiased for the population's sum of squares under a Wishart distribution.
    squares = float((values**2).sum()) - trace**2 / freedom
    squares *= freedom**2 / ((freedom - 1.0) * (freedom + 2.0))

    def excess(power: float) -> float:
        spread = _rescale(shrunk**power, trace)
        return float((spread**2).sum()) - squares

    power = 0.0 if excess(0.0) >= 0.0 else MAX_POWER
    if excess(0.0) < 0.0 < excess(MAX_POWER):
        power = float(optimize.brentq(excess, 0.0, MAX_POWER))  # pyright: ignore[reportArgumentType]
    return (axes * _rescale(shrunk**power, trace)) @ axes.T


def _rescale(values: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    return values * (total / values.sum())


def shrink_eigenvalues(values: NDArray[np.float64], freedom: float) -> NDArray[np.float64]:
    """Nonlinearly shrunk eigenvalues, those of rank-deficient directions included.

    Args:
        values: [D] ascending eigenvalues of the sample covariance, not negative.
        freedom: degrees of freedom; the `D - freedom` smallest count as the null space.

    Returns:
        [D] in the same order.
    """
    dim = len(values)
    freedom = float(int(freedom))
    n_null = max(0, dim - int(freedom))
    positive = np.maximum(values[n_null:], 1e-12 * values[-1])
    ratio = dim / freedom
    width = freedom ** (-1.0 / 3.0)
    scaled = width * positive[None, :]  # bandwidth in proportion to each eigenvalue
    gaps = (positive[:, None] - positive[None, :]) / scaled
    density = (0.75 / SUPPORT * np.maximum(1.0 - gaps**2 / 5.0, 0.0) / scaled).mean(axis=1)
    edge = np.isclose(np.abs(gaps), SUPPORT)
    safe = np.where(edge, 0.0, gaps)
    logs = (1.0 - safe**2 / 5.0) * np.log(np.abs((SUPPORT - safe) / (SUPPORT + safe)))
    hilbert = -0.3 / np.pi * gaps + 0.75 / SUPPORT / np.pi * np.where(edge, 0.0, logs)
    hilbert = (hilbert / scaled).mean(axis=1)
    if n_null == 0:
        real = 1.0 - ratio - np.pi * ratio * positive * hilbert
        return positive / ((np.pi * ratio * positive * density) ** 2 + real**2)
    reach = SUPPORT * width
    log_edge = np.log((1.0 + reach) / (1.0 - reach))
    at_zero = 0.3 / width**2 + 0.75 / SUPPORT / width * (1.0 - 0.2 / width**2) * log_edge
    at_zero *= (1.0 / positive).mean() / np.pi
    null = 1.0 / (np.pi * (dim - freedom) / freedom * at_zero)
    found = positive / (np.pi**2 * positive**2 * (density**2 + hilbert**2))
    return np.concatenate([np.full(n_null, null), found])
